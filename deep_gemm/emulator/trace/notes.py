"""What notes are made of: functions that say what an instruction is about to do."""

from __future__ import annotations

from collections.abc import Callable

from deep_gemm.emulator.ir import Instruction
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.operands import Fetch, Symbols
from deep_gemm.emulator.trace.recorder import Operation, Phase, Recorder
from deep_gemm.emulator.warp import Mask, Warp

Note = Callable[[Warp, Mask], Operation | None]
"""What an instruction is about to do; called before it is executed, changes nothing."""

Build = Callable[[Instruction, Symbols, Recorder], Note]


def phase_at(warp: Warp, place: int) -> Phase:
    """The present phase of the mbarrier at a shared::cluster address."""
    cluster = warp.cta.cluster
    barrier = cluster.mbarrier(place)
    cta = cluster.ctas[place >> RANK_SHIFT]
    return Phase(cta.index, "mbarrier", place & OFFSET_MASK, barrier.phase)


def places(warp: Warp, mask: Mask, where: Fetch) -> list[int]:
    """The different addresses of the lanes, in order."""
    return sorted({int(value) for value in where(warp)[mask]})


def named_phase(warp: Warp, barrier: int) -> Phase:
    """The present round of a named barrier; of one that the warp waits for, that round."""
    round_ = warp.cta.named_round(barrier) if warp.voted_in is None else warp.voted_in
    return Phase(warp.cta.index, "bar.sync", barrier, round_)


def always(operation: Operation) -> Build:
    """A note that says the same each time."""
    return lambda instruction, symbols, recorder: lambda warp, mask: operation
