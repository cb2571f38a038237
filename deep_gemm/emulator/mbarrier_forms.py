"""The less common operations on mbarriers: inval, bytes without arrivals, drops, and states.

A state, which mbarrier.arrive returns, is opaque to programs. Here it holds the phase and, in its
low 20 bits, the arrivals that were pending before.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.mbarrier import Mbarrier
from deep_gemm.emulator.memory import OFFSET_MASK
from deep_gemm.emulator.modifiers import SCOPE, SHARED, parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_COUNT_BITS = 20
_ORDER = rf"(?:\.(?:release|relaxed){SCOPE})?"
_ANY_SHARED = r"(?:\.shared(?:::cta|::cluster)?)?"
ARRIVE = rf"mbarrier\.arrive(?:_drop)?(?:\.expect_tx)?{_ORDER}(?:\.noComplete)?{_ANY_SHARED}\.b64"
WAIT = rf"mbarrier\.(?:test|try)_wait(?:\.parity)?(?:\.(?:acquire|relaxed){SCOPE})?{SHARED}?\.b64"


def state_of(barrier: Mbarrier) -> int:
    """What an arrival returns, taken before it."""
    return barrier.phase << _COUNT_BITS | barrier.pending


def phase_of(state: int) -> int:
    """The phase in which a state was taken."""
    return state >> _COUNT_BITS


def is_complete(barrier: Mbarrier, state: int) -> bool:
    """Whether the phase in which a state was taken is complete.

    Raises:
        HazardError: R11, it is older than the one before the present phase.
    """
    behind = barrier.phase - phase_of(state)
    if behind not in (0, 1):
        raise HazardError("R11", f"wait for a state {behind} phases old of an mbarrier; {barrier}")
    return behind == 1


def _invalidate(instruction: Instruction, symbols: Symbols) -> Execute:
    parts(instruction, rf"mbarrier\.inval{SHARED}?\.b64")
    where = address(instruction.operands[0], symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            place = int(where(warp)[lane])
            warp.cta.cluster.order.phases(place, warp)
            warp.cta.shared.invalidate_barrier(place & OFFSET_MASK)
            warp.cta.order.end_barrier(place & OFFSET_MASK, warp)
        return None

    return execute


def _count_bytes(instruction: Instruction, symbols: Symbols) -> Execute:
    """mbarrier.expect_tx and mbarrier.complete_tx, which arrive nowhere."""
    pattern = rf"mbarrier\.(?P<what>expect_tx|complete_tx)(?:\.relaxed{SCOPE})?{_ANY_SHARED}\.b64"
    expects = parts(instruction, pattern)["what"] == "expect_tx"
    where = address(instruction.operands[0], symbols)
    amount = fetcher(instruction.operands[1], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            place = int(where(warp)[lane])
            barrier = warp.cta.cluster.mbarrier(place)
            warp.cta.cluster.order.tell(place, warp, releases=False)
            num_bytes = int(amount(warp)[lane])
            if expects:
                barrier.expect_tx(num_bytes)
            else:
                barrier.complete_tx(num_bytes, warp.agent)
        return None

    return execute


def _drop(instruction: Instruction, symbols: Symbols) -> Execute:
    """mbarrier.arrive_drop: an arrival, and all later phases expect as many fewer."""
    parts(instruction, rf"mbarrier\.arrive_drop{_ORDER}{_ANY_SHARED}\.b64")
    destination, source, *counts = instruction.operands
    where = address(source, symbols)
    amount = fetcher(counts[0], symbols, np.uint32) if counts else None
    releases = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            place = int(where(warp)[lane])
            barrier = warp.cta.cluster.mbarrier(place)
            warp.cta.cluster.order.tell(place, warp, releases)
            give_state(warp, destination, barrier, int(lane))
            barrier.drop(1 if amount is None else int(amount(warp)[lane]), warp.agent)
        return None

    return execute


def give_state(warp: Warp, destination: object, barrier: Mbarrier, lane: int) -> None:
    """Writes the state before an arrival, if the instruction wants it."""
    if isinstance(destination, Register):
        state = np.full(LANES, state_of(barrier), dtype=np.uint64)
        warp.write(destination.slot, state, np.arange(LANES) == lane)


def wait_for_state(instruction: Instruction, symbols: Symbols) -> Execute:
    """test_wait and try_wait without .parity: for the phase in which a state was taken."""
    parts(instruction, WAIT)
    target, source, state, *_ = instruction.operands
    if not isinstance(target, Register):
        raise unknown(instruction)
    where, fetch = address(source, symbols), fetcher(state, symbols, np.uint64)
    suspends = instruction.modifiers[0] == "try_wait"
    acquires = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lanes = np.flatnonzero(mask)
        places = {(int(where(warp)[lane]), int(fetch(warp)[lane])) for lane in lanes}

        def all_complete() -> bool:
            mbarrier = warp.cta.cluster.mbarrier
            return all(is_complete(mbarrier(place), taken) for place, taken in places)

        order = warp.cta.cluster.order
        for place, _ in places:
            order.phases(place, warp)
        complete = all_complete()
        if suspends and not complete:
            return Wait(all_complete, f"mbarrier {min(places)[0]:#x} by state")
        if not complete:
            warp.poll()
        for place, _ in places if complete else ():
            order.acquire(place, warp, acquires)
        warp.write(target.slot, np.full(LANES, complete), mask)
        return None

    return execute


def _pending_count(instruction: Instruction, symbols: Symbols) -> Execute:
    parts(instruction, r"mbarrier\.pending_count\.b64")
    destination, state = instruction.operands
    fetch = fetcher(state, symbols, np.uint64)
    if not isinstance(destination, Register):
        raise unknown(instruction)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        pending = fetch(warp) & np.uint64((1 << _COUNT_BITS) - 1)
        warp.write(destination.slot, pending.astype(np.uint32), mask)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "mbarrier.inval": _invalidate,
    "mbarrier.expect_tx": _count_bytes,
    "mbarrier.complete_tx": _count_bytes,
    "mbarrier.arrive_drop": _drop,
    "mbarrier.pending_count": _pending_count,
}
