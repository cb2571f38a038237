"""TMA boxes against loops over elements, and the swizzle against its table of address bits."""

from __future__ import annotations

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.memory import GlobalMemory, SharedMemory
from deep_gemm.emulator.tma import TensorMap, load_box, store_box, swizzled_offsets

BASE = 0x7F00_0000_0000
UINT8, UINT16, UINT32, UINT64, BFLOAT16 = 0, 1, 2, 4, 9
ELEMENT_BYTES = {UINT8: 1, UINT16: 2, UINT32: 4, UINT64: 8, BFLOAT16: 2}

# hardware.md A3.4 as bit pairs: address bit `to` is flipped by address bit `by`.
FLIPS = {0: [], 1: [(4, 7)], 2: [(4, 7), (5, 8)], 3: [(4, 7), (5, 8), (6, 9)]}
WIDTHS = {0: 48, 1: 32, 2: 64, 3: 128}


def matrix_map(**changes: object) -> TensorMap:
    """Of a 40 x 256 byte matrix, boxes of 8 x 128, unless changed."""
    fields = {
        "dtype": UINT8,
        "address": BASE,
        "dims": (256, 40),
        "strides": (256,),
        "box": (128, 8),
        "swizzle": 3,
    }
    return TensorMap.from_fields(**{**fields, **changes})


def mapped(array: np.ndarray) -> GlobalMemory:
    memory = GlobalMemory()
    memory.map(array, BASE)
    return memory


# Limits


@pytest.mark.parametrize(
    "changes",
    [
        {"dims": (), "strides": (), "box": ()},
        {"dims": (16,) * 6, "strides": (16,) * 5, "box": (16,) * 6, "swizzle": 0},
        {"strides": ()},
        {"box": (128,)},
        {"address": BASE + 8},
        {"dims": (0, 40)},
        {"dims": (2**32 + 1, 40)},
        {"strides": (264,)},
        {"strides": (2**40,)},
        {"strides": (-16,)},
        {"box": (128, 0)},
        {"box": (128, 257)},
        {"box": (272, 8), "swizzle": 0},
        {"box": (24, 8), "swizzle": 0},
        {"dtype": BFLOAT16, "box": (128, 8)},
        {"swizzle": 2},
    ],
    ids=str,
)
def test_illegal_map(changes: dict[str, object]) -> None:
    with pytest.raises(HazardError, match="^R14"):
        matrix_map(**changes)


@pytest.mark.parametrize(
    "changes", [{"dtype": 11}, {"dtype": 14}, {"swizzle": 4}, {"box": (64, 8)}]
)
def test_legal_map_that_is_not_modelled(changes: dict[str, object]) -> None:
    with pytest.raises(EmulationError, match="not modelled"):
        matrix_map(**changes)


def test_map_at_the_limits() -> None:
    matrix_map(dims=(2**32, 1), strides=(2**40 - 16,), box=(256, 256), swizzle=0)
    largest = matrix_map(dims=(16,) * 5, strides=(16,) * 4, box=(16, 2, 3, 4, 5), swizzle=0)
    assert (largest.rows, largest.row_bytes, largest.box_bytes) == (120, 16, 1920)


@pytest.mark.parametrize("coordinates", [(8, 0), (-8, 0), (0,), (0, 0, 0), (0, 2**31)])
def test_illegal_coordinates(coordinates: tuple[int, ...]) -> None:
    memory = mapped(np.zeros(256 * 40, dtype=np.uint8))
    with pytest.raises(HazardError, match="^R14"):
        load_box(matrix_map(), memory, coordinates)
    with pytest.raises(HazardError, match="^R14"):
        store_box(matrix_map(), memory, coordinates, np.zeros((8, 128), dtype=np.uint8))


# Swizzle


@pytest.mark.parametrize("rows", [1, 8, 13, 64])
@pytest.mark.parametrize("start", [1024, 1152, 1024 + 896, 5 * 1024 + 384])
@pytest.mark.parametrize("swizzle", FLIPS)
def test_swizzle_flips_the_bits_of_the_table(swizzle: int, start: int, rows: int) -> None:
    width = WIDTHS[swizzle]
    tensor_map = matrix_map(box=(width, rows), swizzle=swizzle)
    expected = np.empty((rows, width), dtype=np.int64)
    for row, column in product(range(rows), range(width)):
        dense = start + row * width + column
        flips = sum((dense >> by & 1) << to for to, by in FLIPS[swizzle])
        expected[row, column] = dense ^ flips
    assert (swizzled_offsets(tensor_map, start) == expected).all()


@given(st.sampled_from(sorted(FLIPS)), st.integers(1, 256), st.integers(0, 1000))
def test_swizzle_is_a_bijection_onto_the_period(swizzle: int, rows: int, place: int) -> None:
    """Onto the box itself where it is made of whole patterns, one-to-one in any case."""
    width, start = WIDTHS[swizzle], place * 128
    found = swizzled_offsets(matrix_map(box=(width, rows), swizzle=swizzle), start)
    assert np.unique(found).size == found.size
    if start % 1024 == 0 and rows * width % 1024 == 0:
        assert (np.sort(found.ravel()) == np.arange(start, start + found.size)).all()
    assert (found // 128 == (start + np.arange(found.size).reshape(found.shape)) // 128).all()


def test_128_byte_swizzle_permutes_chunks_by_row() -> None:
    found = swizzled_offsets(matrix_map(box=(128, 16)), 2048).reshape(16, 8, 16)[:, :, 0] - 2048
    rows, chunks = np.arange(16)[:, None], np.arange(8)
    assert (found == rows * 128 + (chunks ^ rows % 8) * 16).all()


@pytest.mark.parametrize("start", [1024 + 64, 1024 + 16, 1])
def test_box_in_shared_memory_is_aligned(start: int) -> None:
    with pytest.raises(HazardError, match="^R14.*128"):
        swizzled_offsets(matrix_map(), start)


# Copies


@st.composite
def copies(draw: st.DrawFn) -> tuple[TensorMap, int, tuple[int, ...]]:
    """A small map without swizzle, the bytes of its buffer, and coordinates in and around it."""
    dtype = draw(st.sampled_from(sorted(ELEMENT_BYTES)))
    size = ELEMENT_BYTES[dtype]
    rank = draw(st.integers(1, 4))
    dims = [draw(st.integers(1, 80 // size))] + [draw(st.integers(1, 4)) for _ in range(rank - 1)]
    strides, stride = [], -(-dims[0] * size // 16) * 16
    for outer in dims[1:]:
        strides.append(stride + draw(st.sampled_from([0, 16])))
        stride = strides[-1] * outer
    box = [draw(st.integers(1, 3)) * 16 // size] + [draw(st.integers(1, 3)) for _ in dims[1:]]
    inner = draw(st.integers(-3, 7)) * 16 // size
    coordinates = (inner, *(draw(st.integers(-2, 5)) for _ in dims[1:]))
    last = dims[0] * size + sum((n - 1) * s for n, s in zip(dims[1:], strides, strict=True))
    return TensorMap.from_fields(dtype, BASE, dims, strides, box, 0), last, coordinates


def elements(tensor_map: TensorMap, coordinates: tuple[int, ...]) -> list[tuple[int, int | None]]:
    """Each element of a box: (byte of the box, byte of the tensor or None outside of it)."""
    size, found = tensor_map.element_bytes, []
    boxes = [range(n) for n in reversed(tensor_map.box)]
    for number, reversed_index in enumerate(product(*boxes)):
        index = [c + i for c, i in zip(coordinates, reversed(reversed_index), strict=True)]
        is_inside = all(0 <= i < n for i, n in zip(index, tensor_map.dims, strict=True))
        steps = (size, *tensor_map.strides)
        place = sum(i * step for i, step in zip(index, steps, strict=True))
        found.append((number * size, place if is_inside else None))
    return found


@settings(max_examples=300)
@given(copies(), st.integers(0, 2**32))
def test_load_equals_a_loop_over_elements(
    copy: tuple[TensorMap, int, tuple[int, ...]], seed: int
) -> None:
    tensor_map, num_bytes, coordinates = copy
    array = np.random.default_rng(seed).integers(1, 256, num_bytes, dtype=np.uint8)
    expected = np.zeros(tensor_map.box_bytes, dtype=np.uint8)
    size = tensor_map.element_bytes
    for there, here in elements(tensor_map, coordinates):
        if here is not None:
            expected[there : there + size] = array[here : here + size]
    box = load_box(tensor_map, mapped(array), coordinates)
    assert box.shape == (prod(tensor_map.box[1:]), tensor_map.row_bytes)
    assert (box.ravel() == expected).all()


@settings(max_examples=300)
@given(copies(), st.integers(0, 2**32))
def test_store_equals_a_loop_over_elements(
    copy: tuple[TensorMap, int, tuple[int, ...]], seed: int
) -> None:
    tensor_map, num_bytes, coordinates = copy
    shape = tensor_map.rows, tensor_map.row_bytes
    values = np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)
    array = np.zeros(num_bytes, dtype=np.uint8)
    size = tensor_map.element_bytes
    if min(coordinates) < 0 or tensor_map.dims[0] * size % 16:
        with pytest.raises(HazardError, match="^R14"):
            store_box(tensor_map, mapped(array), coordinates, values)
        assert not array.any()
        return
    expected = array.copy()
    for there, here in elements(tensor_map, coordinates):
        if here is not None:
            expected[here : here + size] = values.ravel()[there : there + size]
    store_box(tensor_map, mapped(array), coordinates, values)
    assert (array == expected).all()


@pytest.mark.parametrize("swizzle", FLIPS)
def test_round_trip_through_shared_memory(swizzle: int) -> None:
    width = WIDTHS[swizzle]
    tensor_map = matrix_map(
        dims=(192, 21), strides=(192,), box=(width, 8), swizzle=swizzle, address=BASE
    )
    source = np.random.default_rng(0).integers(0, 256, 192 * 21, dtype=np.uint8)
    target = np.zeros_like(source)
    shared = SharedMemory(8 * 1024)
    where = swizzled_offsets(tensor_map, 1024 + 256)
    for column, row in product(range(0, 192, width), range(0, 21, 8)):
        shared.poison(where)
        shared.land(where, load_box(tensor_map, mapped(source), (column, row)), 0)
        box, defined = shared.read_async(where), shared.is_defined(where)
        store_box(tensor_map, mapped(target), (column, row), box, defined)
    assert (target == source).all()


def test_store_to_rows_that_tma_cannot_cut() -> None:
    """130 BF16 columns: an H100 writes 136."""
    array = np.zeros(272 * 40, dtype=np.uint8)
    ragged = matrix_map(dtype=BFLOAT16, dims=(130, 40), strides=(272,), box=(64, 8))
    with pytest.raises(HazardError, match="^R14.*260 bytes"):
        store_box(ragged, mapped(array), (0, 0), np.ones((8, 128), dtype=np.uint8))
    assert load_box(ragged, mapped(array), (128, 0)).shape == (8, 128)


def test_store_of_undefined_bytes() -> None:
    array = np.zeros(256 * 40, dtype=np.uint8)
    defined = np.ones((8, 128), dtype=np.bool_)
    defined[5, 17] = False
    values = np.ones((8, 128), dtype=np.uint8)
    address = BASE + (30 + 5) * 256 + 128 + 17
    with pytest.raises(HazardError, match=f"^R26.*{address:#x}, byte 17 of row 5"):
        store_box(matrix_map(), mapped(array), (128, 30), values, defined)
    assert not array.any()
    # The rows from 40 on are outside of the tensor.
    store_box(matrix_map(), mapped(array), (128, 35), values, defined)
    assert array.sum() == 5 * 128


def test_tensor_larger_than_its_buffer() -> None:
    memory = mapped(np.zeros(256 * 39, dtype=np.uint8))
    assert load_box(matrix_map(), memory, (0, 31)).shape == (8, 128)
    with pytest.raises(HazardError, match="^bounds"):
        load_box(matrix_map(), memory, (0, 32))
