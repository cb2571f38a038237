"""m-grouped masked products on a GPU: rows from masked_m on are neither read nor written."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import fp8_m_grouped_gemm_nt_masked, m_grouped_fp8_gemm_nt_masked
from deep_gemm.testing import assert_bitwise_equal
from tests.grouped_calls import check_masked, run_masked, valid_rows
from tests.grouped_operands import (
    POISONS,
    Operand,
    exact_operand,
    poison,
    random_operand,
    sf_layouts,
)

N, K = 264, 400


def operands(
    masked_m: list[int],
    m_max: int,
    n: int = N,
    k: int = K,
    kind: str = "nan",
    exact: bool = True,
) -> tuple[Operand, Operand]:
    make = exact_operand if exact else random_operand
    a = make((len(masked_m), m_max, k), 1, "cuda")
    poison(a, ~valid_rows(masked_m, m_max), kind)
    return a, make((len(masked_m), n, k), 128, "cuda", 1)


def run_exact(masked_m: list[int], m_max: int, n: int = N, k: int = K) -> None:
    a, b = operands(masked_m, m_max, n, k)
    for dtype in (torch.bfloat16, torch.float32):
        check_masked(run_masked(a, b, masked_m, dtype=dtype), a, b, masked_m)


@pytest.mark.parametrize("m_max", [1, 8, 16, 32, 63, 65, 130, 256])
def test_any_m_max(m_max: int) -> None:
    """DG#268, and commit 6da94d2: a block's store reached into the next group's rows."""
    run_exact([m_max, 1, 0, m_max // 2, m_max, max(m_max - 1, 0)], m_max)


@pytest.mark.parametrize("masked_m", [[0, 0, 0], [0, 0, 7], [7, 0, 0], [0, 200, 0]], ids=str)
def test_empty_groups(masked_m: list[int]) -> None:
    run_exact(masked_m, 200)


@pytest.mark.parametrize("num_groups", [1, 2, 31, 32, 33, 256, 1024])
def test_any_number_of_groups(num_groups: int) -> None:
    generator = torch.Generator().manual_seed(num_groups)
    run_exact(torch.randint(0, 41, (num_groups,), generator=generator).tolist(), 40, 136, 144)


@pytest.mark.parametrize("k", [16, 64, 128, 192, 384, 1152])
@pytest.mark.parametrize("n", [8, 24, 1000])
def test_odd_shapes(n: int, k: int) -> None:
    run_exact([100, 0, 130, 5], 130, n, k)


@pytest.mark.parametrize("expected_m", [1, 50, 128, 1000, 2**30])
def test_expected_m_is_only_a_hint(expected_m: int) -> None:
    masked_m = [300, 0, 1, 77]
    a, b = operands(masked_m, 300)
    check_masked(run_masked(a, b, masked_m, expected_m), a, b, masked_m)


@pytest.mark.parametrize("kind", POISONS)
def test_what_other_rows_hold_does_not_matter(kind: str) -> None:
    """vllm#49784, sglang#32385, sglang#32386, flashinfer#3650."""
    masked_m = [77, 0, 129, 3]
    a, b = operands(masked_m, 130, kind=kind)
    check_masked(run_masked(a, b, masked_m), a, b, masked_m)


@pytest.mark.parametrize("m_max", [6, 64, 130])
@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(2, 6, 3)))
def test_scale_factors_in_any_layout(layout_name: str, m_max: int) -> None:
    """Commits 6bc75b5, 7b6b556 (DG#140, DG#153), b69f630 (DG#23): several groups of rows that are
    no multiple of 4. vLLM's have strides of (m_max * k blocks, 1, m_max).
    """
    masked_m = [m_max, 0, m_max // 2]
    a, b = operands(masked_m, m_max)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    check_masked(run_masked(*laid_out, masked_m), a, b, masked_m)


def test_an_odd_number_of_blocks_along_n() -> None:
    """Commit 79f48ee: multicast needs an even number of blocks in all, m >= 512."""
    for n in (648, 904):
        run_exact([512, 600, 0, 513], 640, n, 528)


def test_model_shapes_are_close_and_repeat_bit_for_bit() -> None:
    """Commit 83aa960, and DG#160's shape: 4 groups, N 4096, K 7168."""
    masked_m = [1024, 3, 0, 700]
    a, b = operands(masked_m, 1024, 4096, 7168, exact=False)
    first = run_masked(a, b, masked_m).clone()
    check_masked(first, a, b, masked_m, exact=False)
    sizes = torch.tensor(masked_m, device="cuda", dtype=torch.int32)
    rows = valid_rows(masked_m, 1024).cuda()
    out = torch.empty_like(first)
    for _ in range(20):
        out.fill_(float("nan"))
        m_grouped_fp8_gemm_nt_masked(a, b, out, sizes, 512)
        assert_bitwise_equal(out[rows], first[rows])


def test_groups_may_lie_apart() -> None:
    """A, its scale factors and D as slices along the rows of larger ones."""
    masked_m = [33, 0, 64]
    (x, sfa), b = operands(masked_m, 64)
    wide = torch.full((3, 100, K), 0x7F, device="cuda", dtype=torch.uint8).view(x.dtype)
    wide_sf = torch.full((3, 100, sfa.shape[2]), float("nan"), device="cuda")
    wide_d = torch.full((3, 100, N), 7.0, device="cuda", dtype=torch.bfloat16)
    rows = slice(16, 80)
    wide[:, rows].copy_(x)
    wide_sf[:, rows].copy_(sfa)
    sizes = torch.tensor(masked_m, device="cuda", dtype=torch.int32)
    a = wide[:, rows], wide_sf[:, rows]
    m_grouped_fp8_gemm_nt_masked(a, b, wide_d[:, rows], sizes, 32)
    check_masked(wide_d[:, rows], (x, sfa), b, masked_m)
    valid = torch.zeros(3, 100, dtype=torch.bool, device="cuda")
    valid[:, rows] = valid_rows(masked_m, 64).cuda()
    assert (wide_d[~valid] == 7).all()


def test_sizes_out_of_range_are_clamped() -> None:
    a, b = operands([40, 40, 40], 40)
    d = torch.full((3, 40, N), 7.0, device="cuda", dtype=torch.bfloat16)
    sizes = torch.tensor([2**31 - 1, -5, 41], device="cuda", dtype=torch.int32)
    m_grouped_fp8_gemm_nt_masked(a, b, d, sizes, 32)
    check_masked(d[::2], *((t[0][::2], t[1][::2]) for t in (a, b)), [40, 40])
    assert (d[1] == 7).all()


def test_the_alias() -> None:
    assert fp8_m_grouped_gemm_nt_masked is m_grouped_fp8_gemm_nt_masked
