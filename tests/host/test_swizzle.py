"""Address arithmetic of csrc/layout, compiled for the host, against what the hardware does."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.host.layouts import accumulator_fragment, tma_swizzle

WIDTHS = (32, 64, 128)

HARNESS = """
#include "layout/accumulator.cuh"
#include "layout/swizzle.cuh"

using namespace deep_gemm;

static_assert(swizzle<128>(1024 + 128) == 1024 + 128 + 16, "usable in constant expressions");

extern "C" {
uint32_t swizzle_32(uint32_t offset) { return swizzle<32>(offset); }
uint32_t swizzle_64(uint32_t offset) { return swizzle<64>(offset); }
uint32_t swizzle_128(uint32_t offset) { return swizzle<128>(offset); }
int row_of(int thread) { return accumulator_row(thread); }
}
"""


@pytest.fixture(scope="module")
def library(host_compiler: Callable[..., ctypes.CDLL]) -> ctypes.CDLL:
    return host_compiler(HARNESS)


def swizzle(library: ctypes.CDLL, width: int, offsets: np.ndarray) -> np.ndarray:
    function = getattr(library, f"swizzle_{width}")
    function.restype = ctypes.c_uint32
    return np.array([function(int(offset)) for offset in offsets.flat]).reshape(offsets.shape)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("rows", [8, 64, 256])
def test_a_tile_is_permuted_in_chunks_of_16_bytes(
    library: ctypes.CDLL, width: int, rows: int
) -> None:
    offsets = np.arange(rows * width)
    swizzled = swizzle(library, width, offsets)
    assert (np.sort(swizzled) == offsets).all()
    assert (swizzled % 16 == offsets % 16).all()
    assert (swizzled // 128 == offsets // 128).all()
    assert (swizzle(library, width, swizzled) == offsets).all()


@pytest.mark.parametrize("width", WIDTHS)
@given(offset=st.integers(0, 2**18 - 1))
def test_it_is_what_tma_does(library: ctypes.CDLL, width: int, offset: int) -> None:
    address = np.array([offset])
    assert swizzle(library, width, address) == tma_swizzle(address, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_column_of_eight_rows_has_no_bank_conflict(library: ctypes.CDLL, width: int) -> None:
    rows, chunks = np.ogrid[:64, : width // 16]
    swizzled = swizzle(library, width, rows * width + chunks * 16)
    bank_groups = swizzled // 16 % 8
    columns = bank_groups.reshape(8, 8, -1)
    assert (np.sort(columns, axis=1) == np.arange(8)[None, :, None]).all()


def test_the_accumulator_rows_of_a_warpgroup(library: ctypes.CDLL) -> None:
    rows, _ = accumulator_fragment(8)
    found = np.array([library.row_of(thread) for thread in range(128)])
    assert (found == rows[:, 0]).all()
    assert (found + 8 == rows[:, 2]).all()
    first_lanes = found[::4]
    assert sorted([*first_lanes, *(first_lanes + 8)]) == list(range(64))


def test_the_fragment_covers_each_element_once() -> None:
    for n in range(8, 257, 8):
        rows, columns = accumulator_fragment(n)
        assert sorted((rows * n + columns).flat) == list(range(64 * n))
