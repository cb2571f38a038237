"""What the hardware does with addresses and fragments, written from its documentation."""

from __future__ import annotations

import numpy as np


def tma_swizzle(address: np.ndarray, width: int) -> np.ndarray:
    """TMA's swizzle of 32, 64 or 128 bytes: bit 4 is XORed with bit 7, bit 5 with 8, 6 with 9."""
    num_bits = {32: 1, 64: 2, 128: 3}[width]
    for bit in range(num_bits):
        address = address ^ (((address >> (7 + bit)) & 1) << (4 + bit))
    return address


def accumulator_fragment(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each register of a WGMMA's 64 x n accumulator: two [128, n / 2] arrays.

    Register 4j + 2h + i of thread 32w + l holds row 16w + l/4 + 8h, column 8j + 2(l%4) + i.
    """
    thread, register = np.ogrid[:128, : n // 2]
    warp, lane = thread // 32, thread % 32
    j, h, i = register // 4, register // 2 % 2, register % 2
    rows, columns = 16 * warp + lane // 4 + 8 * h, 8 * j + 2 * (lane % 4) + i
    return np.broadcast_arrays(rows, columns)
