"""fp8_gemm_nt on a GPU: right in every element, within its output, on any legal input."""

from __future__ import annotations

import pytest
import torch
from operands import check_close, check_exact, integer_operands, random_operands, run_guarded

from deep_gemm import fp8_gemm_nt
from deep_gemm.testing import assert_bitwise_equal

DEEPSEEK_V3 = [(2112, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 2048)]
ODD_SHAPES = [
    *[(64, 128, k) for k in (16, 64, 112, 128, 144, 192, 256, 384, 576, 1152)],
    *[(65, n, 256) for n in (8, 16, 24, 120, 136, 264, 1000, 2120)],
    (576, 16, 7168),
    (300, 136, 272),
    (1, 8, 16),
    (4099, 520, 384),
    (33, 8192, 8192),
]


@pytest.mark.parametrize("m", range(1, 131))
def test_every_small_m_is_exact(m: int) -> None:
    a, b = integer_operands(m, 272, 400)
    check_exact(run_guarded(a, b), a, b)


@pytest.mark.parametrize(("m", "n", "k"), ODD_SHAPES)
def test_odd_shapes_are_exact(m: int, n: int, k: int) -> None:
    a, b = integer_operands(m, n, k)
    check_exact(run_guarded(a, b), a, b)


@pytest.mark.parametrize(("n", "k"), DEEPSEEK_V3)
@pytest.mark.parametrize("m", [1, 16, 64, 128, 512, 4096])
def test_model_shapes_are_close(m: int, n: int, k: int) -> None:
    a, b = random_operands(m, n, k)
    check_close(run_guarded(a, b), a, b)


@pytest.mark.parametrize("m", [1, 7, 130])
def test_scale_factors_are_taken_in_any_layout(m: int) -> None:
    (x, sfa), (y, sfb) = integer_operands(m, 272, 640)
    wide = torch.full((m + 5, 23), float("nan"), device="cuda")
    wide[2 : 2 + m, 3 : 3 + 2 * sfa.shape[1] : 2] = sfa
    layouts = {
        "row-major": sfa,
        "MN-major": sfa.T.contiguous().T,
        "slice": wide[2 : 2 + m, 3 : 3 + 2 * sfa.shape[1] : 2],
    }
    for layout in layouts.values():
        for sfb_layout in (sfb, sfb.T.contiguous().T):
            d = run_guarded((x, layout), (y, sfb_layout))
            check_exact(d, (x, sfa), (y, sfb))


def test_rows_may_be_strided() -> None:
    (x, sfa), (y, sfb) = integer_operands(100, 272, 400)

    def widened(data: torch.Tensor) -> torch.Tensor:
        rows, columns = data.shape
        buffer = torch.full((rows, columns + 48), float("nan"), device="cuda")
        wide = buffer.to(torch.float8_e4m3fn)
        wide[:, 16 : 16 + columns] = data
        return wide[:, 16 : 16 + columns]

    d = run_guarded((widened(x), sfa), (widened(y), sfb), row_stride=512)
    check_exact(d, (x, sfa), (y, sfb))


def test_columns_may_be_sliced_off() -> None:
    (x, sfa), (y, sfb) = integer_operands(70, 136, 256)
    a, b = (x[:, :208], sfa), (y[:, :208], sfb)
    check_exact(run_guarded(a, b, row_stride=144), a, b)


def test_nan_stays_in_its_row_and_column() -> None:
    a, b = integer_operands(130, 272, 400)
    clean = run_guarded(a, b).clone()
    x, y = a[0].clone(), b[0].clone()
    x[77, 399] = float("nan")
    y[200, 0] = float("nan")
    d = run_guarded((x, a[1]), (y, b[1]))
    assert d[77].isnan().all() and d[:, 200].isnan().all()
    rows = torch.arange(130, device="cuda") != 77
    columns = torch.arange(272, device="cuda") != 200
    assert_bitwise_equal(d[rows][:, columns], clean[rows][:, columns])


@pytest.mark.parametrize("m", [1, 128, 4096])
def test_repeated_runs_give_the_same_bits(m: int) -> None:
    a, b = random_operands(m, 2112, 7168)
    first = run_guarded(a, b).clone()
    for _ in range(20):
        assert_bitwise_equal(run_guarded(a, b), first)


def test_scale_factors_reach_far_apart() -> None:
    (x, sfa), (y, sfb) = random_operands(64, 256, 512)
    a, b = (x, sfa * 1e-30), (y, sfb * 1e20)
    check_close(run_guarded(a, b), a, b)


@pytest.mark.parametrize(("m", "n"), [(0, 128), (64, 0), (0, 0)])
def test_empty_output_is_no_work(m: int, n: int) -> None:
    a = torch.empty(m, 256, device="cuda").to(torch.float8_e4m3fn), torch.empty(m, 2, device="cuda")
    b = torch.empty(n, 256, device="cuda").to(torch.float8_e4m3fn), torch.empty(1, 2, device="cuda")
    fp8_gemm_nt(a, b, torch.empty(m, n, device="cuda", dtype=torch.bfloat16))


@pytest.mark.parametrize("with_c", [False, True])
def test_k_of_zero_gives_c_or_zero(with_c: bool) -> None:
    a = torch.empty(5, 0, device="cuda").to(torch.float8_e4m3fn), torch.empty(5, 0, device="cuda")
    b = torch.empty(16, 0, device="cuda").to(torch.float8_e4m3fn), torch.empty(1, 0, device="cuda")
    d = torch.full((5, 16), float("nan"), device="cuda", dtype=torch.bfloat16)
    c = torch.randn(5, 16, device="cuda").bfloat16() if with_c else None
    fp8_gemm_nt(a, b, d, c)
    assert_bitwise_equal(d, torch.zeros_like(d) if c is None else c)


@pytest.mark.parametrize("num_bytes", [2**31, 2**32])
def test_offsets_beyond_32_bits(num_bytes: int) -> None:
    k = 16384
    m = num_bytes // k + 3
    a, b = integer_operands(m, 16, k)
    d = run_guarded(a, b)
    for rows in (slice(0, 64), slice(m - 200, m)):
        check_exact(d[rows], (a[0][rows], a[1][rows]), b)


def test_an_output_of_more_than_2_to_the_31_elements() -> None:
    m, n = 73728, 36864
    a, b = integer_operands(m, n, 128)
    d = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
    fp8_gemm_nt(a, b, d)
    for rows in (slice(0, 130), slice(m - 130, m)):
        check_exact(d[rows], (a[0][rows], a[1][rows]), b)
