"""Asynchronous copies: cp.async by word, TMA by box, and the groups that wait for TMA stores."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.clocks import Clock
from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.global_memory import check_alignment
from deep_gemm.emulator.ir import Address, Instruction, TensorAddress
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.modifiers import LEVELS, SHARED, parts, unknown
from deep_gemm.emulator.operands import LANES, Lanes, Symbols, address, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]


def _cp_async(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async: each lane copies 4, 8 or 16 bytes; those past the source size become zero."""
    parts(instruction, rf"cp\.async\.c[ag]{SHARED}\.global{LEVELS}")
    destination, source, size_operand, *rest = instruction.operands
    where, what = address(destination, symbols), address(source, symbols)
    fetch_size = fetcher(size_operand, symbols, np.uint32)
    fetch_source_size = fetcher(rest[0], symbols, np.uint32) if rest else fetch_size

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lanes = np.flatnonzero(mask)
        size = int(fetch_size(warp)[lanes[0]])
        targets = (where(warp)[lanes] & np.uint64(OFFSET_MASK)).astype(np.int64)
        origins = what(warp)[lanes].copy()
        source_bytes = fetch_source_size(warp)[lanes].astype(np.int64)
        if (source_bytes > size).any():
            raise HazardError("R14", "cp.async with a source size beyond its size")
        check_alignment("shared", targets, size, size)
        check_alignment("global", origins[source_bytes > 0], size, size)
        cta = warp.cta
        cta.cluster.order.touch_global(warp)
        offsets = targets[:, None] + np.arange(size)
        cta.order.copy(warp, lanes, offsets)
        cta.begin_fill(offsets, warp.agent, "generic")

        def deliver() -> None:
            data = np.zeros(offsets.shape, dtype=np.uint8)
            for count in np.unique(source_bytes[source_bytes > 0]):
                some = source_bytes == count
                words = cta.grid.memory.read(origins[some], int(count), alignment=1)
                data[some, : int(count)] = words
            cta.shared.land(offsets, data, warp.agent, "generic")

        cta.cluster.submit(("cp.async", id(warp)), deliver)
        return None

    return execute


def _cp_async_arrive(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.mbarrier.arrive.noinc: arrives once the lane's earlier cp.async are complete."""
    if "noinc" not in instruction.modifiers:
        raise unknown(instruction)
    where = address(instruction.operands[0], symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lanes = np.flatnonzero(mask)
        places = [int(where(warp)[lane]) for lane in lanes]
        cluster = warp.cta.cluster
        done = []
        for lane in lanes:
            copies = warp.timeline.stream("cp.async", int(lane))
            done.append(Clock())
            done[-1].advance(copies.agent, copies.cut())
        phases = [cluster.order.phases(place, warp) for place in places]

        def arrive() -> None:
            for place, phase_clocks, clock in zip(places, phases, done, strict=True):
                barrier = cluster.mbarrier(place)
                phase_clocks.arriving(barrier.phase).join(clock)
                barrier.arrive(agent=warp.agent)

        cluster.submit(("cp.async", id(warp)), arrive)
        return None

    return execute


def _commit_copies(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.commit_group, or as a part of wait_all: closes a group of each lane's cp.async."""
    parts(instruction, r"cp\.async\.(?:commit_group|wait_all)")

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.open_copies = warp.open_copies + mask
        for lane in np.flatnonzero(mask):
            warp.timeline.stream("cp.async", int(lane)).close()

        def complete() -> None:
            warp.open_copies = warp.open_copies - mask

        # Behind the copies themselves, which happen in order.
        warp.cta.cluster.submit(("cp.async", id(warp)), complete)
        return None

    return execute


def _wait_copies(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.wait_group: at most so many of the lane's latest groups stay in flight."""
    parts(instruction, r"cp\.async\.wait_group")
    keep = fetcher(instruction.operands[0], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        limit = keep(warp)
        _know_copies(warp, mask, limit)

        def is_over() -> bool:
            return bool((warp.open_copies <= limit)[mask].all())

        return None if is_over() else Wait(is_over, instruction.text, repeats=False)

    return execute


def _know_copies(warp: Warp, mask: Mask, keep: Lanes) -> None:
    """What the lanes do once they go on comes after all their groups but the latest `keep`."""
    for lane in np.flatnonzero(mask):
        copies = warp.timeline.stream("cp.async", int(lane))
        copies.complete(warp.timeline.clock, int(keep[lane]))


def _wait_all_copies(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.wait_all: closes a group and waits for all."""
    commit = _commit_copies(instruction, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        commit(warp, mask)
        _know_copies(warp, mask, np.zeros(LANES, dtype=np.uint32))

        def is_over() -> bool:
            return not warp.open_copies[mask].any()

        return None if is_over() else Wait(is_over, instruction.text, repeats=False)

    return execute


def _tma(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.bulk.tensor: a store if the first operand is a tensor map, else a load."""
    if isinstance(instruction.operands[0], TensorAddress):
        return _tma_store(instruction, symbols)
    return _tma_load(instruction, symbols)


def _single_lane(mask: Mask, what: str) -> int:
    lanes = np.flatnonzero(mask)
    if len(lanes) != 1:
        raise EmulationError(f"{what} by {len(lanes)} lanes at once is not supported")
    return int(lanes[0])


def _tma_load(instruction: Instruction, symbols: Symbols) -> Execute:
    pattern = (
        r"cp\.async\.bulk\.tensor\.[1-5]d(?:\.cta_group::1)?(?P<early>\.cta_group::2)?"
        r"\.shared::(?:cluster|cta)\.global(?:\.tile)?"
        r"\.mbarrier::complete_tx::bytes(?:\.multicast::cluster)?(?P<pair>\.cta_group::[12])?"
        r"(?:\.L2::cache_hint)?"
    )
    found = parts(instruction, pattern)
    is_of_pair = ".cta_group::2" in (found["pair"], found["early"])
    destination, source, barrier, *rest = instruction.operands
    if not isinstance(source, TensorAddress):
        raise EmulationError("a TMA load needs a tensor map and coordinates")
    where, completes = address(destination, symbols), address(barrier, symbols)
    fetch_map = address(Address(source.base, 0), symbols)  # type: ignore[arg-type]
    coordinates = [fetcher(item, symbols, np.uint32) for item in source.coordinates]
    multicast = "multicast::cluster" in instruction.modifiers
    fetch_ranks = fetcher(rest[0], symbols, np.uint16) if multicast else None

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lane = _single_lane(mask, "a TMA load")
        cluster = warp.cta.cluster
        ranks = [warp.cta.rank]
        if fetch_ranks is not None:
            bits = int(fetch_ranks(warp)[lane])
            ranks = [rank for rank in range(16) if bits >> rank & 1]
        place = int(completes(warp)[lane])
        parity = _told_parity(warp, place) if is_of_pair else None
        if parity is None and place >> RANK_SHIFT != warp.cta.rank:
            text = f"{place:#x} is in CTA {place >> RANK_SHIFT} of the cluster"
            raise HazardError("R34", f"a TMA load without .cta_group::2, whose mbarrier {text}")
        cluster.load_box(
            map_address=int(fetch_map(warp)[lane]),
            coordinates=[int(np.int32(item(warp)[lane].view(np.int32))) for item in coordinates],
            destination=int(where(warp)[lane]) & OFFSET_MASK,
            barrier=place & OFFSET_MASK,
            ranks=ranks,
            warp=warp,
            parity=parity,
        )
        return None

    return execute


def _told_parity(warp: Warp, place: int) -> int:
    """With .cta_group::2: which CTA of a pair has the mbarrier, the even or the odd one."""
    rank = place >> RANK_SHIFT
    if rank >> 1 != warp.cta.rank >> 1:
        text = f"{place:#x} is in CTA {rank}, of another pair than CTA {warp.cta.rank}"
        raise HazardError("R34", f"a TMA load with .cta_group::2, whose mbarrier {text}")
    return rank & 1


def _tma_store(instruction: Instruction, symbols: Symbols) -> Execute:
    pattern = (
        r"cp\.async\.bulk\.tensor\.[1-5]d\.global\.shared::cta(?:\.tile)?\.bulk_group"
        r"(?:\.L2::cache_hint)?"
    )
    parts(instruction, pattern)
    target, source = instruction.operands[:2]
    if not isinstance(target, TensorAddress):
        raise EmulationError("a TMA store needs a tensor map and coordinates")
    fetch_map = address(Address(target.base, 0), symbols)  # type: ignore[arg-type]
    coordinates = [fetcher(item, symbols, np.uint32) for item in target.coordinates]
    where = address(source, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lane = _single_lane(mask, "a TMA store")
        store = warp.cta.store_box(
            map_address=int(fetch_map(warp)[lane]),
            coordinates=[int(np.int32(item(warp)[lane].view(np.int32))) for item in coordinates],
            source=int(where(warp)[lane]) & OFFSET_MASK,
            warp=warp,
            lane=lane,
        )
        warp.stores.setdefault(lane, []).append(store)
        return None

    return execute


def _commit_stores(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.bulk.commit_group: closes a group of the lane's stores."""

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            open_stores = warp.stores.pop(int(lane), [])
            warp.store_groups.setdefault(int(lane), []).append(open_stores)
            warp.timeline.stream("store", int(lane)).close()
        return None

    return execute


def _wait_stores(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.bulk.wait_group: at most so many of the lane's latest groups stay in flight."""
    keep = fetcher(instruction.operands[0], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            groups = warp.store_groups.get(int(lane), [])
            kept = int(keep(warp)[lane])
            warp.timeline.stream("store", int(lane)).complete(warp.timeline.clock, kept)
            count = max(0, len(groups) - kept)
            for group in groups[:count]:
                for finish in group:
                    finish()
            del groups[:count]
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "cp.async.mbarrier.arrive": _cp_async_arrive,
    "cp.async.commit_group": _commit_copies,
    "cp.async.wait_group": _wait_copies,
    "cp.async.wait_all": _wait_all_copies,
    "cp.async.bulk.tensor": _tma,
    "cp.async.bulk.commit_group": _commit_stores,
    "cp.async.bulk.wait_group": _wait_stores,
    "cp.async.ca": _cp_async,
    "cp.async.cg": _cp_async,
}
