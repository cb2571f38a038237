"""Grouped products whose operands or outputs have more than 2**31 elements: up to 8 GB each."""

from __future__ import annotations

import torch

from deep_gemm import (
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.testing import assert_bitwise_equal, by_row_group, fp8_gemm_nt_reference
from tests.grouped_calls import check_dense, mk_alignment
from tests.grouped_operands import exact_operand, flat_operand, row_ids


def sentinel(*shape: int) -> torch.Tensor:
    return torch.full(shape, float("nan"), device="cuda", dtype=torch.bfloat16)


def test_rows_of_a_contiguous_a_beyond_32_bits() -> None:
    k, rows = 16384, 2**31 // 16384 + 300
    layout = row_ids([(0, 200), (2, rows - 500), (1, 300)], 1)
    a, b = exact_operand((rows, k), 1, "cuda"), exact_operand((3, 16, k), 128, "cuda", 1)
    d = sentinel(rows, 16)
    with mk_alignment(1):
        m_grouped_fp8_gemm_nt_contiguous(a, b, d, layout.grouped_layout.cuda())
    assert not d.isnan().any()
    for part in (slice(0, 400), slice(rows - 500, rows)):
        groups = layout.row_groups[part].cuda()
        expected = by_row_group(fp8_gemm_nt_reference, (a[0][part], a[1][part]), b, groups)
        assert_bitwise_equal(d[part], expected.bfloat16())


def test_groups_of_a_contiguous_b_beyond_32_bits() -> None:
    num_groups, n, k = 1024, 520, 4224
    assert num_groups * n * k > 2**31
    b = exact_operand((num_groups, n, k), 128, "cuda", 1)
    a = exact_operand((num_groups, k), 1, "cuda")
    groups = torch.arange(num_groups, device="cuda", dtype=torch.int32)
    d = sentinel(num_groups, n)
    with mk_alignment(1):
        m_grouped_fp8_gemm_nt_contiguous(a, b, d, groups)
    assert_bitwise_equal(d, by_row_group(fp8_gemm_nt_reference, a, b, groups).bfloat16())


def test_a_contiguous_d_beyond_32_bits() -> None:
    """DG#22's sizes, in groups: m 73728, n 36864, k 128."""
    m, n, k = 73728, 36864, 128
    a, b = exact_operand((m, k), 1, "cuda"), exact_operand((3, n, k), 128, "cuda", 1)
    d = sentinel(m + 8, n)
    ends = torch.tensor([40_000, 40_000, m - 7], device="cuda", dtype=torch.int32)
    with mk_alignment(16):
        m_grouped_fp8_gemm_nt_contiguous(
            (a[0], a[1]), b, d[:m], ends, use_psum_layout=True, ensure_zero_padding=False
        )
    for group, part in ((0, slice(0, 130)), (0, slice(39_900, 40_000)), (2, slice(m - 200, m - 7))):
        check_dense(d[part], (a[0][part], a[1][part]), (b[0][group], b[1][group]))
    assert d[m - 7 :].isnan().all()


def test_a_masked_d_beyond_32_bits() -> None:
    num_groups, m_max, n, k = 33, 8192, 8200, 128
    assert num_groups * m_max * n > 2**31
    a = exact_operand((num_groups, m_max, k), 1, "cuda")
    b = exact_operand((num_groups, n, k), 128, "cuda", 1)
    d = sentinel(num_groups, m_max, n)
    masked_m = [0] * num_groups
    masked_m[0], masked_m[-1] = 5, m_max - 100
    sizes = torch.tensor(masked_m, device="cuda", dtype=torch.int32)
    m_grouped_fp8_gemm_nt_masked(a, b, d, sizes, 256)
    for group in (0, num_groups - 1):
        rows = masked_m[group]
        part = slice(max(0, rows - 300), rows)
        own = (a[0][group, part], a[1][group, part]), (b[0][group], b[1][group])
        check_dense(d[group, part], *own)
        assert d[group, rows:].isnan().all()
    assert d[1].isnan().all()


def test_a_k_grouped_a_beyond_32_bits() -> None:
    """Commits f63d7f2 and bb4424a: sum(k) * m past 2**31, here 300,032 * 7168."""
    m, n, ks = 7168, 128, [37_504] * 8
    assert m * sum(ks) > 2**31
    a, b = flat_operand(m, ks, "cuda"), flat_operand(n, ks, "cuda", 2)
    d = torch.full((8, m, n), float("nan"), device="cuda")
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    k_grouped_fp8_gemm_nt_contiguous(a, b, d, ks, sizes)
    assert not d.isnan().any()
    for group in (0, 7):
        first = sum(ks[:group])
        blocks = slice(first // 128, (first + ks[group]) // 128)
        own_a, own_b = (
            (
                data[rows * first : rows * (first + ks[group])].view(rows, -1)[-300:],
                sf[-300:, blocks],
            )
            for (data, sf), rows in ((a, m), (b, n))
        )
        check_dense(d[group, -300:], own_a, own_b, 1)


def test_a_k_grouped_d_beyond_32_bits() -> None:
    m, n, ks = 4104, 4096, [128] * 128
    assert m * n * len(ks) > 2**31
    a, b = flat_operand(m, ks, "cuda"), flat_operand(n, ks, "cuda", 2)
    d = torch.full((128, m, n), float("nan"), device="cuda", dtype=torch.bfloat16)
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    k_grouped_fp8_gemm_nt_contiguous(a, b, d, None, sizes)
    for group in (0, 127):
        own = (
            (
                data[rows * group * 128 : rows * (group + 1) * 128].view(rows, 128),
                sf[:, group : group + 1],
            )
            for (data, sf), rows in ((a, m), (b, n))
        )
        check_dense(d[group], *own, 1)
    assert not d[:, -1].isnan().any()
