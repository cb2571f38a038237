"""Grid, clusters and CTAs: who runs, what they share, and when nobody can go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.asynchrony import Engine, Timing
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.global_memory import GlobalMemory
from deep_gemm.emulator.mbarrier import Mbarrier
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT, Proxy, SharedMemory
from deep_gemm.emulator.program import Program
from deep_gemm.emulator.tma import TensorMap, load_box, store_box, swizzled_offsets
from deep_gemm.emulator.warp import LANES, Mask, Warp

SHARED_BASE = 1024
"""Offset of dynamic shared memory: the first kilobyte is the system's."""

PARAMETER_BASE = 0x7000_0000_0000
"""Generic address of the kernel's parameters."""


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
        maps: tensor maps by their offset in the parameters.
        memory: global memory.
        timing: when asynchronous operations happen.
        seed: of random timing.
    """

    program: Program
    grid: int
    cluster_size: int
    num_threads: int
    smem_bytes: int
    parameters: bytes
    maps: Mapping[int, TensorMap]
    memory: GlobalMemory
    timing: Timing = Timing.EARLY
    seed: int = 0

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
        """The tensor map at a generic address."""
        offset = address - PARAMETER_BASE
        if offset not in self.maps:
            raise HazardError("R18", f"no tensor map at address {address:#x}")
        return self.maps[offset]


class Cluster:
    """CTAs that run together and see each other's shared memory."""

    def __init__(self, launch: Launch, first_cta: int) -> None:
        """Makes the CTAs of one cluster."""
        self.launch = launch
        self.engine = Engine(launch.timing, launch.seed + first_cta)
        self.round = 0
        self._arrived = 0
        self.ctas = [Cta(self, first_cta + rank, rank) for rank in range(launch.cluster_size)]

    def run(self) -> None:
        """Runs all warps until they have left.

        Raises:
            HazardError: a deadlock, or something is in flight at the end.
        """
        warps = [warp for cta in self.ctas for warp in cta.warps]
        while any(not warp.has_exited for warp in warps):
            progress = False
            for warp in warps:
                if not warp.has_exited:
                    progress |= warp.run()
                    progress |= self.engine.shuffle()
            if not progress and not self.engine.advance():
                raise HazardError("R11", self._deadlock(warps))
        while self.engine.advance():
            pass
        for cta in self.ctas:
            cta.check_exit()

    def mbarrier(self, address: int) -> Mbarrier:
        """The barrier at a shared::cluster address."""
        rank, offset = address >> RANK_SHIFT, address & OFFSET_MASK
        if rank >= len(self.ctas):
            raise HazardError("R13", f"address {address:#x} is in CTA {rank} of {len(self.ctas)}")
        return self.ctas[rank].shared.barrier(offset)

    def arrive(self, num_threads: int) -> int:
        """Arrives on the cluster barrier; returns the round that was arrived in."""
        round_ = self.round
        self._arrived += num_threads
        if self._arrived == self.launch.num_threads * len(self.ctas):
            self._arrived = 0
            self.round += 1
        return round_

    def load_box(
        self,
        map_address: int,
        coordinates: Sequence[int],
        destination: int,
        barrier: int,
        ranks: Sequence[int],
        agent: int,
    ) -> None:
        """Starts a TMA load into the same offset of each CTA of `ranks`."""
        tensor_map = self.launch.map_at(map_address)
        if any(rank >= len(self.ctas) for rank in ranks):
            raise HazardError("R13", f"multicast to ranks {list(ranks)} of {len(self.ctas)}")
        offsets = swizzled_offsets(tensor_map, destination)
        for rank in ranks:
            cta = self.ctas[rank]
            cta.begin_fill(offsets, agent, "async")
            issue_phase = cta.shared.barrier(barrier).phase

            def deliver(cta: Cta = cta, issue_phase: int = issue_phase) -> None:
                box = load_box(tensor_map, self.launch.memory, coordinates)
                cta.shared.land(offsets, box, agent, "async")
                cta.shared.barrier(barrier).complete_tx(box.size, agent, issue_phase)

            self.engine.submit(("tma", object()), deliver)

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


class Cta:
    """One CTA: its shared memory, its barriers and its warps."""

    def __init__(self, cluster: Cluster, index: int, rank: int) -> None:
        """Makes the CTA and its warps."""
        launch = cluster.launch
        self.cluster = cluster
        self.grid = launch
        self.index = index
        self.rank = rank
        self.num_threads = launch.num_threads
        self.shared = SharedMemory(launch.smem_bytes, SHARED_BASE)
        self._named: dict[int, tuple[int, int]] = {}
        self._readers = np.zeros(SHARED_BASE + launch.smem_bytes, dtype=np.int16)
        num_warps = -(-launch.num_threads // LANES)
        self.warps = [
            Warp(launch.program, self, warp, launch.num_threads) for warp in range(num_warps)
        ]

    def special_registers(self, thread: NDArray[np.uint32]) -> dict[str, NDArray[np.uint32]]:
        """Special registers of 32 lanes, by name."""
        values: dict[str, Any] = {
            "tid.x": thread,
            "laneid": np.arange(LANES),
            "warpid": thread // LANES,
            "ntid.x": self.num_threads,
            "ctaid.x": self.index,
            "nctaid.x": self.grid.grid,
            "cluster_ctarank": self.rank,
            "cluster_nctarank": self.grid.cluster_size,
            **dict.fromkeys(("tid.y", "tid.z", "ctaid.y", "ctaid.z"), 0),
            **dict.fromkeys(("ntid.y", "ntid.z", "nctaid.y", "nctaid.z"), 1),
        }
        return {
            name: np.broadcast_to(np.asarray(value, dtype=np.uint32), (LANES,)).copy()
            for name, value in values.items()
        }

    # Memory

    def load(
        self, space: str, addresses: NDArray[np.uint64], size: int, mask: Mask
    ) -> NDArray[np.uint8]:
        """Reads `size` bytes per lane, zeros for lanes outside the mask: [32, size]."""
        result = np.zeros((LANES, size), dtype=np.uint8)
        lanes = np.flatnonzero(mask)
        if space == "param":
            data = np.frombuffer(self.grid.parameters, dtype=np.uint8)
            at = (addresses[lanes] - np.uint64(PARAMETER_BASE)).astype(np.int64)
            result[lanes] = data[at[:, None] + np.arange(size)]
        elif space.startswith("shared"):
            at = (addresses[lanes] & np.uint64(OFFSET_MASK)).astype(np.int64)
            result[lanes] = self.shared.read(at, size)[0]
        elif space == "global":
            result[lanes] = self.grid.memory.read(addresses[lanes], size)
        else:
            raise HazardError("R0", f"ld.{space} is not known")
        return result

    def store(
        self,
        space: str,
        addresses: NDArray[np.uint64],
        data: NDArray[np.uint8],
        mask: Mask,
        warp: Warp,
    ) -> None:
        """Writes each lane's bytes, [32, size]."""
        lanes = np.flatnonzero(mask)
        if space.startswith("shared"):
            at = (addresses[lanes] & np.uint64(OFFSET_MASK)).astype(np.int64)
            self._check_not_read(at[:, None] + np.arange(data.shape[1]))
            self.shared.write(at, data[lanes], agent=warp.agent, proxy="generic")
        elif space == "global":
            self.grid.memory.write(addresses[lanes], data[lanes])
        else:
            raise HazardError("R0", f"st.{space} is not known")

    def tile(self, offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Bytes that an asynchronous operation reads, at each offset.

        Raises:
            HazardError: written by a thread without fence.proxy.async since.
        """
        return self.shared.read_async(offsets)

    def begin_read(self, *tiles: NDArray[np.int64]) -> Callable[[], None]:
        """Marks bytes as being read by an asynchronous operation; call the result at its end."""
        for tile in tiles:
            np.add.at(self._readers, tile.reshape(-1), 1)

        def release() -> None:
            for tile in tiles:
                np.subtract.at(self._readers, tile.reshape(-1), 1)

        return release

    def begin_fill(self, offsets: NDArray[np.int64], agent: int, proxy: Proxy) -> None:
        """Marks bytes as being written by an asynchronous copy."""
        self._check_not_read(offsets)
        self.shared.poison(offsets, agent, proxy)

    def store_box(
        self, map_address: int, coordinates: Sequence[int], source: int
    ) -> Callable[[], None]:
        """Starts a TMA store; the result performs it, at the latest when a thread waits."""
        tensor_map = self.grid.map_at(map_address)
        offsets = swizzled_offsets(tensor_map, source)
        release = self.begin_read(offsets)
        is_done = False

        def perform() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                defined = self.shared.is_defined(offsets)
                values = self.tile(offsets)
                store_box(tensor_map, self.grid.memory, coordinates, values, defined)
                release()

        if not self.cluster.engine.is_lazy():
            perform()
        return perform

    def fence_proxy(self, warp: Warp, mask: Mask) -> None:
        """Makes the warp's generic writes visible to asynchronous operations."""
        self.shared.fence(warp.agent)

    def _check_not_read(self, offsets: NDArray[np.int64]) -> None:
        if self._readers[offsets].any():
            first = int(offsets.reshape(-1)[np.argmax(self._readers[offsets].reshape(-1) > 0)])
            raise HazardError("R3", f"shared memory at {first:#x} overwritten while it is read")

    # Barriers

    def arrive_named(self, barrier_id: int, count: int, num_threads: int) -> int:
        """bar.sync: counts the arrival; returns the round that was arrived in."""
        if barrier_id > 15 or count % LANES:
            raise HazardError("R28", f"bar.sync {barrier_id}, {count}")
        arrived, round_ = self._named.get(barrier_id, (0, 0))
        arrived += num_threads
        if arrived > count:
            raise HazardError(
                "R28", f"{arrived} threads arrived on barrier {barrier_id} of {count}"
            )
        self._named[barrier_id] = (0, round_ + 1) if arrived == count else (arrived, round_)
        return round_

    def named_round(self, barrier_id: int) -> int:
        """How often the barrier has completed."""
        return self._named[barrier_id][1]

    def check_exit(self) -> None:
        """Checks that nothing is left in flight.

        Raises:
            HazardError: stores that nobody waited for, or a barrier that was left in between.
        """
        for warp in self.warps:
            if any(warp.stores.values()) or any(warp.store_groups.values()):
                raise HazardError("R4", f"warp {warp.index} left without waiting for its stores")
            if warp.wgmma.in_flight():
                raise HazardError("R7", f"warp {warp.index} left with wgmma in flight")
        for barrier_id, (arrived, _) in self._named.items():
            if arrived:
                raise HazardError("R28", f"{arrived} threads still wait on barrier {barrier_id}")
