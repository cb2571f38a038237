"""Happens-before in a running cluster: which accesses and synchronisations order what."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.clocks import Clock, Meeting, PhaseClocks, Timeline
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.global_memory import Bytes
from deep_gemm.emulator.memory import BARRIER_BYTES, OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.operands import LANES
from deep_gemm.emulator.races import Kind, Ledger, Operation, Races
from deep_gemm.emulator.strong import Strength

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta
    from deep_gemm.emulator.grid import Cluster
    from deep_gemm.emulator.warp import Warp

Offsets = NDArray[np.int64]


class ClusterOrder:
    """What crosses CTAs: mbarriers, which are told and asked from everywhere, and the barrier.

    Attributes:
        ledger: the operations.
        agents: yields numbers that no agent has yet.
        strong: what atomics and strong accesses tell, by CTA (None for global memory) and address.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Starts with nothing done."""
        self.ledger = Ledger()
        self.agents = count(1)
        self.strong: dict[tuple[int | None, int], Clock] = {}
        self._cluster = cluster
        # Stands for the grid before, which is known to be over once its time is 1.
        self._predecessor = next(self.agents)
        self._arriving, self._complete = Clock(), Clock()
        self._executing, self._executed = Clock(), Clock()

    def wait_for_predecessor(self, warp: Warp) -> None:
        """griddepcontrol.wait."""
        warp.timeline.clock.advance(self._predecessor, 1)

    def touch_global(self, warp: Warp) -> None:
        """A warp accesses global memory, or starts a copy that does.

        Raises:
            HazardError: R27, the grid before may still be at work.
        """
        if self._cluster.launch.pdl and not warp.timeline.clock[self._predecessor]:
            text = "global memory is accessed, and nothing orders a griddepcontrol.wait before"
            raise HazardError("R27", f"{text}: the grid before may still be at work")

    def phases(self, address: int, warp: Warp) -> PhaseClocks:
        """What waiting on the mbarrier at a shared::cluster address tells.

        Raises:
            HazardError: as Cluster.mbarrier; R9, nothing orders its init before the warp's use, or
                the warp is in another CTA and nothing orders a fence.mbarrier_init before its use.
        """
        self._cluster.mbarrier(address)
        cta = self._cluster.ctas[address >> RANK_SHIFT]
        phases = cta.order.phases[address & OFFSET_MASK]
        clock, name = warp.timeline.clock, f"mbarrier {address:#x}"
        if not phases.is_initialised(clock):
            raise HazardError("R9", f"{name} used, and nothing orders its init before")
        if warp.cta is not cta and not phases.is_fenced(clock):
            text = f"{name} used by another CTA, without a fence.mbarrier_init after its init"
            raise HazardError("R9", text)
        return phases

    def tell(self, address: int, warp: Warp, releases: bool) -> None:
        """A warp is about to arrive on an mbarrier: those who wait will know what it knows."""
        phases, cta = self.phases(address, warp), self._cluster.ctas[address >> RANK_SHIFT]
        if cta is not warp.cta:
            cta.order.must_end("R12", operation_of(warp))
        phase = cta.shared.barrier(address & OFFSET_MASK).phase
        warp.timeline.release(phases.arriving(phase), relaxed=not releases)

    def test(self, address: int, parity: int, warp: Warp) -> bool:
        """Whether a phase is complete, asked by a warp that must not be two phases behind."""
        known = warp.timeline.clock[self.phases(address, warp).agent]
        return self._cluster.mbarrier(address).test_parity(parity, warp.agent, known)

    def acquire(self, address: int, warp: Warp, acquires: bool) -> None:
        """A warp has found a phase complete."""
        told = self.phases(address, warp).told(self._cluster.mbarrier(address).phase)
        warp.timeline.acquire(told, relaxed=not acquires)

    def arrive(self, timeline: Timeline, releases: bool) -> None:
        """barrier.cluster.arrive, relaxed or not."""
        self._executing.join(timeline.clock)
        timeline.release(self._arriving, relaxed=not releases)

    def complete(self) -> None:
        """All threads of the cluster have arrived."""
        self._arriving, self._complete = Clock(), self._arriving
        self._executing, self._executed = Clock(), self._executing

    def leave(self, timeline: Timeline) -> None:
        """barrier.cluster.wait is over."""
        timeline.clock.join(self._complete)
        timeline.executed.join(self._executed)


class CtaOrder:
    """The accesses to one CTA's shared memory, and its barriers.

    Attributes:
        phases: by offset, what waiting on the mbarriers tells.
    """

    def __init__(self, cta: Cta) -> None:
        """Starts with nothing done."""
        self.phases: dict[int, PhaseClocks] = {}
        self._cta = cta
        self._races = Races(cta.shared.size, cta.shared.base, cta.cluster.order.ledger)
        self._meetings: dict[int, Meeting] = {}
        # By agent, the last operation that needs this shared memory to be there, and its rule.
        self._must_end: dict[int, tuple[str, Operation]] = {}

    def read(self, warp: Warp, lanes: Offsets, offsets: Offsets, strong: bool = False) -> None:
        """Each of a warp's lanes reads a row of offsets. Raises as Races.read."""
        index = self._cta.shared.index(offsets)
        self._races.read(index, _by_threads(warp, strong), warp.timeline.clock, lanes)
        self._reached_by(warp)

    def write(
        self, warp: Warp, lanes: Offsets, offsets: Offsets, values: Bytes, strong: bool = False
    ) -> None:
        """Each of a warp's lanes writes a row of offsets. Raises as Races.write."""
        shared = self._cta.shared
        index, threads = shared.index(offsets), warp.agent * LANES + lanes
        operations, clock = [_by_threads(warp, strong)], warp.timeline.clock
        self._races.write(index, operations, clock, threads, lambda: shared.holds(offsets, values))
        self._reached_by(warp)

    def learn(
        self, warp: Warp, space: str, addresses: NDArray[np.uint64], strength: Strength
    ) -> None:
        """A strong load, or an atomic, has accessed addresses."""
        for clock in self._told_at(space, addresses):
            warp.timeline.acquire(clock, relaxed=not strength.acquires)

    def tell(
        self, warp: Warp, space: str, addresses: NDArray[np.uint64], strength: Strength
    ) -> None:
        """A strong store, or an atomic, has accessed addresses."""
        for clock in self._told_at(space, addresses):
            warp.timeline.release(clock, relaxed=not strength.releases)

    def _told_at(self, space: str, addresses: NDArray[np.uint64]) -> list[Clock]:
        cta, told = self._cta.index if space == "shared" else None, self._cta.cluster.order.strong
        return [told.setdefault((cta, int(at)), Clock()) for at in np.unique(addresses)]

    def multiply(self, warp: Warp, *tiles: Offsets) -> None:
        """A wgmma of the warp is issued that reads tiles. Raises as Races.read."""
        products = warp.timeline.wgmma
        access = self._cta.cluster.access()
        operation = Operation(Kind.WGMMA, products.agent, products.time, access)
        for tile in tiles:
            self._races.read(self._cta.shared.index(tile), operation, warp.timeline.clock)

    def fetch(self, warp: Warp, operation: Operation, tile: Offsets) -> None:
        """A tcgen05 operation is issued, by any CTA's warp, that reads a tile. As Races.read."""
        self._races.read(self._cta.shared.index(tile), operation, warp.timeline.clock)

    def store(self, warp: Warp, lane: int, offsets: Offsets) -> None:
        """A lane's TMA store is issued that reads a box. Raises as Races.read."""
        operation = self.storing(warp, lane)
        self._races.read(self._cta.shared.index(offsets), operation, warp.timeline.clock)

    def storing(self, warp: Warp, lane: int) -> Operation:
        """The TMA store or bulk copy to global memory that a lane issues now."""
        stores = warp.timeline.stream("store", lane)
        return Operation(Kind.STORE, stores.agent, stores.time, self._cta.cluster.access())

    def copy(self, warp: Warp, lanes: Offsets, offsets: Offsets) -> None:
        """A cp.async is issued: each lane writes a row of offsets. Raises as Races.write."""
        streams = [warp.timeline.stream("cp.async", int(lane)) for lane in lanes]
        access = self._cta.cluster.access()
        operations = [Operation(Kind.COPY, copy.agent, copy.time, access) for copy in streams]
        index, threads = self._cta.shared.index(offsets), warp.agent * LANES + lanes
        self._races.write(index, operations, warp.timeline.clock, threads)

    def load(
        self,
        warp: Warp,
        offsets: Offsets,
        barrier: int,
        kind: Kind = Kind.LOAD,
        signals: Cta | None = None,
    ) -> Operation:
        """A copy is issued, by any CTA's warp, that completes on an mbarrier.

        Args:
            warp: that issues it.
            offsets: of the bytes, in this CTA.
            barrier: offset of the mbarrier.
            kind: of the copy.
            signals: the CTA of the mbarrier; by default this one.

        Raises:
            HazardError: as Races.write.
        """
        operation = (self if signals is None else signals.order)._completing(kind, barrier)
        self._races.write(self._cta.shared.index(offsets), [operation], warp.timeline.clock)
        self.must_end("R11" if warp.cta is self._cta else "R12", operation)
        return operation

    def send(self, warp: Warp, offsets: Offsets, cta: Cta, barrier: int) -> None:
        """A bulk copy is issued that reads bytes, and completes on an mbarrier of another CTA.

        Raises:
            HazardError: as Races.read.
        """
        operation = cta.order._completing(Kind.SEND, barrier)
        self._races.read(self._cta.shared.index(offsets), operation, warp.timeline.clock)
        self.must_end("R12", operation)

    def _completing(self, kind: Kind, barrier: int) -> Operation:
        time, agent = self._cta.shared.barrier(barrier).phase + 1, self.phases[barrier].agent
        return Operation(kind, agent, time, self._cta.cluster.access())

    def fence(self, warp: Warp, mask: NDArray[np.bool_]) -> None:
        """fence.proxy.async."""
        threads = warp.agent * LANES + np.flatnonzero(mask)
        self._races.fence(threads, operation_of(warp), warp.timeline.clock)

    def imply_read_fences(self, offsets: Offsets) -> None:
        """As Races.imply_read_fences."""
        self._races.imply_read_fences(self._cta.shared.index(offsets))

    def init_barrier(self, offset: int, warp: Warp, lane: int) -> None:
        """mbarrier.init."""
        self._write_barrier(offset, warp)
        initialiser = warp.timeline.agent, warp.timeline.time, lane
        self.phases[offset] = PhaseClocks(next(self._cta.cluster.order.agents), initialiser)

    def fence_barriers(self, warp: Warp, mask: NDArray[np.bool_]) -> None:
        """fence.mbarrier_init."""
        time = warp.timeline.fence_inits()
        for phases in self.phases.values():
            agent, _, lane = phases.initialiser
            if agent == warp.timeline.agent and mask[lane] and phases.fenced is None:
                phases.fenced = warp.timeline.inits, time

    def end_barrier(self, offset: int, warp: Warp) -> None:
        """mbarrier.inval."""
        del self.phases[offset]
        self._write_barrier(offset, warp)

    def _write_barrier(self, offset: int, warp: Warp) -> None:
        # Not as a write of threads: the async proxy sees mbarriers without a fence.
        index = self._cta.shared.index(offset + np.arange(BARRIER_BYTES))
        self._races.write(index, [operation_of(warp)], warp.timeline.clock)

    def meet(self, barrier_id: int, warp: Warp, waits: bool, is_last: bool) -> None:
        """bar.sync, or bar.arrive, which does not wait for the others."""
        meeting = self._meetings.setdefault(barrier_id, Meeting())
        meeting.arrive(warp.timeline, waits)
        if is_last:
            meeting.complete()

    def _reached_by(self, warp: Warp) -> None:
        if warp.cta is not self._cta:
            self.must_end("R12", operation_of(warp))

    def must_end(self, rule: str, operation: Operation) -> None:
        """The CTA may not leave before the operation has ended."""
        self._must_end[operation.agent] = rule, operation

    def check_exit(self) -> None:
        """Checks that nothing may still reach into the shared memory.

        Raises:
            HazardError: R12, a peer's access or multicast, or R11, an own load, is not ordered
                before the end of any of the warps.
        """
        for rule, (_, agent, time, access) in self._must_end.values():
            timelines = [warp.timeline for warp in self._cta.warps]
            if all(max(t.clock[agent], t.executed[agent]) < time for t in timelines):
                text = f"CTA {self._cta.index} may leave before this is over"
                warps = (warp for cta in self._cta.cluster.ctas for warp in cta.warps)
                warp = next(warp for warp in warps if warp.agent == access.agent)
                raise warp.located(HazardError(rule, text), access.pc)


def _by_threads(warp: Warp, strong: bool) -> Operation:
    return operation_of(warp, Kind.STRONG if strong else Kind.THREAD)


def operation_of(warp: Warp, kind: Kind = Kind.THREAD) -> Operation:
    """What a warp's threads do themselves at the instruction that is executed."""
    timeline = warp.timeline
    return Operation(kind, timeline.agent, timeline.time, warp.cta.cluster.access())
