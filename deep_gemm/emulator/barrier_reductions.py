"""bar.red: a named barrier that also tells everybody how many of its threads held a predicate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_PATTERN = (
    r"(?:bar(?:\.cta)?\.red\.(?P<what>popc|and|or)|barrier(?:\.cta)?\.red\.(?P<any>popc|and|or)"
    r"\.aligned)\.(?:u32|pred)"
)


def _reduce(instruction: Instruction, symbols: Symbols) -> Execute:
    """Votes on arrival; once the barrier is complete it comes again, for the result."""
    found = parts(instruction, _PATTERN)
    what = found["what"] or found["any"]
    destination, number, *counts, predicate = instruction.operands
    if not isinstance(destination, Register):
        raise unknown(instruction)
    fetch_id = fetcher(number, symbols, np.uint32)
    fetch_count = fetcher(counts[0], symbols, np.uint32) if counts else None
    fetch = fetcher(predicate, symbols, np.bool_)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, instruction.name)
        cta, lane = warp.cta, int(np.flatnonzero(mask)[0])
        barrier_id = int(fetch_id(warp)[lane])
        if warp.voted_in is None:
            count = cta.num_threads if fetch_count is None else int(fetch_count(warp)[lane])
            warp.voted_in = cta.arrive_named(barrier_id, count, int(mask.sum()), warp, waits=True)
            cta.votes.setdefault((barrier_id, warp.voted_in), []).append(fetch(warp)[mask])
        round_ = warp.voted_in
        if cta.named_round(barrier_id) <= round_:
            return Wait(lambda: cta.named_round(barrier_id) > round_, f"bar.red {barrier_id}")
        warp.voted_in = None
        votes = np.concatenate(cta.votes[barrier_id, round_])
        results = {"popc": votes.sum(), "and": votes.all(), "or": votes.any()}
        dtype = warp.registers[destination.slot].dtype
        warp.write(destination.slot, np.full(LANES, results[what], dtype=dtype), mask)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    f"{opcode}.red": _reduce for opcode in ("bar", "bar.cta", "barrier", "barrier.cta")
}
