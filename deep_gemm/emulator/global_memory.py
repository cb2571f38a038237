"""Global memory: the caller's buffers, with bounds and alignment checked.

Words are rows of bytes, little-endian: n words of `size` bytes are uint8 [n, size].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import EmulationError, HazardError

Bytes = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class _Buffer:
    """A part of global memory that the program may touch."""

    array: Bytes
    base: int
    name: str

    def distance(self, address: int) -> int:
        """Bytes between the buffer and the address."""
        return max(self.base - address, address - (self.base + self.array.size - 1), 0)

    def __str__(self) -> str:
        return f"{self.name} at {self.base:#x} of {self.array.size} bytes"


class GlobalMemory:
    """Buffers of the caller, at the addresses that the program is told.

    Buffers may overlap if they are views on the same memory. Each access must lie in one buffer.
    """

    def __init__(self) -> None:
        """Starts without buffers."""
        self._buffers: list[_Buffer] = []

    def map(self, array: Bytes, base: int, name: str = "buffer") -> None:
        """Adds a buffer. One that NumPy holds read-only can't be written.

        Args:
            array: contiguous uint8 [bytes], a view on the caller's memory.
            base: its address.
            name: for reports.

        Raises:
            EmulationError: the array is of another kind.
        """
        if array.dtype != np.uint8 or array.ndim != 1 or not array.flags.c_contiguous:
            kind = f"{array.dtype} {list(array.shape)} with strides {list(array.strides)}"
            raise EmulationError(f"{name}: must be contiguous uint8 [bytes], got {kind}")
        self._buffers.append(_Buffer(array, base, name))

    def read(self, addresses: Integers, size: int, alignment: int | None = None) -> Bytes:
        """Words at addresses.

        Args:
            addresses: [n], in bytes.
            size: bytes of a word.
            alignment: that the addresses must have, `size` by default.

        Returns:
            uint8 [n, size].

        Raises:
            HazardError: "alignment" or "bounds", with the address, the size and, for bounds, the
                nearest buffer.
        """
        check_alignment("global", addresses, size, alignment or size)
        words = np.empty((addresses.size, size), dtype=np.uint8)
        for buffer, lanes, index in self._find(addresses, size):
            words[lanes] = buffer.array[index]
        return words

    def read_bytes(self, address: int, count: int) -> Bytes:
        """The `count` bytes from an address on, of any alignment: uint8 [count]. Raises as read."""
        return self.read(np.array([address], dtype=np.uint64), count, alignment=1).reshape(-1)

    def write(self, addresses: Integers, values: Bytes, alignment: int | None = None) -> None:
        """Stores words; of those that overlap, the last one stays.

        Args:
            addresses: [n], in bytes.
            values: uint8 [n, size].
            alignment: that the addresses must have, `size` by default.

        Raises:
            HazardError: as read, and "bounds" for a read-only buffer. Nothing is written then.
        """
        size = values.shape[1]
        check_alignment("global", addresses, size, alignment or size)
        parts = self._find(addresses, size)
        for buffer, lanes, _ in parts:
            if not buffer.array.flags.writeable:
                address = int(addresses[lanes[0]])
                raise HazardError("bounds", f"write to {address:#x} in read-only {buffer}")
        for buffer, lanes, index in parts:
            buffer.array[index] = values[lanes]

    def _find(
        self, addresses: Integers, size: int
    ) -> list[tuple[_Buffer, NDArray[np.int64], NDArray[np.int64]]]:
        """Splits words by buffer: (buffer, which words [k], index of their bytes [k, size])."""
        parts = []
        wide = addresses.astype(np.uint64)
        left = np.arange(wide.size)
        for buffer in self._buffers:
            # An address below the buffer wraps to a huge offset.
            offsets = wide[left] - np.uint64(buffer.base)
            inside = offsets < np.uint64(max(buffer.array.size - size + 1, 0))
            if inside.any():
                first = offsets[inside].astype(np.int64)
                parts.append((buffer, left[inside], first[:, None] + np.arange(size)))
                left = left[~inside]
            if not left.size:
                return parts
        if left.size:
            self._refuse(int(wide[left[0]]), size)
        return parts

    def _refuse(self, address: int, size: int) -> NoReturn:
        nearest = min(self._buffers, key=lambda buffer: buffer.distance(address), default="none")
        raise HazardError(
            "bounds",
            f"access to {size} bytes of global memory at {address:#x}, which lie in no buffer;"
            f" nearest: {nearest}",
        )


def check_alignment(space: str, addresses: Integers, size: int, alignment: int) -> None:
    """Checks that addresses, [n], are multiples of `alignment`.

    Args:
        space: "global" or "shared", for the report.
        addresses: in bytes.
        size: bytes of each access, for the report.
        alignment: in bytes.

    Raises:
        HazardError: "alignment".
    """
    if alignment == 1:
        return
    wide = addresses.astype(np.uint64)
    wrong = wide % np.uint64(alignment) != 0
    if wrong.any():
        address = int(wide[wrong][0])
        raise HazardError(
            "alignment",
            f"access to {size} bytes of {space} memory at {address:#x}, which is no multiple of"
            f" {alignment}",
        )
