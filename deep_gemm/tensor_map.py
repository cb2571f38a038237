"""Tensor maps: how TMA sees a matrix in global memory."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from deep_gemm.runtime.cuda import driver

if TYPE_CHECKING:
    from deep_gemm.emulator.tma import TensorMap as EmulatedMap

_SWIZZLE = {32: 1, 64: 2, 128: 3}
_L2_PROMOTION_256B = 3

UINT8 = 0
BFLOAT16 = 9
_ELEMENT_BYTES = {UINT8: 1, BFLOAT16: 2}


class _Shape(TypedDict):
    """What cuTensorMapEncodeTiled is told of a tensor, innermost dimension first."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int


class TensorMap(ctypes.Structure):
    """The driver's opaque 128 bytes; they must start at a multiple of 64."""

    _fields_ = (("opaque", ctypes.c_uint64 * 16),)


@dataclass(frozen=True, slots=True)
class MatrixMap:
    """A tensor map of a row-major matrix, before it is encoded.

    Attributes:
        dtype: CUtensorMapDataType of the elements.
        rows: rows of the matrix.
        columns: columns of the matrix.
        row_stride: elements between rows; a multiple of 16 bytes.
        box_rows: rows of one copy, at most 256.
        box_columns: columns of one copy; their bytes are the width of the swizzle.
    """

    dtype: int
    rows: int
    columns: int
    row_stride: int
    box_rows: int
    box_columns: int

    @property
    def num_bytes(self) -> int:
        """Bytes from the matrix's first element to the end of its last."""
        last = (self.rows - 1) * self.row_stride + self.columns
        return last * _ELEMENT_BYTES[self.dtype]

    def encode(self, destination: int, address: int) -> None:
        """Writes the map for a matrix at `address` to the 64-byte aligned `destination`."""
        driver().encode_tensor_map(
            destination, self.dtype, address, **self._shape(), l2_promotion=_L2_PROMOTION_256B
        )

    def for_emulator(self, address: int) -> EmulatedMap:
        """The same map, for a matrix at `address`, as the emulator's TMA reads it."""
        from deep_gemm.emulator.tma import TensorMap as EmulatedMap

        return EmulatedMap.from_fields(self.dtype, address, **self._shape())

    def _shape(self) -> _Shape:
        element_bytes = _ELEMENT_BYTES[self.dtype]
        return {
            "dims": (self.columns, self.rows),
            "strides": (self.row_stride * element_bytes,),
            "box": (self.box_columns, self.box_rows),
            "swizzle": _SWIZZLE[self.box_columns * element_bytes],
        }
