"""mbarrier, named barriers, cluster barriers and fences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.memory import OFFSET_MASK, mapa
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]


def _mbarrier_init(instruction: Instruction, symbols: Symbols) -> Execute:
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
    where = address(instruction.operands[1], symbols)
    expects = "expect_tx" in instruction.modifiers
    operands = instruction.operands[2:]
    amount = fetcher(operands[0], symbols, np.uint32) if operands else None
    releases = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            place = int(where(warp)[lane])
            barrier = warp.cta.cluster.mbarrier(place)
            warp.cta.cluster.order.tell(place, warp, releases)
            if expects and amount is not None:
                barrier.expect_tx(int(amount(warp)[lane]))
                barrier.arrive(agent=warp.agent)
            else:
                barrier.arrive(1 if amount is None else int(amount(warp)[lane]), warp.agent)
        warp.gives_way = warp.cta.cluster.engine.gives_way()
        return None

    return execute


def _mbarrier_wait(instruction: Instruction, symbols: Symbols) -> Execute:
    """test_wait and try_wait by parity. try_wait suspends here until the phase is complete."""
    target, source, parity = instruction.operands[:3]
    if not isinstance(target, Register) or "parity" not in instruction.modifiers:
        raise EmulationError(f"{instruction.name} is not known")
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
        if complete and acquires:
            for place, _ in places:
                order.acquire(place, warp)
        warp.write(target.slot, np.full(LANES, complete), mask)
        return None

    return execute


def _bar_sync(instruction: Instruction, symbols: Symbols) -> Execute:
    """bar.sync id, count: the warp's threads wait for `count` threads of the CTA."""
    fetch_id = fetcher(instruction.operands[0], symbols, np.uint32)
    has_count = len(instruction.operands) > 1
    fetch_count = fetcher(instruction.operands[-1], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "bar.sync")
        lane = int(np.flatnonzero(mask)[0])
        barrier_id = int(fetch_id(warp)[lane])
        count = int(fetch_count(warp)[lane]) if has_count else warp.cta.num_threads
        round_ = warp.cta.arrive_named(barrier_id, count, int(mask.sum()), warp)
        what = f"bar.sync {barrier_id}, {count}"
        return Wait(lambda: warp.cta.named_round(barrier_id) > round_, what, repeats=False)

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
    arrives = instruction.modifiers[1] == "arrive"
    releases = "relaxed" not in instruction.modifiers

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, instruction.name)
        cluster = warp.cta.cluster
        if arrives:
            if releases:
                cluster.order.arrive(warp.timeline)
            warp.cluster_round = cluster.arrive(int(mask.sum()))
            return None
        round_ = warp.cluster_round
        if cluster.round > round_:
            cluster.order.leave(warp.timeline)
            return None
        return Wait(lambda: cluster.round > round_, "barrier.cluster.wait")

    return execute


def _fence(instruction: Instruction, symbols: Symbols) -> Execute:
    """fence.proxy.async shows the threads' writes to TMA and WGMMA, fence.mbarrier_init inits."""
    is_proxy = instruction.modifiers[:2] == ("proxy", "async")
    is_init = instruction.modifiers[0] == "mbarrier_init"

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        if is_proxy:
            warp.cta.fence_proxy(warp, mask)
        if is_init:
            warp.cta.order.fence_barriers(warp, mask)
        return None

    return execute


def _mapa(instruction: Instruction, symbols: Symbols) -> Execute:
    """mapa: the address of the same place in the shared memory of another CTA of the cluster."""
    target, source, rank = instruction.operands
    if not isinstance(target, Register):
        raise EmulationError(f"{instruction.text} is not known")
    where, which = fetcher(source, symbols, np.uint32), fetcher(rank, symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.write(target.slot, mapa(where(warp), which(warp)), mask)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "mbarrier.init": _mbarrier_init,
    "mbarrier.arrive": _mbarrier_arrive,
    "mbarrier.test_wait": _mbarrier_wait,
    "mbarrier.try_wait": _mbarrier_wait,
    "bar.sync": _bar_sync,
    "bar.warp.sync": _bar_warp_sync,
    "barrier.cluster": _cluster_barrier,
    "fence": _fence,
    "mapa": _mapa,
}
