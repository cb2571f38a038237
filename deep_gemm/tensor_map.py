"""Tensor maps: how TMA sees a matrix in global memory."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from deep_gemm.runtime.cuda import driver

if TYPE_CHECKING:
    from deep_gemm.emulator.tma import TensorMap as EmulatedMap

_SWIZZLE = {0: 0, 32: 1, 64: 2, 128: 3}
_L2_PROMOTION_256B = 3

UINT8 = 0
FLOAT32 = 7
BFLOAT16 = 9
_ELEMENT_BYTES = {UINT8: 1, FLOAT32: 4, BFLOAT16: 2}


class _Shape(TypedDict):
    """What cuTensorMapEncodeTiled is told of a tensor, innermost dimension first."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle: int


class TensorMap(ctypes.Structure):
    """The driver's opaque 128 bytes; they must start at a multiple of 64."""

    _fields_ = (("opaque", ctypes.c_uint64 * 16),)


_PATTERNS = (0x5555_5555_5550, 0xAAAA_AAAA_AAA0)
"""Every bit of an address but those of its alignment, in one of two."""


def word_of_address(destination: int, address: int) -> int | None:
    """Which of an encoded map's 16 words is the address, if one is.

    The encoding is the driver's secret, so it is asked: for two addresses that between them differ
    from this one in every bit, its own cuTensorMapReplaceAddress must write that word and change no
    other. Then storing a word does the same, in a tenth of the time that a call through ctypes
    takes.

    Args:
        destination: of a map for a tensor at `address`, and afterwards again.
        address: what the map was encoded for.
    """
    words = (ctypes.c_uint64 * 16).from_address(destination)
    original, found = list(words), set()
    for pattern in _PATTERNS:
        status = driver().tensor_map_replace_address(destination, address ^ pattern)
        changed = [i for i in range(16) if words[i] != original[i]]
        is_the_address = len(changed) == 1 and words[changed[0]] == address ^ pattern
        found.add(changed[0] if status == 0 and is_the_address else None)
        words[:] = original
    return found.pop() if len(found) == 1 else None


class BoxMap(NamedTuple):
    """A tensor map before it is encoded: a tensor, and the box of it that one copy moves.

    Attributes:
        dtype: CUtensorMapDataType of the elements.
        dims: sizes in elements, innermost first; the innermost ones are adjacent.
        strides: bytes between elements of dimension 1, 2, ...; multiples of 16.
        box: elements of one copy, innermost first, at most 256 each.
        swizzle_bytes: 32, 64 or 128, the width of the box; or 0.
    """

    dtype: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    swizzle_bytes: int = 0

    @property
    def num_bytes(self) -> int:
        """Bytes from the tensor's first element to the end of its last."""
        outer = zip(self.dims[1:], self.strides, strict=True)
        inner_bytes = self.dims[0] * _ELEMENT_BYTES[self.dtype]
        return sum((size - 1) * stride for size, stride in outer) + inner_bytes

    def encode(self, destination: int, address: int) -> None:
        """Writes the map for a tensor at `address` to the 64-byte aligned `destination`."""
        driver().encode_tensor_map(
            destination, self.dtype, address, **self._shape(), l2_promotion=_L2_PROMOTION_256B
        )

    def for_emulator(self, address: int) -> EmulatedMap:
        """The same map, for a tensor at `address`, as the emulator's TMA reads it."""
        from deep_gemm.emulator.tma import TensorMap as EmulatedMap

        return EmulatedMap.from_fields(self.dtype, address, **self._shape())

    def _shape(self) -> _Shape:
        return {
            "dims": self.dims,
            "strides": self.strides,
            "box": self.box,
            "swizzle": _SWIZZLE[self.swizzle_bytes],
        }


def matrix_map(
    dtype: int, shape: tuple[int, ...], strides: tuple[int, int], box: tuple[int, int]
) -> BoxMap:
    """The map of row-major matrices, swizzled by the width of the box.

    Args:
        dtype: CUtensorMapDataType of the elements.
        shape: number of matrices, rows and columns.
        strides: elements between matrices and between rows; multiples of 16 bytes.
        box: rows of one copy, at most 256, and columns, 32, 64 or 128 bytes.
    """
    element_bytes = _ELEMENT_BYTES[dtype]
    batches, rows, columns = shape
    batch_stride, row_stride = strides
    box_rows, box_columns = box
    return BoxMap(
        dtype,
        dims=(columns, rows, batches),
        strides=(row_stride * element_bytes, batch_stride * element_bytes),
        box=(box_columns, box_rows, 1),
        swizzle_bytes=box_columns * element_bytes,
    )
