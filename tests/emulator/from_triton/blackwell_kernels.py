"""Triton kernels for Blackwell, compiled by generate.py into the PTX texts beside this file."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dot_of_rows(
    a_map,
    b_map,
    d_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """D = A @ B.T in BF16, for A [m, k] and B [n, k]."""
    m = tl.program_id(0) % num_m_blocks * BLOCK_M
    n = tl.program_id(0) // num_m_blocks * BLOCK_N
    accum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k_block in range(num_k_blocks):
        a = a_map.load([m, k_block * BLOCK_K])
        b = b_map.load([n, k_block * BLOCK_K])
        accum = tl.dot(a, b.T, accum)
    d_map.store([m, n], accum.to(tl.bfloat16))


@triton.jit
def dot_of_columns(
    a_map,
    b_map,
    d_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """D = A.T @ B in BF16, for A [k, m] and B [k, n]: both operands MN-major."""
    m = tl.program_id(0) % num_m_blocks * BLOCK_M
    n = tl.program_id(0) // num_m_blocks * BLOCK_N
    accum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k_block in range(num_k_blocks):
        a = a_map.load([k_block * BLOCK_K, m])
        b = b_map.load([k_block * BLOCK_K, n])
        accum = tl.dot(a.T, b, accum)
    d_map.store([m, n], accum.to(tl.bfloat16))


@triton.jit
def scaled_dot(
    a_map,
    b_map,
    d_map,
    sfa,
    sfb,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """dot_of_rows with UE8M0 scale factors [m, k / 32] and [n, k / 32]."""
    m = tl.program_id(0) % num_m_blocks * BLOCK_M
    n = tl.program_id(0) // num_m_blocks * BLOCK_N
    rows, columns = m + tl.arange(0, BLOCK_M), n + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K // 32)
    stride = num_k_blocks * (BLOCK_K // 32)
    accum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k_block in range(num_k_blocks):
        a = a_map.load([m, k_block * BLOCK_K])
        b = b_map.load([n, k_block * BLOCK_K])
        at = k_block * (BLOCK_K // 32) + k
        scale_a = tl.load(sfa + rows[:, None] * stride + at[None, :])
        scale_b = tl.load(sfb + columns[:, None] * stride + at[None, :])
        accum = tl.dot_scaled(a, scale_a, "e4m3", b.T, scale_b, "e4m3", accum)
    d_map.store([m, n], accum.to(tl.bfloat16))


@triton.jit
def scaled_dot_in_blocks(
    a_map,
    b_map,
    d_map,
    sfa_map,
    sfb_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """scaled_dot with scale factors in blocks of 128 rows by 4, as tcgen05.cp wants them."""
    m, n = tl.program_id(0) % num_m_blocks, tl.program_id(0) // num_m_blocks
    M: tl.constexpr = BLOCK_M // 128
    N: tl.constexpr = BLOCK_N // 128
    K: tl.constexpr = BLOCK_K // 128
    accum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k_block in range(num_k_blocks):
        a = a_map.load([m * BLOCK_M, k_block * BLOCK_K])
        b = b_map.load([n * BLOCK_N, k_block * BLOCK_K])
        scale_a = sfa_map.load([0, m * M, k_block * K, 0, 0]).reshape(M, K, 32, 4, 4)
        scale_b = sfb_map.load([0, n * N, k_block * K, 0, 0]).reshape(N, K, 32, 4, 4)
        scale_a = scale_a.trans(0, 3, 2, 1, 4).reshape(BLOCK_M, BLOCK_K // 32)
        scale_b = scale_b.trans(0, 3, 2, 1, 4).reshape(BLOCK_N, BLOCK_K // 32)
        accum = tl.dot_scaled(a, scale_a, "e4m3", b.T, scale_b, "e4m3", accum)
    d_map.store([m * BLOCK_M, n * BLOCK_N], accum.to(tl.bfloat16))
