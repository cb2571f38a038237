"""Shared memory of a CTA: bytes, and what is known about each of them.

Words are rows of bytes, little-endian: n words of `size` bytes are uint8 [n, size].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import Access, EmulationError, HazardError
from deep_gemm.emulator.global_memory import (
    Bytes,
    Flags,
    GlobalMemory,
    Integers,
    check_alignment,
)
from deep_gemm.emulator.mbarrier import NO_AGENT, Mbarrier

__all__ = ["GlobalMemory", "SharedMemory", "compose_shared", "mapa", "split_shared"]

Proxy = Literal["generic", "async"]
"""The path by which an access reaches memory."""

RANK_SHIFT = 24
"""Bit of a shared::cluster address where the CTA's rank begins."""

OFFSET_MASK = (1 << RANK_SHIFT) - 1
"""Bits of a shared-memory address that are relative to the CTA."""

BARRIER_BYTES = 8
"""Size and alignment of an mbarrier."""

# State of a byte of shared memory. The order matters: what a reader must not meet comes last, so
# that the largest state of many bytes tells whether any is in the way.
_DEFINED, _ASYNC, _UNFENCED, _IN_FLIGHT, _BARRIER = (np.uint8(1 << bit) for bit in range(5))

_MEANING = {
    int(_UNFENCED): "a thread has written without a fence.proxy.async since",
    int(_IN_FLIGHT): "an asynchronous copy is about to write",
    int(_BARRIER): "belongs to an mbarrier",
}


class History(NamedTuple):
    """Who wrote bytes, each array in the shape of the offsets asked for.

    Attributes:
        is_async: whether through the async proxy.
        agent: the writer, or the issuer of a copy in flight; NO_AGENT for unwritten bytes.
        epoch: the memory's `epoch` then.
    """

    is_async: Flags
    agent: NDArray[np.int32]
    epoch: NDArray[np.int32]


def compose_shared(rank: int, offset: int) -> int:
    """The shared::cluster address of a CTA-relative offset in the CTA of that rank."""
    return rank << RANK_SHIFT | offset & OFFSET_MASK


def split_shared(addresses: Integers) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ranks and CTA-relative offsets of shared-memory addresses."""
    wide = addresses.astype(np.int64)
    return wide >> RANK_SHIFT, wide & OFFSET_MASK


def mapa(addresses: NDArray[np.uint32], ranks: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """The same offsets in the CTAs of these ranks."""
    remote: NDArray[np.uint32] = (addresses & np.uint32(OFFSET_MASK)) | (
        ranks << np.uint32(RANK_SHIFT)
    )
    return remote


class SharedMemory:
    """Shared memory of a CTA, with a shadow of every byte.

    Offsets are CTA-relative addresses: `base` is the first byte's. Reading unwritten bytes is no
    error (R26), what was read is then undefined. Bytes that an asynchronous copy is about to write
    are in flight from `poison` to `land`.

    Attributes:
        size: in bytes.
        base: offset of the first byte.
        epoch: a number that the owner advances as it likes; writes are stamped with it.
        barriers: the mbarriers, by offset.
    """

    def __init__(self, size: int, base: int = 1024, pc: Callable[[], int] = lambda: -1) -> None:
        """Starts with all bytes undefined; `pc` is of the instruction that is executed, if any."""
        self.size = size
        self.base = base
        self.epoch = 0
        self.barriers: dict[int, Mbarrier] = {}
        # NaN in FP8, BF16 and FP32: what is computed from undefined bytes shows that it is wrong.
        self._data = np.full(size, 0xFF, dtype=np.uint8)
        self._state = np.zeros(size, dtype=np.uint8)
        self._agent = np.full(size, NO_AGENT, dtype=np.int32)
        self._epoch = np.zeros(size, dtype=np.int32)
        self._current_pc = pc
        self._pc = np.full(size, -1, dtype=np.int32)

    def read(self, offsets: Integers, size: int) -> tuple[Bytes, Flags]:
        """Words, read by threads.

        Args:
            offsets: [n], multiples of `size`.
            size: bytes of a word.

        Returns:
            uint8 [n, size], and bool [n, size]: which bytes are defined.

        Raises:
            HazardError: "alignment", "bounds", R2 (bytes in flight) or R29 (an mbarrier).
        """
        check_alignment("shared", offsets, size, size)
        index = self.index(_word_bytes(offsets, size))
        state = self._state[index]
        if state.max(initial=0) >= _IN_FLIGHT:
            self._refuse("read", index, _IN_FLIGHT, "R2")
        return self._data[index], _is_set(state, _DEFINED)

    def read_async(self, offsets: Integers) -> Bytes:
        """Bytes at offsets of any shape, read by an asynchronous operation (WGMMA, TMA).

        Raises:
            HazardError: "bounds", R1 (written by a thread that has not executed fence.proxy.async
                since), R2 (bytes in flight) or R29 (an mbarrier).
        """
        index = self.index(offsets)
        if self._state[index].max(initial=0) >= _UNFENCED:
            self._refuse("asynchronous read", index, _IN_FLIGHT, "R2")
            self._refuse("asynchronous read", index, _UNFENCED, "R1")
        return self._data[index]

    def is_defined(self, offsets: Integers) -> Flags:
        """Which bytes have defined contents, for offsets of any shape."""
        return _is_set(self._state[self.index(offsets)], _DEFINED)

    def holds(self, offsets: Integers, values: Bytes) -> Flags:
        """Which bytes are defined and have these values, in the shape of both."""
        index = self.index(offsets)
        is_held: Flags = _is_set(self._state[index], _DEFINED) & (self._data[index] == values)
        return is_held

    def history(self, offsets: Integers) -> History:
        """Who wrote the bytes last, for offsets of any shape."""
        index = self.index(offsets)
        is_async = _is_set(self._state[index], _ASYNC)
        return History(is_async, self._agent[index], self._epoch[index])

    def write(
        self,
        offsets: Integers,
        values: Bytes,
        agent: int | Integers,
        proxy: Proxy = "generic",
        defined: Flags | None = None,
    ) -> None:
        """Stores words; of those that overlap, the last one stays.

        Args:
            offsets: [n], multiples of the word's size.
            values: uint8 [n, size].
            agent: the writer, or that of each word, [n].
            proxy: path of the write.
            defined: bool [n, size], which of the bytes have defined values; by default all.

        Raises:
            HazardError: "alignment", "bounds", R2 (bytes in flight) or R29 (an mbarrier). Nothing
                is written then.
        """
        size = values.shape[1]
        check_alignment("shared", offsets, size, size)
        index = self.index(_word_bytes(offsets, size))
        if self._state[index].max(initial=0) >= _IN_FLIGHT:
            self._refuse("write", index, _IN_FLIGHT, "R2")
        self._put(index, values, np.reshape(agent, (-1, 1)), proxy)
        self._pc[index] = self._current_pc()
        if defined is not None:
            self._state[index[~defined]] &= ~_DEFINED

    def poison(self, offsets: Integers, agent: int = NO_AGENT, proxy: Proxy = "async") -> None:
        """Puts bytes at offsets of any shape in flight: an asynchronous copy will write them.

        Raises:
            HazardError: "bounds", R1 (the copy uses the async proxy, and a thread that has not
                executed fence.proxy.async since wrote the bytes) or R29 (another copy is about to
                write them, or they are an mbarrier).
        """
        index = self.index(offsets)
        if self._state[index].max(initial=0) >= _UNFENCED:
            self._refuse("asynchronous write", index, _IN_FLIGHT, "R29")
            if proxy == "async":
                self._refuse("asynchronous write", index, _UNFENCED, "R1")
        self._state[index] = _IN_FLIGHT
        self._agent[index] = agent
        self._epoch[index] = self.epoch
        self._pc[index] = self._current_pc()

    def land(
        self,
        offsets: Integers,
        values: Bytes,
        agent: int,
        proxy: Proxy = "async",
        defined: Flags | None = None,
    ) -> None:
        """Lets bytes in flight arrive.

        Args:
            offsets: as given to `poison`, or a part of them.
            values: as many bytes, in the same order.
            agent: the copy's.
            proxy: path of the copy: generic for cp.async, async for TMA.
            defined: which of the bytes have defined values; by default all.

        Raises:
            EmulationError: some of the bytes are not in flight.
        """
        index = self.index(offsets)
        if (self._state[index] != _IN_FLIGHT).any():
            raise EmulationError("a copy arrives in shared memory that was not waiting for it")
        self._put(index, values.reshape(index.shape), agent, proxy)
        if defined is not None:
            self._state[index[~defined]] &= ~_DEFINED

    def fence(self, agents: int | Integers) -> None:
        """fence.proxy.async: shows what the agents wrote so far to asynchronous operations."""
        unfenced = np.flatnonzero(self._state & _UNFENCED)
        self._state[unfenced[np.isin(self._agent[unfenced], agents)]] &= ~_UNFENCED

    def init_barrier(self, offset: int, count: int) -> Mbarrier:
        """mbarrier.init: from now on nothing else may access the 8 bytes.

        Raises:
            HazardError: "alignment", "bounds", R2 (bytes in flight), or R9 (there is an mbarrier
                already, or the count is illegal).
        """
        where = np.array([offset])
        check_alignment("shared", where, BARRIER_BYTES, BARRIER_BYTES)
        if offset in self.barriers:
            raise HazardError("R9", f"mbarrier at {offset:#x} initialised twice")
        index = self.index(_word_bytes(where, BARRIER_BYTES))
        self._refuse("mbarrier.init", index, _IN_FLIGHT, "R2")
        self.barriers[offset] = Mbarrier(count)
        self._state[index] = _BARRIER
        self._agent[index] = NO_AGENT
        return self.barriers[offset]

    def barrier(self, offset: int) -> Mbarrier:
        """The mbarrier at an offset.

        Raises:
            HazardError: R9, there is none.
        """
        if offset not in self.barriers:
            raise HazardError("R9", f"no mbarrier was initialised at {offset:#x}")
        return self.barriers[offset]

    def invalidate_barrier(self, offset: int) -> None:
        """mbarrier.inval: the bytes are ordinary again, and undefined.

        Raises:
            HazardError: R9, there is no mbarrier.
        """
        self.barrier(offset)
        del self.barriers[offset]
        self._state[self.index(_word_bytes(np.array([offset]), BARRIER_BYTES))] = 0

    def index(self, offsets: Integers) -> NDArray[np.int64]:
        """Indices of bytes, from 0 on, in the shape of their offsets; raises "bounds"."""
        index = offsets.astype(np.int64) - self.base
        if index.view(np.uint64).max(initial=0) >= self.size:
            first = index[(index < 0) | (index >= self.size)].flat[0] + self.base
            raise HazardError(
                "bounds",
                f"access to shared memory at {first:#x}; the CTA has {self.size} bytes from"
                f" {self.base:#x} on",
            )
        return index

    def _put(
        self, index: NDArray[np.int64], values: Bytes, agent: int | Integers, proxy: Proxy
    ) -> None:
        self._data[index] = values
        self._state[index] = _DEFINED | (_ASYNC if proxy == "async" else _UNFENCED)
        self._agent[index] = agent
        self._epoch[index] = self.epoch

    def _refuse(self, what: str, index: NDArray[np.int64], flag: np.uint8, rule: str) -> None:
        """Raises if one of the bytes has the flag, or belongs to an mbarrier."""
        for bad, broken in ((_BARRIER, "R29"), (flag, rule)):
            found = index[_is_set(self._state[index], bad)]
            if found.size:
                agent, pc = int(self._agent[found[0]]), int(self._pc[found[0]])
                by = "" if agent == NO_AGENT else f" (agent {agent})"
                other = None if NO_AGENT in (agent, pc) else Access(agent, pc)
                at = f"shared memory at {int(found[0]) + self.base:#x}"
                text = f"{what} of {at}, which {_MEANING[int(bad)]}{by}"
                raise HazardError(broken, text, other)


def _is_set(state: Bytes, flag: np.uint8) -> Flags:
    is_set: Flags = (state & flag) != 0
    return is_set


def _word_bytes(offsets: Integers, size: int) -> NDArray[np.int64]:
    """Offsets of the bytes of words, [n, size]."""
    return offsets.astype(np.int64)[:, None] + np.arange(size)
