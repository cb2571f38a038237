"""mbarrier, named barriers, cluster barriers and fences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.mbarrier_forms import ARRIVE, WAIT, give_state, wait_for_state
from deep_gemm.emulator.memory import OFFSET_MASK
from deep_gemm.emulator.modifiers import SHARED, parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]


def _mbarrier_init(instruction: Instruction, symbols: Symbols) -> Execute:
    parts(instruction, rf"mbarrier\.init{SHARED}?\.b64")
    where = address(instruction.operands[0], symbols)
    count = fetcher(instruction.operands[1], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            offset = int(where(warp)[lane]) & OFFSET_MASK
            warp.cta.shared.init_barrier(offset, int(count(warp)[lane]))
            warp.cta.order.init_barrier(offset, warp, int(lane))
        return None

    return execute


def _mbarrier_arrive(instruction: Instruction, symbols: Symbols) -> Execute:
    """mbarrier.arrive, with expect_tx or without; local or in a peer's shared memory."""
    parts(instruction, ARRIVE)
    where = address(instruction.operands[1], symbols)
    may_complete = "noComplete" not in instruction.modifiers
    expects = "expect_tx" in instruction.modifiers
    operands = instruction.operands[2:]
    amount = fetcher(operands[0], symbols, np.uint32) if operands else None
    releases = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            place = int(where(warp)[lane])
            barrier = warp.cta.cluster.mbarrier(place)
            warp.cta.cluster.order.tell(place, warp, releases)
            give_state(warp, instruction.operands[0], barrier, int(lane))
            if expects and amount is not None:
                barrier.expect_tx(int(amount(warp)[lane]))
                barrier.arrive(agent=warp.agent)
            else:
                count = 1 if amount is None else int(amount(warp)[lane])
                if count == barrier.pending and not may_complete:
                    raise HazardError("R10", f"arrive.noComplete on an mbarrier whose {barrier}")
                barrier.arrive(count, warp.agent)
        warp.gives_way = warp.cta.cluster.engine.gives_way()
        return None

    return execute


def _mbarrier_wait(instruction: Instruction, symbols: Symbols) -> Execute:
    """test_wait and try_wait by parity. try_wait suspends here until the phase is complete."""
    parts(instruction, WAIT)
    if "parity" not in instruction.modifiers:
        return wait_for_state(instruction, symbols)
    target, source, parity = instruction.operands[:3]
    if not isinstance(target, Register):
        raise unknown(instruction)
    where = address(source, symbols)
    fetch_parity = fetcher(parity, symbols, np.uint32)
    suspends = instruction.modifiers[0] == "try_wait"
    acquires = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lanes = np.flatnonzero(mask)
        places = {(int(where(warp)[lane]), int(fetch_parity(warp)[lane])) for lane in lanes}

        def is_complete() -> bool:
            return all(order.test(place, phase, warp) for place, phase in places)

        order = warp.cta.cluster.order
        complete = is_complete()
        if suspends and not complete:
            text = ", ".join(f"mbarrier {place:#x} parity {phase}" for place, phase in places)
            return Wait(is_complete, text)
        if not complete:
            warp.poll()
        for place, _ in places if complete else ():
            order.acquire(place, warp, acquires)
        warp.write(target.slot, np.full(LANES, complete), mask)
        return None

    return execute


def _bar(instruction: Instruction, symbols: Symbols) -> Execute:
    """bar.sync and bar.arrive: `count` threads of the CTA; those that arrive only go on at once."""
    pattern = (
        r"bar(?:\.cta)?\.(?P<what>sync|arrive)"
        r"|barrier(?:\.cta)?\.(?P<any>sync|arrive)(?P<aligned>\.aligned)?"
    )
    found = parts(instruction, pattern)
    what, is_aligned = found["what"] or found["any"], bool(found["what"] or found["aligned"])
    fetch_id = fetcher(instruction.operands[0], symbols, np.uint32)
    has_count = len(instruction.operands) > 1
    if what == "arrive" and not has_count:
        raise unknown(instruction)
    fetch_count = fetcher(instruction.operands[-1], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        if is_aligned:
            warp.require_converged(mask, f"bar.{what}")
        lane = int(np.flatnonzero(mask)[0])
        barrier_id = int(fetch_id(warp)[lane])
        count = int(fetch_count(warp)[lane]) if has_count else warp.cta.num_threads
        round_ = warp.cta.arrive_named(
            barrier_id, count, int(mask.sum()), warp, waits=what == "sync"
        )
        if what == "arrive":
            warp.gives_way = warp.cta.cluster.engine.gives_way()
            return None
        text = f"bar.sync {barrier_id}, {count}"
        return Wait(lambda: warp.cta.named_round(barrier_id) > round_, text, repeats=False)

    return execute


def _bar_warp_sync(instruction: Instruction, symbols: Symbols) -> Execute:
    """bar.warp.sync: lanes wait until all that the mask names, and that live, are there."""
    members = fetcher(instruction.operands[0], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        named = (int(members(warp)[np.flatnonzero(mask)[0]]) >> np.arange(LANES)) & 1 == 1

        def all_there() -> bool:
            group = next(g for g in warp.groups if (g.mask & mask).any())
            return bool((group.mask == (group.mask | (named & warp.alive))).all())

        return None if all_there() else Wait(all_there, "bar.warp.sync")

    return execute


def _cluster_barrier(instruction: Instruction, symbols: Symbols) -> Execute:
    pattern = (
        r"barrier\.cluster\.(?:(?P<arrive>arrive)(?:\.release|\.relaxed)?|wait(?:\.acquire)?)"
        r"(?:\.aligned)?"
    )
    arrives = bool(parts(instruction, pattern)["arrive"])
    releases = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, instruction.name)
        cluster = warp.cta.cluster
        if arrives:
            cluster.order.arrive(warp.timeline, releases)
            warp.cluster_round = cluster.arrive(int(mask.sum()))
            return None
        round_ = warp.cluster_round
        if cluster.round > round_:
            cluster.order.leave(warp.timeline)
            return None
        return Wait(lambda: cluster.round > round_, "barrier.cluster.wait")

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "mbarrier.init": _mbarrier_init,
    "mbarrier.arrive": _mbarrier_arrive,
    "mbarrier.test_wait": _mbarrier_wait,
    "mbarrier.try_wait": _mbarrier_wait,
    "bar.warp.sync": _bar_warp_sync,
    "barrier.cluster": _cluster_barrier,
    "bar": _bar,
    "barrier": _bar,
}
