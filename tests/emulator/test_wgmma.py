"""WGMMA's descriptors and fragments against slow models of their own."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.wgmma import accumulator_rows_columns, decode_descriptor, operand_offsets

K = 32
LAYOUT_CODES = {0: 0, 128: 1, 64: 2, 32: 3}


@pytest.mark.parametrize("n", [8, 16, 40, 256])
def test_fragments_cover_the_result_once(n: int) -> None:
    rows, columns = accumulator_rows_columns(n)
    assert rows.shape == columns.shape == (128, n // 2)
    assert sorted(set(zip(rows.flat, columns.flat, strict=True))) == [
        (i, j) for i in range(64) for j in range(n)
    ]


def test_fragment_of_one_thread() -> None:
    """Lane 6 of warp 2: row 32 + 1, columns 4 and 5, then 8 rows and then 8 columns on."""
    rows, columns = accumulator_rows_columns(16)
    assert rows[2 * 32 + 6].tolist() == [33, 33, 41, 41] * 2
    assert columns[2 * 32 + 6].tolist() == [4, 5, 4, 5, 12, 13, 12, 13]


@pytest.mark.parametrize("n", [0, 4, 12, 264])
def test_no_such_shape(n: int) -> None:
    with pytest.raises(EmulationError, match=f"multiple of 8 from 8 to 256, got {n}"):
        accumulator_rows_columns(n)


def encode(start: int, sbo: int, lbo: int, swizzle_bytes: int) -> int:
    return start >> 4 | lbo >> 4 << 16 | sbo >> 4 << 32 | LAYOUT_CODES[swizzle_bytes] << 62


def test_decode_descriptor_of_a_real_kernel() -> None:
    """The constant that NVRTC's PTX of our kernel adds to an address, here 0x2460."""
    decoded = decode_descriptor(4611686293305294848 | 0x246)
    assert (decoded.start, decoded.lbo, decoded.sbo) == (0x2460, 0, 1024)
    assert (decoded.base_offset, decoded.layout, decoded.swizzle_bytes) == (0, 1, 128)


def test_decode_descriptor_with_all_fields_full() -> None:
    decoded = decode_descriptor(0x3FFF | 0x3FFF << 16 | 0x3FFF << 32 | 7 << 49 | 3 << 62)
    assert (decoded.start, decoded.lbo, decoded.sbo) == (0x3FFF0,) * 3
    assert (decoded.base_offset, decoded.layout) == (7, 3)


@pytest.mark.parametrize("bit", [14, 15, 30, 31, 46, 48, 52, 61])
def test_reserved_bits_are_refused(bit: int) -> None:
    with pytest.raises(HazardError, match=rf"reserved bits must be 0: {bit}$") as caught:
        decode_descriptor(encode(1024, 1024, 0, 128) | 1 << bit)
    assert caught.value.rule == "R16"


def tma_address(address: int, swizzle_bytes: int) -> int:
    """TMA's swizzle, bit by bit: A[4 + i] ^= A[7 + i]."""
    for i in range({0: 0, 32: 1, 64: 2, 128: 3}[swizzle_bytes]):
        address ^= (address >> (7 + i) & 1) << (4 + i)
    return address


def load_by_tma(tile: np.ndarray, smem: np.ndarray, base: int, swizzle_bytes: int) -> None:
    """Writes tile [rows, bytes of K] as boxes of the swizzle's width, one behind the other."""
    rows, k_bytes = tile.shape
    width = swizzle_bytes or 16
    for i in range(rows):
        for k in range(k_bytes):
            box, within = divmod(k, width)
            dense = base + box * rows * width + i * width + within
            smem[tma_address(dense, swizzle_bytes)] = tile[i, k]


@pytest.mark.parametrize("base", [0, 1024, 5 * 1024])
@pytest.mark.parametrize("rows", [8, 64, 72])
@pytest.mark.parametrize("swizzle_bytes", [0, 32, 64, 128])
def test_offsets_find_what_tma_wrote(swizzle_bytes: int, rows: int, base: int) -> None:
    tile = np.random.default_rng(rows).integers(0, 2**16, (rows, 128), dtype=np.uint16)
    smem = np.full(base + tile.size + 1024, -1, dtype=np.int32)
    load_by_tma(tile, smem, base, swizzle_bytes)
    width = swizzle_bytes or 16
    for k in range(0, 128, K):
        start = base + k // width * rows * width + k % width
        desc = encode(start, 8 * width, 0 if swizzle_bytes else rows * width, swizzle_bytes)
        offsets = operand_offsets(decode_descriptor(desc), rows, K)
        np.testing.assert_array_equal(smem[offsets], tile[:, k : k + K])


@pytest.mark.parametrize("swizzle_bytes", [32, 64, 128])
def test_tile_off_its_pattern_is_refused(swizzle_bytes: int) -> None:
    for start in (1024 + swizzle_bytes, 1024 + swizzle_bytes - 16, 1024 + 4 * swizzle_bytes):
        decoded = decode_descriptor(encode(start, 8 * swizzle_bytes, 0, swizzle_bytes))
        with pytest.raises(HazardError, match=f"got start address {start:#x}") as caught:
            operand_offsets(decoded, 64, K)
        assert caught.value.rule == "R15"


def test_base_offset_is_refused() -> None:
    decoded = decode_descriptor(encode(1024 + 256, 1024, 0, 128) | 2 << 49)
    with pytest.raises(EmulationError, match="only base offset 0 is modelled, got 2"):
        operand_offsets(decoded, 64, K)
