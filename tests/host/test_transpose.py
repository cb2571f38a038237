"""The transposing kernel: its tile in shared memory, its source, and what its callers refuse."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable

import pytest
import torch

from deep_gemm import ArgumentError
from deep_gemm.kernels.transpose import (
    NUM_THREADS,
    SMEM_BYTES,
    TILE_ROW_BYTES,
    TILE_ROWS,
    generate_transpose,
    k_major,
    mn_major,
    strides_of_batch,
)
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

CODE = """
#include "kernels/transpose.cuh"

extern "C" unsigned offset_of(int element_bytes, unsigned row, unsigned column) {
    if (element_bytes == 1) return deep_gemm::TransposeTile<1>::offset(row, column);
    return deep_gemm::TransposeTile<4>::offset(row, column);
}
"""

NUM_BANKS = 32

each_size = pytest.mark.parametrize("element_bytes", [1, 4])


@pytest.fixture(scope="module")
def tile(host_compiler: Callable[..., ctypes.CDLL]) -> ctypes.CDLL:
    return host_compiler(CUDA_ON_HOST + CODE, *CUDA_ON_HOST_FLAGS)


def check_no_conflict(offsets: list[int], num_bytes: int) -> None:
    """The threads that share one wavefront touch every bank once."""
    at_once = 128 // num_bytes
    for first in range(0, len(offsets), at_once):
        words = [
            offset // 4 + word
            for offset in offsets[first : first + at_once]
            for word in range(num_bytes // 4)
        ]
        assert all(offset % num_bytes == 0 for offset in offsets)
        assert set(Counter(word % NUM_BANKS for word in words).values()) == {1}


@each_size
def test_every_element_has_a_place_of_its_own(tile: ctypes.CDLL, element_bytes: int) -> None:
    columns = TILE_ROW_BYTES // element_bytes
    places = {
        tile.offset_of(element_bytes, row, column)
        for row in range(TILE_ROWS)
        for column in range(columns)
    }
    assert places == set(range(0, SMEM_BYTES, element_bytes))


@each_size
def test_four_rows_of_a_column_are_one_access_without_conflicts(
    tile: ctypes.CDLL, element_bytes: int
) -> None:
    """A thread writes four rows of each of its columns, at a distance that does not vary."""
    vector = 16 // element_bytes
    for warp in range(NUM_THREADS // 32):
        threads = range(32 * warp, 32 * warp + 32)
        blocks = [(thread // 8 * 4, thread % 8 * vector) for thread in threads]
        for i in range(vector):
            places = [tile.offset_of(element_bytes, row, column + i) for row, column in blocks]
            check_no_conflict(places, 4 * element_bytes)
            first = [tile.offset_of(element_bytes, *block) for block in blocks]
            column_bytes = TILE_ROWS * element_bytes
            assert places == [offset + i * column_bytes for offset in first]


@each_size
def test_a_column_is_read_in_vectors_without_conflicts(
    tile: ctypes.CDLL, element_bytes: int
) -> None:
    vector = 16 // element_bytes
    for column in range(TILE_ROW_BYTES // element_bytes):
        rows = range(0, TILE_ROWS, vector)
        places = [tile.offset_of(element_bytes, row, column) for row in rows]
        check_no_conflict(places, 16)
        for row, place in zip(rows, places, strict=True):
            elements = [tile.offset_of(element_bytes, row + i, column) for i in range(vector)]
            assert elements == list(range(place, place + 16, element_bytes))


@each_size
def test_the_kernel_s_name_says_what_it_does(element_bytes: int) -> None:
    source = generate_transpose(element_bytes, "90a")
    assert source.entry == source.name == f"transpose_{8 * element_bytes}bit"
    assert f" {source.entry}(" in source.text


def test_a_dimension_of_one_never_costs_the_vectors() -> None:
    """Its stride means nothing, and odd ones would look misaligned to the kernel."""
    assert strides_of_batch(torch.empty(64, 32)) == (0, 32, 1)
    assert strides_of_batch(torch.empty(64).as_strided((1, 2, 16), (5, 32, 1))) == (0, 32, 1)
    assert strides_of_batch(torch.empty(64).as_strided((2, 1, 16), (32, 5, 1))) == (32, 0, 1)
    assert strides_of_batch(torch.empty(64).as_strided((2, 2, 1), (32, 16, 5))) == (32, 16, 1)


def test_what_k_major_refuses() -> None:
    x = torch.zeros(2, 32, 32).to(torch.float8_e4m3fn)
    refusals = [
        (x.float()[0].T, r"b\[0\]: must have dtype torch.float8_e4m3fn, got torch.float32"),
        (x[0, 0], r"b\[0\]: must have 2 or 3 dimensions, got shape \(32,\)"),
        (x[0, ::2, ::2], r"b\[0\]: must be contiguous along .*, got strides \(64, 2\)"),
        (x.permute(1, 0, 2)[..., ::2], r"b\[0\]: must be contiguous .*strides \(32, 1024, 2\)"),
    ]
    for argument, text in refusals:
        with pytest.raises(ArgumentError, match=text):
            k_major("b[0]", argument)


def test_what_mn_major_refuses() -> None:
    with pytest.raises(ArgumentError, match="sf: must have dtype torch.float32, got torch.int32"):
        mn_major(torch.zeros(4, 4, dtype=torch.int32))
    with pytest.raises(ArgumentError, match=r"sf: must have 2 or 3 dimensions, got shape \(4,\)"):
        mn_major(torch.zeros(4))
