"""Notes of the instructions that signal or wait in programs other than our kernel."""

from __future__ import annotations

import numpy as np

from deep_gemm.emulator.ir import Immediate, Instruction
from deep_gemm.emulator.mbarrier_forms import is_complete, phase_of
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.operands import Symbols, address, fetcher
from deep_gemm.emulator.trace.notes import Build, Note, always, named_phase, phase_at, places
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    CopyCommit,
    CopyWait,
    Operation,
    Recorder,
    Store,
    Sync,
    Wait,
)
from deep_gemm.emulator.warp import Mask, Warp


def wait_for_state(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    """mbarrier.test_wait and try_wait without .parity."""
    where = address(instruction.operands[1], symbols)
    fetch = fetcher(instruction.operands[2], symbols, np.uint64)
    is_test = instruction.modifiers[0] == "test_wait"

    def note(warp: Warp, mask: Mask) -> Operation | None:
        wanted = sorted({(int(where(warp)[i]), int(fetch(warp)[i])) for i in np.flatnonzero(mask)})
        if not all(is_complete(warp.cta.cluster.mbarrier(at), state) for at, state in wanted):
            return None
        phases = (phase_at(warp, at)._replace(turn=phase_of(state)) for at, state in wanted)
        return Wait(tuple(phases), is_test)

    return note


def _complete_bytes(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    where = address(instruction.operands[0], symbols)
    return lambda warp, mask: Arrive(
        tuple(phase_at(warp, place) for place in places(warp, mask, where))
    )


def _named_arrive(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    fetch_id = fetcher(instruction.operands[0], symbols, np.uint32)
    return lambda warp, mask: Arrive((named_phase(warp, int(fetch_id(warp)[np.argmax(mask)])),))


def _named_reduce(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    fetch_id = fetcher(instruction.operands[1], symbols, np.uint32)
    return lambda warp, mask: Sync(named_phase(warp, int(fetch_id(warp)[np.argmax(mask)])))


def _bulk(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    """Bulk copies of bytes: stores, and loads and copies to a peer, which signal an mbarrier."""
    if "prefetch" in instruction.modifiers:
        return lambda warp, mask: None
    target, _, size, *rest = instruction.operands
    fetch_size = fetcher(size, symbols, np.uint32)
    if "bulk_group" in instruction.modifiers:
        return lambda warp, mask: Store(int(fetch_size(warp)[mask].sum()))
    where, completes = address(target, symbols), address(rest[0], symbols)
    is_multicast = "multicast::cluster" in instruction.modifiers
    fetch_ranks = fetcher(rest[1] if is_multicast else Immediate(0), symbols, np.uint16)

    def note(warp: Warp, mask: Mask) -> Operation:
        lane = int(np.argmax(mask))
        at, place = int(where(warp)[lane]), int(completes(warp)[lane])
        bits = int(fetch_ranks(warp)[lane]) or 1 << (at >> RANK_SHIFT)
        ranks = [rank for rank in range(len(warp.cta.cluster.ctas)) if bits >> rank & 1]
        places_ = (rank << RANK_SHIFT | place & OFFSET_MASK for rank in ranks)
        start, num_bytes = at & OFFSET_MASK, int(fetch_size(warp)[lane])
        phases = tuple(phase_at(warp, place) for place in places_)
        return recorder.new_load(phases, (start, start + num_bytes))

    return note


def _store_async(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    """st.async: signals an mbarrier of a peer, or of the CTA itself."""
    where = address(instruction.operands[2], symbols)
    return lambda warp, mask: Arrive(
        tuple(phase_at(warp, place) for place in places(warp, mask, where))
    )


def _copy_wait(instruction: Instruction, symbols: Symbols, recorder: Recorder) -> Note:
    keep = fetcher(instruction.operands[0], symbols, np.uint32)
    return lambda warp, mask: CopyWait(int(keep(warp)[np.argmax(mask)]))


TABLE: dict[str, Build] = {
    "mbarrier.complete_tx": _complete_bytes,
    "cp.async.commit_group": always(CopyCommit()),
    "cp.async.wait_group": _copy_wait,
    "cp.async.wait_all": always(CopyWait(None)),
    "st.async": _store_async,
    "cp.async.bulk": _bulk,
    "cp.reduce.async.bulk": _bulk,
    **{f"{name}.arrive": _named_arrive for name in ("bar", "bar.cta", "barrier", "barrier.cta")},
    **{f"{name}.red": _named_reduce for name in ("bar", "bar.cta", "barrier", "barrier.cta")},
}
