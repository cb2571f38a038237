"""tcgen05 but for its moves and products: allocation, waits, fences, commit.

A pair of CTAs is ranks 2i and 2i + 1; instructions with cta_group::2 act on both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT, compose_shared
from deep_gemm.emulator.modifiers import parts
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.races import Kind, Operation
from deep_gemm.emulator.warp import MAX_WARPS, Mask, Wait, Warp

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta

Execute = Callable[[Warp, Mask], Wait | None]

GROUP = r"\.cta_group::(?P<group>[12])"


def ctas_of(warp: Warp, cta_group: int) -> list[Cta]:
    """The CTAs that an instruction acts on, the even one first.

    Raises:
        HazardError: R34, the cluster has no pairs; R12, the peer has left.
    """
    warp.cta.tensor.use_group(cta_group)
    cluster = warp.cta.cluster
    if cta_group == 1:
        return [warp.cta]
    if len(cluster.ctas) % 2:
        text = f"tcgen05 with cta_group::2 in a cluster of {len(cluster.ctas)}, which has no pairs"
        raise HazardError("R34", text)
    even = warp.cta.rank & ~1
    return [cluster.cta_of_rank(even), cluster.cta_of_rank(even + 1)]


def single_lane(mask: Mask, what: str) -> int:
    """The one thread that issues an instruction.

    Raises:
        HazardError: R8, there are several.
    """
    lanes = np.flatnonzero(mask)
    if len(lanes) != 1:
        raise HazardError("R8", f"{what} by {len(lanes)} threads of a warp: each issues one")
    return int(lanes[0])


def _allocate(instruction: Instruction, symbols: Symbols) -> Execute:
    """tcgen05.alloc: writes the address to shared memory; blocks until there is room.

    With cta_group::2 it waits for a warp of the peer to ask for as much, and both get the same.
    """
    found = parts(instruction, rf"tcgen05\.alloc{GROUP}\.sync\.aligned(?:\.shared::cta)?\.b32")
    group = int(found["group"])
    where = address(instruction.operands[0], symbols)
    fetch_columns = fetcher(instruction.operands[1], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "tcgen05.alloc")
        ctas, tensor = ctas_of(warp, group), warp.cta.tensor
        num_columns = int(fetch_columns(warp)[0])
        if warp.agent not in tensor.requests:
            tensor.check_request(num_columns)
            tensor.requests[warp.agent] = num_columns
        first = _granted(warp, ctas, num_columns)
        if first is None:
            return Wait(
                lambda: _granted(warp, ctas, num_columns) is not None,
                f"tcgen05.alloc of {num_columns} columns with cta_group::{group}",
            )
        del tensor.requests[warp.agent]
        tensor.granted.pop(warp.agent, None)
        data = np.full(LANES, first, dtype=np.uint32).view(np.uint8).reshape(LANES, -1)
        at = where(warp) & np.uint64(0xFFFF_FFFF)
        if int(at[0]) >> RANK_SHIFT != warp.cta.rank:
            raise HazardError("R13", "tcgen05.alloc writes its address to another CTA")
        warp.cta.store("shared", at, data, np.arange(LANES) == 0, warp)
        if warp.cta.cluster.launch.implies_tensor_fences:
            warp.cta.fence_proxy(warp, mask)
            warp.cta.order.imply_read_fences((at[:1] & np.uint64(OFFSET_MASK)).astype(np.int64))
        return None

    return execute


def _granted(warp: Warp, ctas: list[Cta], num_columns: int) -> int | None:
    """The first column that a warp gets, if it is its turn; allocates for the whole pair."""
    own = warp.cta.tensor
    if warp.agent in own.granted:
        return own.granted[warp.agent]
    first = own.free_column(num_columns, *(cta.tensor for cta in ctas))
    if first is None or not all(cta.tensor.requests for cta in ctas):
        return None
    for cta in ctas:
        agent, wanted = next(iter(cta.tensor.requests.items()))
        if cta is warp.cta:
            agent = warp.agent
        elif wanted != num_columns:
            text = f"{num_columns} columns for one CTA of a pair, {wanted} for the other"
            raise HazardError("R34", f"tcgen05.alloc of {text}")
        cta.tensor.allocate(first, num_columns, agent % MAX_WARPS)
        cta.tensor.granted[agent] = first
    return first


def _deallocate(instruction: Instruction, symbols: Symbols) -> Execute:
    """tcgen05.dealloc: with cta_group::2 a warp of each CTA frees the columns of both.

    By PTX's table of issue granularity (9.7.16.5) the first one may block until the other is there,
    and before it, accesses of both CTAs have to be over; behind it, a CTA may leave at once.
    """
    found = parts(instruction, rf"tcgen05\.dealloc{GROUP}\.sync\.aligned\.b32")
    group = int(found["group"])
    fetch_address, fetch_columns = (
        fetcher(item, symbols, np.uint32) for item in instruction.operands
    )

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "tcgen05.dealloc")
        ctas, first = ctas_of(warp, group), int(fetch_address(warp)[0])
        cells = warp.cta.tensor.deallocate(first, int(fetch_columns(warp)[0]))

        def is_done() -> bool:
            return not any(first in cta.tensor.allocations for cta in ctas)

        warp.cta.cluster.tensor_order.free(warp, ctas, cells, is_done())
        for cta in ctas:
            cta.tensor.close(cells)
        return None if is_done() else Wait(is_done, "tcgen05.dealloc by the peer", repeats=False)

    return execute


def _relinquish(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, rf"tcgen05\.relinquish_alloc_permit{GROUP}\.sync\.aligned")
    group = int(found["group"])

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "tcgen05.relinquish_alloc_permit")
        warp.cta.tensor.use_group(group)
        warp.cta.tensor.is_relinquished = True
        return None

    return execute


def _wait(instruction: Instruction, symbols: Symbols) -> Execute:
    what = parts(instruction, r"tcgen05\.wait::(?P<what>ld|st)\.sync\.aligned")["what"]
    kind = Kind.TENSOR_LOAD if what == "ld" else Kind.TENSOR_STORE

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, f"tcgen05.wait::{what}")
        warp.cta.cluster.tensor_order.wait(warp, kind)
        return None

    return execute


def _fence(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, r"tcgen05\.fence::(?P<side>before|after)_thread_sync")
    is_before = found["side"] == "before"

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        order = warp.cta.cluster.tensor_order
        if is_before:
            order.before_sync(warp)
        else:
            order.after_sync(warp)
        return None

    return execute


def _commit(instruction: Instruction, symbols: Symbols) -> Execute:
    """tcgen05.commit: arrives on an mbarrier once all that the thread has issued is complete."""
    pattern = (
        rf"tcgen05\.commit{GROUP}\.mbarrier::arrive::one(?:\.shared::cluster)?"
        r"(?P<multicast>\.multicast::cluster)?\.b64"
    )
    found = parts(instruction, pattern)
    group = int(found["group"])
    target, *rest = instruction.operands
    where = address(target, symbols)
    fetch_ranks = fetcher(rest[0], symbols, np.uint16) if found["multicast"] else None

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        ctas_of(warp, group)
        for lane in np.flatnonzero(mask):
            # A generic address of shared memory has its shared::cluster address in the low half.
            place = int(where(warp)[lane]) & 0xFFFF_FFFF
            ranks = [place >> RANK_SHIFT]
            if fetch_ranks is not None:
                bits = int(fetch_ranks(warp)[lane])
                ranks = [rank for rank in range(16) if bits >> rank & 1]
            places = [compose_shared(rank, place & OFFSET_MASK) for rank in ranks]
            _arrive_when_done(warp, int(lane), places)
        warp.gives_way = warp.cta.cluster.engine.gives_way()
        return None

    return execute


def _arrive_when_done(warp: Warp, lane: int, places: list[int]) -> None:
    cluster = warp.cta.cluster
    told, access = cluster.tensor_order.commit(warp, lane), cluster.access()
    phases = [cluster.order.phases(place, warp) for place in places]

    def arrive() -> None:
        for place, phase_clocks in zip(places, phases, strict=True):
            barrier, cta = cluster.mbarrier(place), cluster.ctas[place >> RANK_SHIFT]
            if cta is not warp.cta:
                # Nothing says that arrivals of two commits are in order: only a wait tells of each.
                arrival = Operation(Kind.MMA, phase_clocks.agent, barrier.phase + 1, access)
                cta.order.must_end("R12", arrival)
            phase_clocks.arriving(barrier.phase).join(told)
            barrier.arrive(agent=warp.agent)

    cluster.submit(("tcgen05", warp.cta.index), arrive)


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "tcgen05.alloc": _allocate,
    "tcgen05.dealloc": _deallocate,
    "tcgen05.relinquish_alloc_permit": _relinquish,
    "tcgen05.wait::ld": _wait,
    "tcgen05.wait::st": _wait,
    "tcgen05.fence::before_thread_sync": _fence,
    "tcgen05.fence::after_thread_sync": _fence,
    "tcgen05.commit": _commit,
}
