"""Kernels in Gluon, Triton's lower language: what Triton does not make by itself.

CTA pairs, operands in tensor memory, and all shapes of tcgen05.ld and tcgen05.st. Compiled by
generate.py into the PTX texts beside this file.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.blackwell import (
    TensorMemoryLayout,
    TensorMemoryScalesLayout,
    allocate_tensor_memory,
    fence_async_shared,
    mbarrier,
    tcgen05_commit,
    tcgen05_copy,
    tcgen05_mma,
    tcgen05_mma_scaled,
    tma,
)


@gluon.jit
def pair_dot(
    a_map,
    b_map,
    d_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
):
    """D = A @ B.T in BF16 by pairs of CTAs; the even one has the mbarrier of both's loads."""
    m = gl.program_id(0) % num_m_blocks * BLOCK_M
    n = gl.program_id(0) // num_m_blocks * BLOCK_N
    a = gl.allocate_shared_memory(a_map.dtype, [BLOCK_M, BLOCK_K], a_map.layout)
    b = gl.allocate_shared_memory(b_map.dtype, [BLOCK_N, BLOCK_K], b_map.layout)
    full = mbarrier.allocate_mbarrier(two_ctas=True)
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(full, count=1)
    mbarrier.init(done, count=1)
    layout: gl.constexpr = TensorMemoryLayout(
        [BLOCK_M // 2, BLOCK_N], col_stride=1, cga_layout=[[1, 0]], two_ctas=True
    )
    d = allocate_tensor_memory(gl.float32, [BLOCK_M, BLOCK_N], layout)
    for k in range(num_k_blocks):
        mbarrier.expect(full, a_map.nbytes_per_cta + b_map.nbytes_per_cta)
        tma.async_load(a_map, [m, k * BLOCK_K], full, a)
        tma.async_load(b_map, [n, k * BLOCK_K], full, b)
        mbarrier.wait(full, k & 1)
        tcgen05_mma(a, b.permute((1, 0)), d, use_acc=k > 0)
        tcgen05_commit(done)
        mbarrier.wait(done, k & 1)
    mbarrier.invalidate(full)
    mbarrier.invalidate(done)
    out = gl.allocate_shared_memory(d_map.dtype, [BLOCK_M, BLOCK_N], d_map.layout)
    out.store(d.load().to(gl.bfloat16))
    fence_async_shared()
    tma.async_store(d_map, [m, n], out)
    tma.store_wait(0)


@gluon.jit
def _as_rows(scales, ROWS: gl.constexpr, BLOCK_K: gl.constexpr):
    """Scale factors in blocks of 128 rows by 4 as a matrix."""
    blocks = scales.reshape((scales.shape[1], scales.shape[2], 32, 4, 4))
    return blocks.permute((0, 3, 2, 1, 4)).reshape((ROWS, BLOCK_K // 32))


@gluon.jit
def scaled_pair_dot(
    a_map,
    b_map,
    d_map,
    sfa_map,
    sfb_map,
    num_m_blocks,
    num_k_blocks,
    BLOCK_M: gl.constexpr,
    BLOCK_N: gl.constexpr,
    BLOCK_K: gl.constexpr,
):
    """pair_dot with scale factors through tcgen05.cp; each CTA has all of B's."""
    m, n = gl.program_id(0) % num_m_blocks, gl.program_id(0) // num_m_blocks
    a = gl.allocate_shared_memory(a_map.dtype, [BLOCK_M, BLOCK_K], a_map.layout)
    b = gl.allocate_shared_memory(b_map.dtype, [BLOCK_N, BLOCK_K], b_map.layout)
    sfa = gl.allocate_shared_memory(sfa_map.dtype, sfa_map.block_shape, sfa_map.layout)
    sfb = gl.allocate_shared_memory(sfb_map.dtype, sfb_map.block_shape, sfb_map.layout)
    full = mbarrier.allocate_mbarrier(two_ctas=True)
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(full, count=1)
    mbarrier.init(done, count=1)
    layout: gl.constexpr = TensorMemoryLayout(
        [BLOCK_M // 2, BLOCK_N], col_stride=1, cga_layout=[[1, 0]], two_ctas=True
    )
    of_a: gl.constexpr = TensorMemoryScalesLayout(cga_layout=[[1, 0]])
    of_b: gl.constexpr = TensorMemoryScalesLayout(cga_layout=[[0, 0]])
    d = allocate_tensor_memory(gl.float32, [BLOCK_M, BLOCK_N], layout)
    scale_a = allocate_tensor_memory(gl.uint8, [BLOCK_M, BLOCK_K // 32], of_a)
    scale_b = allocate_tensor_memory(gl.uint8, [BLOCK_N, BLOCK_K // 32], of_b)
    for k in range(num_k_blocks):
        of_scales: gl.constexpr = sfa_map.nbytes_per_cta + sfb_map.nbytes_per_cta
        mbarrier.expect(full, a_map.nbytes_per_cta + b_map.nbytes_per_cta + of_scales)
        tma.async_load(a_map, [m * BLOCK_M, k * BLOCK_K], full, a)
        tma.async_load(b_map, [n * BLOCK_N, k * BLOCK_K], full, b)
        K: gl.constexpr = BLOCK_K // 128
        tma.async_load(sfa_map, [0, m * (BLOCK_M // 128), k * K, 0, 0], full, sfa)
        tma.async_load(sfb_map, [0, n * (BLOCK_N // 128), k * K, 0, 0], full, sfb)
        mbarrier.wait(full, k & 1)
        tcgen05_copy(_as_rows(sfa, BLOCK_M, BLOCK_K), scale_a)
        tcgen05_copy(_as_rows(sfb, BLOCK_N, BLOCK_K), scale_b)
        rows_of_b = b.permute((1, 0))
        tcgen05_mma_scaled(a, rows_of_b, d, scale_a, scale_b, "e4m3", "e4m3", use_acc=k > 0)
        tcgen05_commit(done)
        mbarrier.wait(done, k & 1)
    mbarrier.invalidate(full)
    mbarrier.invalidate(done)
    out = gl.allocate_shared_memory(d_map.dtype, [BLOCK_M, BLOCK_N], d_map.layout)
    out.store(d.load().to(gl.bfloat16))
    fence_async_shared()
    tma.async_store(d_map, [m * BLOCK_M, n * BLOCK_N], out)
    tma.store_wait(0)


@gluon.jit
def dot_from_tensor_memory(x, b_map, d, BLOCK_N: gl.constexpr, BLOCK_K: gl.constexpr):
    """D = X @ B.T in FP32, for X [128, k] in BF16, which goes to tensor memory by tcgen05.st."""
    rows: gl.constexpr = TensorMemoryLayout([128, BLOCK_K], col_stride=1)
    layout: gl.constexpr = TensorMemoryLayout([128, BLOCK_N], col_stride=1)
    a = allocate_tensor_memory(gl.bfloat16, [128, BLOCK_K], rows)
    accum = allocate_tensor_memory(gl.float32, [128, BLOCK_N], layout)
    of_a: gl.constexpr = a.get_reg_layout(num_warps=4)
    row = gl.arange(0, 128, layout=gl.SliceLayout(1, of_a))
    column = gl.arange(0, BLOCK_K, layout=gl.SliceLayout(0, of_a))
    a.store(gl.load(x + row[:, None] * BLOCK_K + column[None, :]))
    b = gl.allocate_shared_memory(b_map.dtype, [BLOCK_N, BLOCK_K], b_map.layout)
    full = mbarrier.allocate_mbarrier()
    done = mbarrier.allocate_mbarrier()
    mbarrier.init(full, count=1)
    mbarrier.init(done, count=1)
    mbarrier.expect(full, b_map.nbytes_per_cta)
    tma.async_load(b_map, [0, 0], full, b)
    mbarrier.wait(full, 0)
    tcgen05_mma(a, b.permute((1, 0)), accum, use_acc=False)
    tcgen05_commit(done)
    mbarrier.wait(done, 0)
    of_d: gl.constexpr = accum.get_reg_layout(num_warps=4)
    row_d = gl.arange(0, 128, layout=gl.SliceLayout(1, of_d))
    column_d = gl.arange(0, BLOCK_N, layout=gl.SliceLayout(0, of_d))
    gl.store(d + row_d[:, None] * BLOCK_N + column_d[None, :], accum.load(of_d))


@gluon.jit
def _through(x, y, cells, columns: gl.constexpr, STORE: gl.constexpr, LOAD: gl.constexpr):
    stored: gl.constexpr = cells.get_reg_layout(num_warps=4, instr_variant=STORE)
    row = gl.arange(0, 128, layout=gl.SliceLayout(1, stored))
    column = gl.arange(0, columns, layout=gl.SliceLayout(0, stored))
    cells.store(gl.load(x + row[:, None] * columns + column[None, :]))
    loaded: gl.constexpr = cells.get_reg_layout(num_warps=4, instr_variant=LOAD)
    row_y = gl.arange(0, 128, layout=gl.SliceLayout(1, loaded))
    column_y = gl.arange(0, columns, layout=gl.SliceLayout(0, loaded))
    gl.store(y + row_y[:, None] * columns + column_y[None, :], cells.load(loaded))


@gluon.jit
def copies_through_tensor_memory(x, y, COLUMNS: gl.constexpr):
    """y = x five times, [5, 128, columns], each time in another shape in and out."""
    layout: gl.constexpr = TensorMemoryLayout([128, COLUMNS], col_stride=1)
    cells = allocate_tensor_memory(gl.float32, [128, COLUMNS], layout)
    size: gl.constexpr = 128 * COLUMNS
    _through(x, y, cells, COLUMNS, "32x32b", "16x64b")
    _through(x + size, y + size, cells, COLUMNS, "16x64b", "16x128b")
    _through(x + 2 * size, y + 2 * size, cells, COLUMNS, "16x128b", "16x256b")
    _through(x + 3 * size, y + 3 * size, cells, COLUMNS, "16x256b", "32x32b")
    _through(x + 4 * size, y + 4 * size, cells, COLUMNS, "32x32b", "32x32b")
