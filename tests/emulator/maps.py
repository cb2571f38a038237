"""Tensor maps in a kernel's parameters."""

from __future__ import annotations

from collections.abc import Mapping

from deep_gemm.emulator.map_bytes import MAP_ALIGNMENT, MAP_BYTES, decode, encode, is_map
from deep_gemm.emulator.tma import TensorMap

Maps = Mapping[int, TensorMap]
"""By their offset in the parameters."""


def with_maps(parameters: bytes, maps: Maps) -> bytes:
    """The parameters with these maps in them."""
    data = bytearray(parameters)
    for offset, tensor_map in maps.items():
        data[offset : offset + MAP_BYTES] = encode(tensor_map)
    return bytes(data)


def maps_in(parameters: bytes) -> dict[int, TensorMap]:
    """The maps in the parameters."""
    offsets = range(0, len(parameters) - MAP_BYTES + 1, MAP_ALIGNMENT)
    return {
        offset: decode(parameters[offset : offset + MAP_BYTES])
        for offset in offsets
        if is_map(parameters[offset : offset + MAP_BYTES])
    }
