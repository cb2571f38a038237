"""Grid and clusters: who runs, what they share, and when nobody can go on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.asynchrony import Action, Engine, Timing
from deep_gemm.emulator.cta import PARAMETER_BASE, Cta
from deep_gemm.emulator.errors import Access, EmulationError, HazardError
from deep_gemm.emulator.global_memory import Bytes, Flags, GlobalMemory
from deep_gemm.emulator.map_bytes import MAP_ALIGNMENT, MAP_BYTES, decode, is_map
from deep_gemm.emulator.map_order import MapOrder
from deep_gemm.emulator.mbarrier import NO_AGENT, Mbarrier
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT, Proxy, compose_shared
from deep_gemm.emulator.ordering import ClusterOrder
from deep_gemm.emulator.program import Program
from deep_gemm.emulator.races import Kind
from deep_gemm.emulator.spaces import SHARED_WINDOW, is_within
from deep_gemm.emulator.tensor_order import TensorOrder
from deep_gemm.emulator.tma import TensorMap, load_box, swizzled_offsets
from deep_gemm.emulator.warp import Group, Warp

MAX_IDLE_ROUNDS = 1000
"""How often all warps may poll in vain before that is a deadlock."""


@dataclass(frozen=True)
class Launch:
    """What a kernel is launched with.

    Attributes:
        program: the kernel.
        grid: number of CTAs.
        cluster_size: CTAs of a cluster.
        num_threads: of a CTA.
        smem_bytes: dynamic shared memory of a CTA.
        parameters: the parameter space.
        memory: global memory.
        timing: when asynchronous operations happen.
        seed: of random timing.
        pdl: it may start while the grid before is still at work.
        implies_tensor_fences: tcgen05.fence is not asked for, nor fence.proxy.async between the
            address that tcgen05.alloc writes, or its readers, and a copy over it: Triton leaves
            them out.
        unreleased: lines of global memory that clusters which have left wrote and did not release.
    """

    program: Program
    grid: int
    cluster_size: int
    num_threads: int
    smem_bytes: int
    parameters: bytes
    memory: GlobalMemory
    timing: Timing = Timing.EARLY
    seed: int = 0
    pdl: bool = False
    implies_tensor_fences: bool = False
    unreleased: dict[int, Access] = field(default_factory=dict)

    def run(self) -> int:
        """Executes the grid, cluster by cluster; returns the number of warp instructions.

        Raises:
            EmulationError: the program breaks a rule, or nothing in it can go on.
        """
        num_steps = 0
        for first in range(0, self.grid, self.cluster_size):
            cluster = Cluster(self, first)
            cluster.run()
            num_steps += sum(warp.num_steps for cta in cluster.ctas for warp in cta.warps)
        return num_steps

    def map_at(self, address: int) -> TensorMap:
        """The tensor map at a generic address, in the parameters or in global memory.

        Raises:
            HazardError: as map_bytes_at; R14, the hardware refuses the map.
        """
        return decode(self.map_bytes_at(address))

    def map_bytes_at(self, address: int) -> bytes:
        """The bytes of the tensor map at a generic address, legal or not.

        Raises:
            HazardError: R18, there is none; "bounds".
        """
        if address % MAP_ALIGNMENT:
            raise HazardError("R18", f"a tensor map at {address:#x}, not {MAP_ALIGNMENT}-aligned")
        if is_within(address, SHARED_WINDOW):
            text = f"a tensor map in shared memory, at {address:#x}: TMA cannot use it there"
            raise HazardError("R18", text)
        if is_within(address, PARAMETER_BASE):
            offset = address - PARAMETER_BASE
            data = self.parameters[offset : offset + MAP_BYTES]
        else:
            data = self.memory.read_bytes(address, MAP_BYTES).tobytes()
        if not is_map(data):
            text = f"no tensor map at {address:#x}: the bytes are {data[:16].hex()}..."
            raise HazardError("R18", text)
        return data


class Cluster:
    """CTAs that run together and see each other's shared memory."""

    def __init__(self, launch: Launch, first_cta: int) -> None:
        """Makes the CTAs of one cluster."""
        self.launch = launch
        self.engine = Engine(launch.timing, launch.seed + first_cta)
        self.round = 0
        self._arrived = 0
        self.order = ClusterOrder(self)
        self.maps = MapOrder(self)
        self.executing: tuple[Warp, Group] | None = None
        self.ctas = [Cta(self, first_cta + rank, rank) for rank in range(launch.cluster_size)]

    @functools.cached_property
    def tensor_order(self) -> TensorOrder:
        """What orders accesses to tensor memory."""
        return TensorOrder(self)

    def run(self) -> None:
        """Runs all warps until they have left.

        Raises:
            HazardError: a deadlock, or something is in flight at the end.
        """
        warps = [warp for cta in self.ctas for warp in cta.warps]
        idle = 0
        while any(not warp.has_exited for warp in warps):
            if self._give_turns() or self.engine.advance():
                idle = 0
                continue
            idle += 1
            if idle > MAX_IDLE_ROUNDS or not any(warp.spins for warp in warps):
                raise HazardError("R11", self._deadlock(warps))
        while self.engine.advance():
            pass
        for cta in self.ctas:
            cta.check_exit()
        self.maps.close()

    def _give_turns(self) -> bool:
        """Lets every warp run; a CTA may run for long before its peers do. False if none can."""
        progress = False
        for cta in self.engine.order(self.ctas):
            while self._give_turn(cta):
                progress = True
                if not self.engine.is_lazy():
                    break
        return progress

    def _give_turn(self, cta: Cta) -> bool:
        progress = False
        for warp in self.engine.order(cta.warps):
            if not warp.has_exited:
                progress |= warp.run()
                progress |= self.engine.shuffle()
        return progress

    def access(self) -> Access:
        """The instruction that is executed, or was last."""
        if self.executing is None:
            return Access(NO_AGENT, -1)
        warp, group = self.executing
        return Access(warp.agent, group.pc)

    def submit(self, stream: Hashable, action: Action) -> None:
        """Puts an operation of the instruction that is executed in flight."""
        self.engine.submit(stream, self.located(action))

    def located(self, action: Action) -> Action:
        """The action, for later: an error in it names the instruction that is executed now."""
        if self.executing is None:
            return action
        warp, group = self.executing
        pc = group.pc

        def perform() -> None:
            try:
                action()
            except EmulationError as error:
                raise warp.located(error, pc) from None

        return perform

    def mbarrier(self, address: int) -> Mbarrier:
        """The barrier at a shared::cluster address."""
        rank, offset = address >> RANK_SHIFT, address & OFFSET_MASK
        if rank >= len(self.ctas):
            raise HazardError("R13", f"address {address:#x} is in CTA {rank} of {len(self.ctas)}")
        return self._living(rank).shared.barrier(offset)

    def arrive(self, num_threads: int) -> int:
        """Arrives on the cluster barrier; returns the round that was arrived in."""
        round_ = self.round
        self._arrived += num_threads
        if self._arrived == self.launch.num_threads * len(self.ctas):
            self._arrived = 0
            self.round += 1
            self.order.complete()
        return round_

    def use_map(self, address: int, warp: Warp) -> TensorMap:
        """The tensor map at an address, which a warp gives to TMA for a copy.

        Raises:
            HazardError: as Launch.map_at; R27; R31, it may not be used yet.
        """
        self.order.touch_global(warp)
        return self._map_at(address, warp)

    def hint_map(self, address: int, warp: Warp) -> None:
        """A warp gives the tensor map at an address to TMA for a prefetch. Elements that the grid
        before still writes do no harm; the map itself must not be one that it may have made.

        Raises:
            HazardError: as `use_map`.
        """
        if not is_within(address, PARAMETER_BASE):
            self.order.touch_global(warp)
        self._map_at(address, warp)

    def _map_at(self, address: int, warp: Warp) -> TensorMap:
        tensor_map = self.launch.map_at(address)
        self.maps.check(warp, address)
        return tensor_map

    def load_box(
        self,
        map_address: int,
        coordinates: Sequence[int],
        destination: int,
        barrier: int,
        ranks: Sequence[int],
        warp: Warp,
        parity: int | None = None,
    ) -> None:
        """Starts a TMA load into the same offset of each CTA of `ranks`.

        Args:
            map_address: of the tensor map.
            coordinates: of the box.
            destination: its offset in shared memory.
            barrier: offset of the mbarrier.
            ranks: of the CTAs.
            warp: that issues it.
            parity: of the CTA in each one's pair whose mbarrier is told; None for its own.
        """
        tensor_map = self.use_map(map_address, warp)
        if any(rank >= len(self.ctas) for rank in ranks):
            raise HazardError("R13", f"multicast to ranks {list(ranks)} of {len(self.ctas)}")
        offsets = swizzled_offsets(tensor_map, destination)
        for rank in ranks:
            cta = self._living(rank)
            told = cta if parity is None else self.cta_of_rank(rank & ~1 | parity)
            self.order.phases(compose_shared(told.rank, barrier), warp)
            operation = cta.order.load(warp, offsets, barrier, signals=told)
            self.maps.use(map_address, operation)
            cta.begin_fill(offsets, warp.agent, "async")
            issue_phase = told.shared.barrier(barrier).phase

            def deliver(cta: Cta = cta, told: Cta = told, issue_phase: int = issue_phase) -> None:
                box = load_box(tensor_map, self.launch.memory, coordinates)
                self._living(cta.rank).shared.land(offsets, box, warp.agent, "async")
                told.shared.barrier(barrier).complete_tx(box.size, warp.agent, issue_phase)

            self.submit(("tma", object()), deliver)

    def fill(
        self,
        rank: int,
        offsets: NDArray[np.int64],
        barrier: int,
        read: Callable[[], tuple[Bytes, Flags | None]],
        warp: Warp,
        kind: Kind = Kind.LOAD,
    ) -> None:
        """Starts a copy into the shared memory of one CTA.

        Args:
            rank: of the CTA.
            offsets: of the bytes.
            barrier: offset of the mbarrier that counts them.
            read: gives the bytes when the copy happens, and which are defined, None for all.
            warp: that issues it.
            kind: LOAD or REMOTE_STORE.
        """
        proxy: Proxy = "async" if kind is Kind.LOAD else "generic"
        cta = self.cta_of_rank(rank)
        self.order.phases(compose_shared(rank, barrier), warp)
        cta.order.load(warp, offsets, barrier, kind)
        cta.begin_fill(offsets, warp.agent, proxy)
        issue_phase = cta.shared.barrier(barrier).phase

        def deliver() -> None:
            data, defined = read()
            self._living(rank).shared.land(offsets, data, warp.agent, proxy, defined)
            cta.shared.barrier(barrier).complete_tx(data.size, warp.agent, issue_phase)

        self.submit(("bulk", object()), deliver)

    def cta_of_rank(self, rank: int) -> Cta:
        """The CTA of a rank, whose shared memory is about to be accessed.

        Raises:
            HazardError: R13, there is none; R12, it has left.
        """
        if rank >= len(self.ctas):
            raise HazardError("R13", f"access to CTA {rank} of a cluster of {len(self.ctas)}")
        return self._living(rank)

    def _living(self, rank: int) -> Cta:
        """A CTA whose shared memory is about to be accessed."""
        cta = self.ctas[rank]
        if cta.has_exited:
            raise HazardError("R12", f"access to the shared memory of CTA {cta.index}, which left")
        return cta

    def _deadlock(self, warps: Sequence[Warp]) -> str:
        blocked = [
            f"  CTA {warp.cta.index} warp {warp.index}: {wait}"
            for warp in warps
            for wait in warp.waits()
        ]
        barriers = [
            f"  CTA {cta.index} mbarrier {offset:#x}: {barrier}"
            for cta in self.ctas
            for offset, barrier in cta.shared.barriers.items()
        ]
        return "deadlock: nobody can go on\n" + "\n".join(blocked + barriers)
