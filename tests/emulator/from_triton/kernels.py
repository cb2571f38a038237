"""Triton kernels, compiled by generate.py into the PTX texts beside this file."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def masked_sums(x, y, total, largest, size, factor, BLOCK: tl.constexpr):
    """y = factor * x + 1; total += sum(y); largest = max(largest, 1000 x); for any size."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    values = tl.load(x + at, mask=inside, other=0.0)
    scaled = values * factor + 1.0
    tl.store(y + at, scaled, mask=inside)
    tl.atomic_add(total, tl.sum(tl.where(inside, scaled, 0.0)))
    rounded = (values * 1000.0).to(tl.int32)
    tl.atomic_max(largest, tl.max(tl.where(inside, rounded, -(2**31))))


@triton.jit
def softmax(x, y, stride, size, BLOCK: tl.constexpr):
    """Softmax of each row of [programs, size]; rows are `stride` elements apart."""
    column = tl.arange(0, BLOCK)
    inside = column < size
    row = tl.program_id(0) * stride
    values = tl.load(x + row + column, mask=inside, other=-float("inf")).to(tl.float32)
    powers = tl.exp(values - tl.max(values, axis=0))
    result = powers / tl.sum(powers, axis=0)
    tl.store(y + row + column, result.to(tl.bfloat16), mask=inside)


@triton.jit
def cast_to_fp8(x, y, sf, rows, K: tl.constexpr, BLOCK: tl.constexpr):
    """Each row of [rows, K] times 448 / its largest magnitude, in e4m3; sf is the inverse."""
    row = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = row[:, None] * K + tl.arange(0, K)[None, :]
    inside = (row < rows)[:, None]
    values = tl.load(x + at, mask=inside, other=0.0)
    largest = tl.maximum(tl.max(tl.abs(values), axis=1), 1e-4)
    tl.store(sf + row, largest / 448.0, mask=row < rows)
    scaled = values * (448.0 / largest)[:, None]
    tl.store(y + at, scaled.to(tl.float8e4nv), mask=inside)


@triton.jit
def fp8_dot(
    a_map,
    b_map,
    d_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """D = A @ B.T in BF16, for A [m, k] and B [n, k] in e4m3; one block of D per program."""
    m = tl.program_id(0) % num_m_blocks * BLOCK_M
    n = tl.program_id(0) // num_m_blocks * BLOCK_N
    accum = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for k_block in range(num_k_blocks):
        a = a_map.load([m, k_block * BLOCK_K])
        b = b_map.load([n, k_block * BLOCK_K])
        accum = tl.dot(a, b.T, accum)
    d_map.store([m, n], accum.to(tl.bfloat16))
