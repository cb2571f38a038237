"""Reads by threads that the async proxy may overwrite only behind a fence.proxy.async.

What orders the overwriting copy behind a read does not keep it behind: the read goes through the
generic proxy, the copy through the async proxy. On an H100 an arrival on an mbarrier overtakes
earlier ld.shared by more than the latency of the TMA load that it lets go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.operands import LANES

if TYPE_CHECKING:
    from deep_gemm.emulator.clocks import Clock
    from deep_gemm.emulator.races import Ledger

Index = NDArray[np.int64]

_BITS = np.uint32(1) << np.arange(LANES, dtype=np.uint32)
_MANY = 256


class ReadFences:
    """What one warp has read of the shared memory of a CTA, and its fences behind that."""

    def __init__(self, size: int) -> None:
        """Starts without reads of `size` bytes."""
        # By byte: a bit for each lane that has read it and not executed a fence since.
        self._lanes = np.zeros(size, dtype=np.uint32)
        # By byte: the fence of the last lane that had read it.
        self._fences = np.zeros(size, dtype=np.int32)
        # Where there may be such bits: a fence looks nowhere else.
        self._read: list[Index] = []

    def read(self, index: Index, lanes: Index) -> None:
        """Each of the lanes, [n], has read a row of bytes, [n, bytes]."""
        np.bitwise_or.at(self._lanes, index, _BITS[lanes][:, None])
        self._read.append(index.reshape(-1))
        if len(self._read) == _MANY:
            self._read = [np.unique(np.concatenate(self._read))]

    def fence(self, lanes: Index, number: int) -> None:
        """The lanes have executed a fence that has this number in the ledger."""
        if not self._read:
            return
        index = np.concatenate(self._read)
        fenced = np.bitwise_or.reduce(_BITS[lanes])
        before = self._lanes[index]
        after = before & ~fenced
        self._lanes[index] = after
        self._fences[index[before != after]] = number
        left = index[after != 0]
        self._read = [left] if left.size else []

    def lacking(self, index: Index, ledger: Ledger, clock: Clock) -> NDArray[np.bool_]:
        """Which bytes of an array were read without a fence since, or without a known one."""
        lacking: NDArray[np.bool_] = self._lanes[index] != 0
        lacking |= ~ledger.known(self._fences[index], clock)
        return lacking
