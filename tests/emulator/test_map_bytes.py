"""The emulator's own encoding of tensor maps, and its fields as tensormap.replace knows them."""

from __future__ import annotations

import dataclasses

import pytest

from deep_gemm.emulator.errors import EmulationError, TmaArgumentError
from deep_gemm.emulator.map_bytes import FIELDS, decode, encode, is_map, replace_field
from deep_gemm.emulator.tma import TensorMap

UINT32, FLOAT64, BFLOAT16 = 2, 8, 9

MAPS = [
    TensorMap.from_fields(0, 1 << 47, (2**32,), (), (256,), 0),
    TensorMap.from_fields(BFLOAT16, 4096, (70, 33), (160,), (64, 256), 3),
    TensorMap.from_fields(7, 16, (5, 4, 3), (32, 2**40 - 16), (16, 1, 2), 2),
    TensorMap.from_fields(1, 0, (16,) * 5, (16, 32, 48, 64), (16, 2, 3, 4, 5), 1),
]


@pytest.mark.parametrize("tensor_map", MAPS, ids=lambda m: f"{len(m.dims)}d")
def test_the_encoding_loses_nothing(tensor_map: TensorMap) -> None:
    data = encode(tensor_map)
    assert len(data) == 128
    assert decode(data) == tensor_map


def test_other_bytes_are_no_map() -> None:
    for data in (bytes(128), b"\xff" * 128, bytes(64) + encode(MAPS[0])[:64]):
        assert not is_map(data)
    assert is_map(encode(MAPS[0]))


@pytest.mark.parametrize(
    ("field", "ordinal", "value", "changes"),
    [
        ("global_address", 0, 8192, {"address": 8192}),
        ("global_dim", 0, 71, {"dims": (71, 33)}),
        ("global_dim", 1, 2**32 - 1, {"dims": (70, 2**32 - 1)}),
        ("global_stride", 0, 2**40 - 16, {"strides": (2**40 - 16,)}),
        ("box_dim", 1, 7, {"box": (64, 7)}),
        ("rank", 0, 0, {"dims": (70,), "strides": (), "box": (64,)}),
        ("swizzle_mode", 0, 0, {"swizzle_bytes": 0}),
        ("elemtype", 0, 1, {"dtype": 1}),
        ("element_stride", 1, 1, {}),
        ("interleave_layout", 0, 0, {}),
        ("fill_mode", 0, 0, {}),
    ],
)
def test_a_replaced_field_is_the_only_change(
    field: str, ordinal: int, value: int, changes: dict[str, object]
) -> None:
    found = decode(replace_field(encode(MAPS[1]), field, ordinal, value))
    assert found == dataclasses.replace(MAPS[1], **changes)


def test_element_types_have_codes_of_their_own() -> None:
    """9 is f64 and 10 bf16 for tensormap.replace, 8 and 9 for the driver."""
    data = encode(TensorMap.from_fields(UINT32, 0, (16,), (), (4,), 0))
    assert decode(replace_field(data, "elemtype", 0, 9)).dtype == FLOAT64
    wide = replace_field(data, "box_dim", 0, 8)
    assert decode(replace_field(wide, "elemtype", 0, 10)).dtype == BFLOAT16
    assert FIELDS["elemtype"].codes == {**{i: i for i in range(13)}, 8: 10, 9: 8, 10: 9}


@pytest.mark.parametrize(
    ("field", "ordinal", "value", "error"),
    [
        ("global_address", 0, 8, "^R14.*address"),
        ("global_dim", 1, 0, "^R14.*sizes"),
        ("global_stride", 0, 8, "^R14.*strides"),
        ("box_dim", 0, 257, "^R14.*box"),
        ("rank", 0, 5, "^R14.*rank"),
        ("element_stride", 0, 9, "^R14.*element strides"),
        ("element_stride", 0, 2, "not modelled"),
        ("interleave_layout", 0, 1, "not modelled"),
        ("fill_mode", 0, 1, "not modelled"),
        ("elemtype", 0, 8, "not modelled"),
    ],
)
def test_illegal_values_matter_where_the_map_is_used(
    field: str, ordinal: int, value: int, error: str
) -> None:
    """A group without rows has a map of 0 rows, which nobody uses."""
    changed = replace_field(encode(MAPS[1]), field, ordinal, value)
    with pytest.raises(EmulationError, match=error):
        decode(changed)


def test_what_is_no_map_cannot_be_changed() -> None:
    with pytest.raises(TmaArgumentError, match="^R18"):
        replace_field(b"\x01" * 128, "rank", 0, 0)
    with pytest.raises(TmaArgumentError, match=r"^R14.*box_dim cannot be 65536"):
        replace_field(encode(MAPS[0]), "box_dim", 0, 65536)
