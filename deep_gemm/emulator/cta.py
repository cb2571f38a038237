"""One CTA: its shared memory, its named barriers and its warps."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.memory import OFFSET_MASK, Proxy, SharedMemory
from deep_gemm.emulator.ordering import CtaOrder, operation_of
from deep_gemm.emulator.spaces import PARAMETER_WINDOW
from deep_gemm.emulator.strong import Strength
from deep_gemm.emulator.tensor_memory import TensorMemory
from deep_gemm.emulator.tensor_order import TensorRaces
from deep_gemm.emulator.tma import store_box, swizzled_offsets
from deep_gemm.emulator.warp import LANES, Mask, Warp

if TYPE_CHECKING:
    from deep_gemm.emulator.grid import Cluster

SHARED_BASE = 1024
"""Offset of the program's shared memory: the first kilobyte is the system's."""

PARAMETER_BASE = PARAMETER_WINDOW
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
        smem_bytes = launch.program.static_smem_bytes + launch.smem_bytes
        self.shared = SharedMemory(smem_bytes, SHARED_BASE, lambda: cluster.access().pc)
        self.order = CtaOrder(self)
        self._named: dict[int, tuple[int, int]] = {}
        # Predicates given to bar.red, by barrier and round.
        self.votes: dict[tuple[int, int], list[NDArray[np.bool_]]] = {}
        # By the rule that overwriting them breaks: operands of wgmma, sources of TMA stores.
        self._readers = {
            rule: np.zeros(SHARED_BASE + smem_bytes, dtype=np.int16) for rule in ("R3", "R4")
        }
        self._read_keys = itertools.count()
        self._reads: dict[int, tuple[str, Sequence[NDArray[np.int64]], Access, str]] = {}
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
        self,
        space: str,
        addresses: NDArray[np.uint64],
        size: int,
        mask: Mask,
        warp: Warp,
        strong: Strength | None = None,
    ) -> tuple[NDArray[np.uint8], Mask]:
        """Reads `size` bytes per lane, zeros for lanes outside the mask.

        Args:
            space: "param", "shared" or "global".
            addresses: [32], in the space.
            size: in bytes.
            mask: lanes of `warp` that read.
            warp: of any CTA of the cluster.
            strong: its strength, unless it is weak.

        Returns:
            [32, size], and which of the bytes are undefined.
        """
        result = np.zeros((LANES, size), dtype=np.uint8)
        undefined = np.zeros((LANES, size), dtype=np.bool_)
        lanes = np.flatnonzero(mask)
        if space == "param":
            data = np.frombuffer(self.grid.parameters, dtype=np.uint8)
            at = (addresses[lanes] & np.uint64(0xFFFF_FFFF)).astype(np.int64)
            result[lanes] = data[at[:, None] + np.arange(size)]
        elif space.startswith("shared"):
            at = (addresses[lanes] & np.uint64(OFFSET_MASK)).astype(np.int64)
            self.order.read(warp, lanes, at[:, None] + np.arange(size), strong is not None)
            result[lanes], defined = self.shared.read(at, size)
            undefined[lanes] = ~defined
        elif space == "global":
            self.cluster.order.touch_global(warp)
            result[lanes] = self.grid.memory.read(addresses[lanes], size)
        else:
            raise HazardError("R0", f"ld.{space} is not known")
        if strong is not None:
            self.order.learn(warp, space, addresses[lanes], strong)
        return result, undefined

    def store(
        self,
        space: str,
        addresses: NDArray[np.uint64],
        data: NDArray[np.uint8],
        mask: Mask,
        warp: Warp,
        defined: Mask | None = None,
        strong: Strength | None = None,
    ) -> None:
        """Writes each lane's bytes, [32, size].

        Args:
            space: "shared" or "global".
            addresses: [32], in the space.
            data: [32, size].
            mask: lanes that write.
            warp: theirs.
            defined: [32, size], which bytes are, in shared memory; by default all.
            strong: its strength, unless it is weak.
        """
        lanes = np.flatnonzero(mask)
        if space.startswith("shared"):
            at = (addresses[lanes] & np.uint64(OFFSET_MASK)).astype(np.int64)
            offsets = at[:, None] + np.arange(data.shape[1])
            self.order.write(warp, lanes, offsets, data[lanes], strong is not None)
            self._check_not_read(offsets)
            kept = None if defined is None else defined[lanes]
            self.shared.write(at, data[lanes], warp.agent, "generic", kept)
        elif space == "global":
            written = addresses[lanes]
            self.cluster.order.touch_global(warp)
            self.cluster.maps.write(warp, written, data.shape[1], operation_of(warp))
            self.grid.memory.write(written, data[lanes])
        else:
            raise HazardError("R0", f"st.{space} is not known")
        if strong is not None:
            self.order.tell(warp, space, addresses[lanes], strong)

    def tile(self, offsets: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Bytes that an asynchronous operation reads, at each offset.

        Raises:
            HazardError: written by a thread without fence.proxy.async since.
        """
        return self.shared.read_async(offsets)

    def undefined_rows(self, offsets: NDArray[np.int64]) -> Mask:
        """Which rows of a tile have a byte that is undefined."""
        undefined: Mask = np.logical_not(self.shared.is_defined(offsets).all(axis=1))
        return undefined

    @functools.cached_property
    def tensor(self) -> TensorMemory:
        """The CTA's tensor memory."""
        return TensorMemory()

    @functools.cached_property
    def tensor_races(self) -> TensorRaces:
        """The accesses to it."""
        return TensorRaces(self.cluster.order.ledger)

    def begin_read(
        self, rule: str, *tiles: NDArray[np.int64], reader: str = "a wgmma"
    ) -> Callable[[], None]:
        """Marks bytes as being read by an asynchronous operation; call the result at its end.

        Args:
            rule: that overwriting the bytes breaks.
            tiles: offsets of bytes.
            reader: the operation, for reports.
        """
        readers = self._readers[rule]
        for tile in tiles:
            readers[tile] += 1
        key = next(self._read_keys)
        self._reads[key] = rule, tiles, self.cluster.access(), reader

        def release() -> None:
            del self._reads[key]
            for tile in tiles:
                readers[tile] -= 1

        return release

    def begin_fill(self, offsets: NDArray[np.int64], agent: int, proxy: Proxy) -> None:
        """Marks bytes as being written by an asynchronous copy."""
        self._check_not_read(offsets)
        self.shared.poison(offsets, agent, proxy)

    def store_box(
        self, map_address: int, coordinates: Sequence[int], source: int, warp: Warp, lane: int
    ) -> Callable[[], None]:
        """Starts a TMA store; the result performs it, at the latest when a thread waits."""
        tensor_map = self.cluster.use_map(map_address, warp)
        self.cluster.maps.use(map_address, self.order.storing(warp, lane))
        memory = self.grid.memory
        return self.start_store(
            swizzled_offsets(tensor_map, source),
            lambda values, defined: store_box(tensor_map, memory, coordinates, values, defined),
            warp,
            lane,
        )

    def start_store(
        self,
        offsets: NDArray[np.int64],
        write: Callable[[NDArray[np.uint8], NDArray[np.bool_]], None],
        warp: Warp,
        lane: int,
    ) -> Callable[[], None]:
        """Starts an asynchronous copy out of shared memory; the result performs it.

        Args:
            offsets: of the bytes, in any shape.
            write: takes them, and which of them are defined.
            warp: that issues it.
            lane: that does.
        """
        self.order.store(warp, lane, offsets)
        release = self.begin_read("R4", offsets, reader="a TMA store")
        is_done = False

        def perform() -> None:
            nonlocal is_done
            if not is_done:
                is_done = True
                defined = self.shared.is_defined(offsets)
                write(self.tile(offsets), defined)
                release()

        store = self.cluster.located(perform)
        if not self.cluster.engine.is_lazy():
            store()
        return store

    def fence_proxy(self, warp: Warp, mask: Mask) -> None:
        """Makes the warp's generic writes visible to asynchronous operations."""
        self.shared.fence(warp.agent)
        self.order.fence(warp, mask)

    def _check_not_read(self, offsets: NDArray[np.int64]) -> None:
        for rule, readers in self._readers.items():
            is_read = readers[offsets].reshape(-1) > 0
            if is_read.any():
                first = int(offsets.reshape(-1)[np.argmax(is_read)])
                other, reader = next(
                    (access, reader)
                    for broken, tiles, access, reader in self._reads.values()
                    if broken == rule and any((tile == first).any() for tile in tiles)
                )
                raise HazardError(
                    rule, f"shared memory at {first:#x} overwritten while {reader} reads it", other
                )

    # Barriers

    def arrive_named(
        self, barrier_id: int, count: int, num_threads: int, warp: Warp, waits: bool
    ) -> int:
        """bar.sync and bar.arrive: count the arrival; returns the round that was arrived in."""
        if barrier_id > 15 or count % LANES:
            raise HazardError("R28", f"bar.sync {barrier_id}, {count}")
        arrived, round_ = self._named.get(barrier_id, (0, 0))
        arrived += num_threads
        if arrived > count:
            raise HazardError(
                "R28", f"{arrived} threads arrived on barrier {barrier_id} of {count}"
            )
        self._named[barrier_id] = (0, round_ + 1) if arrived == count else (arrived, round_)
        self.order.meet(barrier_id, warp, waits, is_last=arrived == count)
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
        if "tensor" in self.__dict__:
            self.tensor.check_exit()
        self.order.check_exit()
