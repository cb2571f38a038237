"""TMA: tensor maps, and boxes of a tensor as they move between global and shared memory.

A box is dense in shared memory, dimension 0 innermost, then swizzled: uint8 [rows, row bytes] where
the rows run over the box's other dimensions, dimension 1 fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.global_memory import Bytes, Flags, GlobalMemory

SMEM_ALIGNMENT = 128
"""Alignment in bytes of a box in shared memory."""

_GRANULE = 16
_SWIZZLE_PERIOD = 1024

# By CUtensorMapDataType. TMA converts what it copies as FLOAT32_FTZ, TFLOAT32 or TFLOAT32_FTZ, and
# unpacks the 4 and 6 bit types: those are not modelled.
_ELEMENT_BYTES = {0: 1, 1: 2, 2: 4, 3: 4, 4: 8, 5: 8, 6: 2, 7: 4, 8: 8, 9: 2}

SWIZZLE_BYTES = {0: 0, 1: 32, 2: 64, 3: 128}
"""By CUtensorMapSwizzle. Those with other atoms than 16 bytes are not modelled."""


@dataclass(frozen=True, slots=True)
class TensorMap:
    """A tensor map, tiled, without interleaving, element strides of 1, zeros out of range.

    Attributes:
        dtype: CUtensorMapDataType.
        address: of the first element, 16-byte aligned.
        dims: sizes in elements, innermost first; 1 to 5 of them.
        strides: bytes between elements of dimension 1, 2, ...; multiples of 16.
        box: elements of one copy, innermost first.
        swizzle_bytes: 0, 32, 64 or 128; if not 0, the box is as wide.
    """

    dtype: int
    address: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle_bytes: int

    @classmethod
    def from_fields(
        cls,
        dtype: int,
        address: int,
        dims: Sequence[int],
        strides: Sequence[int],
        box: Sequence[int],
        swizzle: int,
    ) -> TensorMap:
        """The map that cuTensorMapEncodeTiled makes of these arguments.

        Args:
            dtype: CUtensorMapDataType.
            address: of the first element.
            dims: sizes in elements, innermost first.
            strides: bytes between elements of dimension 1, 2, ...
            box: elements of one copy, innermost first.
            swizzle: CUtensorMapSwizzle.

        Raises:
            HazardError: R14, the driver or the hardware refuses the map.
            EmulationError: the map is legal, but not modelled.
        """
        if swizzle not in SWIZZLE_BYTES:
            raise EmulationError(f"tensor map: swizzle {swizzle} is not modelled")
        sizes = tuple(dims), tuple(strides), tuple(box)
        return cls(dtype, address, *sizes, SWIZZLE_BYTES[swizzle])

    def __post_init__(self) -> None:
        """Checks all limits; raises as from_fields."""
        if self.dtype not in _ELEMENT_BYTES:
            raise EmulationError(f"tensor map: data type {self.dtype} is not modelled")
        rank = len(self.dims)
        _require(1 <= rank <= 5, f"rank must be 1 to 5, got {rank}")
        _require(
            len(self.strides) == rank - 1 and len(self.box) == rank,
            f"rank {rank} needs as many box sizes and one stride less, got {self}",
        )
        _require(self.address % 16 == 0, f"address must be a multiple of 16, got {self.address:#x}")
        _require(
            all(1 <= size <= 2**32 for size in self.dims),
            f"sizes must be 1 to 2^32, got {self.dims}",
        )
        _require(
            all(stride % 16 == 0 and 0 <= stride < 2**40 for stride in self.strides),
            f"strides must be multiples of 16 bytes below 2^40, got {self.strides}",
        )
        self._check_box()

    def _check_box(self) -> None:
        _require(
            all(1 <= size <= 256 for size in self.box),
            f"box sizes must be 1 to 256, got {self.box}",
        )
        width = self.row_bytes
        _require(width % 16 == 0, f"a box must be a multiple of 16 bytes wide, got {width}")
        if self.swizzle_bytes:
            limit = self.swizzle_bytes
            _require(width <= limit, f"a box under swizzle {limit} is {width} bytes wide")
            if width < limit:
                raise EmulationError(
                    f"tensor map: a box {width} bytes wide under swizzle {limit} is not modelled"
                )

    @property
    def element_bytes(self) -> int:
        """Bytes of an element."""
        return _ELEMENT_BYTES[self.dtype]

    @property
    def rows(self) -> int:
        """Rows of a box."""
        return prod(self.box[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of a box."""
        return self.box[0] * self.element_bytes

    @property
    def box_bytes(self) -> int:
        """Bytes of a box: what a load completes on its mbarrier, wherever the box lies."""
        return self.rows * self.row_bytes


def load_box(tensor_map: TensorMap, memory: GlobalMemory, coordinates: Sequence[int]) -> Bytes:
    """Reads the box whose first element has these coordinates, before the swizzle.

    Args:
        tensor_map: of the tensor.
        memory: that holds it.
        coordinates: in elements, innermost first; elements outside of the tensor are zeros.

    Returns:
        uint8 [rows, row bytes].

    Raises:
        HazardError: R14, the coordinates are illegal; "bounds", the tensor lies outside of its
            buffer.
    """
    _check_coordinates(tensor_map, coordinates)
    box = np.zeros((tensor_map.rows, tensor_map.row_bytes), dtype=np.uint8)
    rows, columns, addresses = _inside(tensor_map, coordinates)
    if addresses.size:
        box[rows, columns] = memory.read(addresses, columns.stop - columns.start, alignment=1)
    return box


def store_box(
    tensor_map: TensorMap,
    memory: GlobalMemory,
    coordinates: Sequence[int],
    values: Bytes,
    defined: Flags | None = None,
    combine: Callable[[Bytes, Bytes], Bytes] | None = None,
) -> None:
    """Writes the part of a box that lies inside of the tensor.

    Args:
        tensor_map: of the tensor.
        memory: that holds it.
        coordinates: of the box's first element, innermost first.
        values: uint8 [rows, row bytes], without the swizzle.
        defined: bool of that shape, which bytes have defined values; by default all.
        combine: of old and new bytes, [rows, bytes], to what is written: a reduction.

    Raises:
        HazardError: R14, the coordinates are illegal or negative, or the tensor's rows are no
            multiples of 16 bytes (measured on an H100: stores cut a row's end in units of 16 bytes
            and so write beyond it); R26, undefined bytes would be written; "bounds", the tensor
            lies outside of its buffer.
    """
    _check_coordinates(tensor_map, coordinates)
    _require(min(coordinates) >= 0, f"store to coordinates {tuple(coordinates)}")
    width = tensor_map.dims[0] * tensor_map.element_bytes
    _require(width % _GRANULE == 0, f"store to rows of {width} bytes, no multiple of {_GRANULE}")
    rows, columns, addresses = _inside(tensor_map, coordinates)
    if not addresses.size:
        return
    if defined is not None and not defined[rows, columns].all():
        row, byte = np.argwhere(~defined[rows, columns])[0]
        raise HazardError(
            "R26",
            f"TMA stores undefined shared memory to {int(addresses[row]) + int(byte):#x}, byte"
            f" {columns.start + int(byte)} of row {int(np.flatnonzero(rows)[row])} of the box",
        )
    new = values[rows, columns]
    if combine is not None:
        new = combine(memory.read(addresses, new.shape[1], alignment=1), new)
    memory.write(addresses, new, alignment=1)


def swizzled_offsets(tensor_map: TensorMap, smem_offset: int) -> NDArray[np.int64]:
    """Where the bytes of a box lie in shared memory.

    Args:
        tensor_map: whose box.
        smem_offset: CTA-relative address of the box, a multiple of 128. The swizzle depends on its
            bits, not only on the place in the box.

    Returns:
        CTA-relative addresses, int64 [rows, row bytes].

    Raises:
        HazardError: R14, the address is misaligned.
    """
    if smem_offset % SMEM_ALIGNMENT:
        raise HazardError("R14", f"TMA box in shared memory at {smem_offset:#x}, not 128-aligned")
    start = smem_offset % _SWIZZLE_PERIOD
    shape = tensor_map.rows, tensor_map.row_bytes
    return _pattern(*shape, tensor_map.swizzle_bytes, start) + (smem_offset - start)


@lru_cache(maxsize=64)
def _pattern(rows: int, row_bytes: int, swizzle_bytes: int, start: int) -> NDArray[np.int64]:
    """Addresses of the bytes of a box at an address below the swizzle's period."""
    dense = start + np.arange(rows * row_bytes, dtype=np.int64).reshape(rows, row_bytes)
    if not swizzle_bytes:
        return dense
    return dense ^ (dense >> 7 & swizzle_bytes // 16 - 1) << 4


def _inside(
    tensor_map: TensorMap, coordinates: Sequence[int]
) -> tuple[Flags, slice, NDArray[np.int64]]:
    """The part of a box inside of the tensor: (bool [rows], bytes of a row, row addresses)."""
    element_bytes = tensor_map.element_bytes
    first = max(0, -coordinates[0])
    last = min(tensor_map.box[0], tensor_map.dims[0] - coordinates[0])
    inside = np.array([first < last])
    offsets = np.array([(coordinates[0] + first) * element_bytes], dtype=np.int64)
    outer = zip(
        coordinates[1:], tensor_map.box[1:], tensor_map.dims[1:], tensor_map.strides, strict=True
    )
    for coordinate, box, size, stride in outer:
        index = coordinate + np.arange(box, dtype=np.int64)[:, None]
        inside = (inside & (index >= 0) & (index < size)).reshape(-1)
        offsets = (offsets + index * stride).reshape(-1)
    columns = slice(first * element_bytes, last * element_bytes)
    return inside, columns, tensor_map.address + offsets[inside]


def _check_coordinates(tensor_map: TensorMap, coordinates: Sequence[int]) -> None:
    rank = len(tensor_map.dims)
    _require(len(coordinates) == rank, f"{len(coordinates)} coordinates for a map of rank {rank}")
    _require(
        all(-(2**31) <= coordinate < 2**31 for coordinate in coordinates),
        f"coordinates must be signed 32-bit, got {tuple(coordinates)}",
    )
    start = coordinates[0] * tensor_map.element_bytes
    _require(start % _GRANULE == 0, f"a box must start at a multiple of 16 bytes, got {start}")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise HazardError("R14", f"TMA: {text}")
