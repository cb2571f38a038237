"""A tensor map as the 128 bytes that lie in a kernel's parameters or in global memory.

The hardware's encoding is secret, so this one is our own. Programs may copy it like any bytes, and
change it by tensormap.replace alone. Sizes have room for values that are no legal ones: a program
may write them, as long as TMA never uses the map.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import lru_cache

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.tma import SWIZZLE_BYTES, TensorMap

MAP_BYTES = 128
MAP_ALIGNMENT = 64
_MAX_RANK = 5

_MAGIC = b"EMU-TMAP"
# Magic, address, dims, strides, box, element strides, rank - 1, dtype, interleave, swizzle, fill.
_LAYOUT = struct.Struct("<8sQ5Q4Q5H5B5B")
_SWIZZLES = {width: code for code, width in SWIZZLE_BYTES.items()}


@dataclass(frozen=True, slots=True)
class Field:
    """A field that tensormap.replace names.

    Attributes:
        offset: of its first value in the map.
        size: bytes of a value.
        count: values, chosen by an ordinal; 0 for a field with one value and no ordinal.
        codes: legal values, with what they are stored as; None for numbers, stored as they are.
    """

    offset: int
    size: int
    count: int = 0
    codes: dict[int, int] | None = None


# The codes of elemtype are in another order than those of CUtensorMapDataType.
_TYPES = {**{code: code for code in range(13)}, 8: 10, 9: 8, 10: 9}

FIELDS = {
    "global_address": Field(8, 8),
    "global_dim": Field(16, 8, _MAX_RANK),
    "global_stride": Field(56, 8, _MAX_RANK - 1),
    "box_dim": Field(88, 2, _MAX_RANK),
    "element_stride": Field(98, 1, _MAX_RANK),
    "rank": Field(103, 1),
    "elemtype": Field(104, 1, codes=_TYPES),
    "interleave_layout": Field(105, 1, codes={0: 0, 1: 1, 2: 2}),
    "swizzle_mode": Field(106, 1, codes={0: 0, 1: 1, 2: 2, 3: 3}),
    "fill_mode": Field(107, 1, codes={0: 0, 1: 1}),
}
"""By their names in tensormap.replace."""


def encode(tensor_map: TensorMap) -> bytes:
    """The 128 bytes of a map."""
    rank = len(tensor_map.dims)
    beyond = _MAX_RANK - rank
    dims = *tensor_map.dims, *(1,) * beyond
    strides = *tensor_map.strides, *(0,) * beyond
    box = *tensor_map.box, *(1,) * beyond
    codes = rank - 1, tensor_map.dtype, 0, _SWIZZLES[tensor_map.swizzle_bytes], 0
    sizes = *dims, *strides, *box, *(1,) * _MAX_RANK
    return _LAYOUT.pack(_MAGIC, tensor_map.address, *sizes, *codes).ljust(MAP_BYTES, b"\0")


def is_map(data: bytes) -> bool:
    """Whether 128 bytes encode a map, if perhaps an illegal one."""
    return len(data) == MAP_BYTES and data.startswith(_MAGIC)


@lru_cache(maxsize=4096)
def decode(data: bytes) -> TensorMap:
    """The map that 128 bytes encode.

    Args:
        data: for which `is_map` holds.

    Raises:
        HazardError: R14, the hardware refuses the map.
        EmulationError: the map is legal, but not modelled.
    """
    _, address, *numbers = _LAYOUT.unpack_from(data)
    dims, strides, box, steps = numbers[:5], numbers[5:9], numbers[9:14], numbers[14:19]
    last, dtype, interleave, swizzle, fill = numbers[19:]
    rank = last + 1
    if rank > _MAX_RANK:
        raise HazardError("R14", f"TMA: rank must be 1 to 5, got {rank}")
    if not all(1 <= step <= 8 for step in steps[:rank]):
        raise HazardError("R14", f"TMA: element strides must be 1 to 8, got {steps[:rank]}")
    if max(steps[:rank]) > 1 or interleave or fill:
        text = f"element strides {steps[:rank]}, interleaving {interleave}, fill mode {fill}"
        raise EmulationError(f"tensor map: {text}: not modelled")
    return TensorMap.from_fields(
        dtype, address, dims[:rank], strides[: rank - 1], box[:rank], swizzle
    )


def replace_field(data: bytes, name: str, ordinal: int, value: int) -> bytes:
    """What tensormap.replace makes of a map.

    Args:
        data: the map, or 128 zeros, from which a program may build one field by field.
        name: of the field.
        ordinal: which of its values; 0 where there is one.
        value: as the instruction has it: strides in bytes, the rank less 1, codes of FIELDS.

    Raises:
        HazardError: R18, the bytes are no map; R14, no map has such a value.
    """
    if data == bytes(MAP_BYTES):
        data = _MAGIC + data[len(_MAGIC) :]
    if not is_map(data):
        raise HazardError("R18", f"no tensor map to change: the bytes are {data[:16].hex()}...")
    field = FIELDS[name]
    code = value if field.codes is None else field.codes[value]
    if code >= 1 << 8 * field.size:
        raise HazardError("R14", f"tensormap.replace: {name} cannot be {value}")
    at = field.offset + ordinal * field.size
    return data[:at] + code.to_bytes(field.size, "little") + data[at + field.size :]
