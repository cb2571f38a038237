"""One CTA: its shared memory, its named barriers and its warps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.memory import OFFSET_MASK, Proxy, SharedMemory
from deep_gemm.emulator.tma import store_box, swizzled_offsets
from deep_gemm.emulator.warp import LANES, Mask, Warp

if TYPE_CHECKING:
    from deep_gemm.emulator.grid import Cluster

SHARED_BASE = 1024
"""Offset of dynamic shared memory: the first kilobyte is the system's."""

PARAMETER_BASE = 0x7000_0000_0000
"""Generic address of the kernel's parameters."""


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
        # By the rule that overwriting them breaks: operands of wgmma, sources of TMA stores.
        self._readers = {
            rule: np.zeros(SHARED_BASE + launch.smem_bytes, dtype=np.int16) for rule in ("R3", "R4")
        }
        num_warps = -(-launch.num_threads // LANES)
        self.warps = [
            Warp(launch.program, self, warp, launch.num_threads) for warp in range(num_warps)
        ]

    @property
    def has_exited(self) -> bool:
        """Whether no warp is left, so that the shared memory is no longer there."""
        return all(warp.has_exited for warp in self.warps)

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

    def begin_read(self, rule: str, *tiles: NDArray[np.int64]) -> Callable[[], None]:
        """Marks bytes as being read by an asynchronous operation; call the result at its end.

        Args:
            rule: that overwriting the bytes breaks.
            tiles: offsets of bytes.
        """
        readers = self._readers[rule]
        for tile in tiles:
            readers[tile] += 1

        def release() -> None:
            for tile in tiles:
                readers[tile] -= 1

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
        release = self.begin_read("R4", offsets)
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
        for rule, readers in self._readers.items():
            is_read = readers[offsets].reshape(-1) > 0
            if is_read.any():
                first = int(offsets.reshape(-1)[np.argmax(is_read)])
                reader = "a wgmma" if rule == "R3" else "a TMA store"
                raise HazardError(
                    rule, f"shared memory at {first:#x} overwritten while {reader} reads it"
                )

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
        return self._named.get(barrier_id, (0, 0))[1]

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
