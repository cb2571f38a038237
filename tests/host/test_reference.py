"""The references that kernels are held to, and the measures of how far they are off."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.quantize import per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.testing import (
    PER_BLOCK,
    PER_TOKEN,
    assert_bitwise_equal,
    calc_diff,
    count_bytes,
    dequantize,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    guarded_output,
    max_scaled_error,
)

Operand = tuple[torch.Tensor, torch.Tensor]

SHAPES = [(1, 16, 16), (3, 130, 300), (130, 48, 128), (5, 257, 400)]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_operands(m: int, n: int, k: int) -> tuple[Operand, Operand]:
    generator = torch.Generator().manual_seed(m + n + k)
    a, b = (torch.randn(rows, k, generator=generator).bfloat16() for rows in (m, n))
    return per_token_cast_to_fp8(a, False), per_block_cast_to_fp8(b, False)


def integer_operands(m: int, n: int, k: int) -> tuple[Operand, Operand]:
    """Small integers with power-of-two scale factors: every sum is exact in FP32."""
    generator = torch.Generator().manual_seed(m * n + k)

    def operand(rows: int, gran_mn: int) -> Operand:
        data = torch.randint(-4, 5, (rows, k), generator=generator).to(torch.float8_e4m3fn)
        sf_shape = (-(-rows // gran_mn), -(-k // 128))
        return data, torch.randint(-2, 3, sf_shape, generator=generator).float().exp2()

    return operand(m, 1), operand(n, 128)


def exact_product(a: Operand, b: Operand) -> torch.Tensor:
    """A @ B.T in rational arithmetic, one element at a time."""

    def value(operand: Operand, row: int, col: int, gran_mn: int) -> Fraction:
        data, sf = operand
        return Fraction(data[row, col].item()) * Fraction(sf[row // gran_mn, col // 128].item())

    (m, k), n = a[0].shape, b[0].shape[0]
    rows_a = [[value(a, i, x, 1) for x in range(k)] for i in range(m)]
    rows_b = [[value(b, j, x, 128) for x in range(k)] for j in range(n)]
    d = [[float(sum(x * y for x, y in zip(p, q, strict=True))) for q in rows_b] for p in rows_a]
    return torch.tensor(d, dtype=torch.float64)


@pytest.mark.parametrize("granularity", [PER_TOKEN, PER_BLOCK], ids=["per_token", "per_block"])
def test_dequantize_is_exact_and_tails_are_partial(granularity: tuple[int, int]) -> None:
    rows, k = 130, 300
    gran_mn, gran_k = granularity
    data = torch.randn(rows, k).to(torch.float8_e4m3fn)
    sf = torch.rand(-(-rows // gran_mn), 3)
    values = dequantize((data, sf), granularity)
    assert values.dtype == torch.float64
    for row, col in [(0, 0), (0, 127), (0, 128), (127, 299), (128, 256), (129, 299)]:
        factor = sf[row // gran_mn, col // gran_k].double()
        assert values[row, col] == data[row, col].double() * factor


def test_dequantize_takes_mn_major_scale_factors() -> None:
    data, sf = per_token_cast_to_fp8(torch.randn(7, 300), False)
    mn_major = torch.full((3, 8), math.nan).T[:7]
    mn_major.copy_(sf)
    assert mn_major.stride() == (1, 8)
    expected = dequantize((data, sf), PER_TOKEN)
    assert torch.equal(dequantize((data, mn_major), PER_TOKEN), expected)


def test_dequantize_undoes_the_cast() -> None:
    x = torch.randn(130, 300)
    values = dequantize(per_block_cast_to_fp8(x, False), PER_BLOCK)
    # Half a unit in the last of e4m3's three mantissa bits, or of its smallest subnormal.
    bound = x.double().abs() * 2.0**-4 + x.abs().max().double() / 448 * 2.0**-10
    assert ((values - x.double()).abs() <= bound * (1 + 1e-6)).all()


def test_dequantize_refuses_a_scale_factor_of_another_shape() -> None:
    data, sf = per_token_cast_to_fp8(torch.randn(7, 300), False)
    with pytest.raises(ArgumentError, match=r"sf: must be \(7, 3\) .* got \(3, 7\)"):
        dequantize((data, sf.T), PER_TOKEN)


@pytest.mark.parametrize(("m", "n", "k"), [(2, 130, 140), (3, 5, 16)])
def test_reference_is_the_exact_product_rounded_once_or_nearly(m: int, n: int, k: int) -> None:
    a, b = random_operands(m, n, k)
    torch.testing.assert_close(
        fp8_gemm_nt_reference(a, b), exact_product(a, b), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("chunk_rows", [1, 7, 130, 1024])
def test_reference_does_not_depend_on_the_chunk(chunk_rows: int) -> None:
    a, b = integer_operands(130, 136, 200)
    expected = dequantize(a, PER_TOKEN) @ dequantize(b, PER_BLOCK).T
    assert torch.equal(fp8_gemm_nt_reference(a, b, chunk_rows=chunk_rows), expected)


@pytest.mark.parametrize("gemm", [fp8_gemm_nt_reference, fp8_gemm_nt_yardstick])
def test_empty_problems(gemm) -> None:
    for m, n, k in [(0, 16, 16), (4, 16, 0), (4, 0, 16)]:
        d = gemm(*random_operands(m, n, k))
        assert tuple(d.shape) == (m, n)
        assert (d == 0).all()


@pytest.mark.parametrize("gemm", [fp8_gemm_nt_reference, fp8_gemm_nt_yardstick])
def test_operands_of_different_k_are_refused(gemm) -> None:
    a, b = random_operands(4, 16, 32)[0], random_operands(4, 16, 48)[1]
    with pytest.raises(ArgumentError, match=r"b: must have the k of a, got \(4, 32\)"):
        gemm(a, b)


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_yardstick_is_exact_on_small_integers(m: int, n: int, k: int) -> None:
    a, b = integer_operands(m, n, k)
    assert_bitwise_equal(fp8_gemm_nt_yardstick(a, b), fp8_gemm_nt_reference(a, b).bfloat16())


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_yardstick_errs_by_the_rounding_to_bf16(m: int, n: int, k: int) -> None:
    a, b = random_operands(m, n, k)
    ref = fp8_gemm_nt_reference(a, b)
    error = max_scaled_error(fp8_gemm_nt_yardstick(a, b), ref)
    rounding = max_scaled_error(ref.bfloat16(), ref)
    assert 0 < rounding <= error * 1.01
    assert error <= rounding * 1.1 + 1e-5


def test_calc_diff() -> None:
    x = torch.tensor([3.0, -4.0])
    assert calc_diff(x, x) == pytest.approx(0, abs=1e-15)
    assert calc_diff(x, -x) == pytest.approx(2)
    assert calc_diff(x, 2 * x) == pytest.approx(1 - 2 * 2 / 5)
    assert calc_diff(torch.zeros(3), torch.zeros(3)) == 0.0
    assert calc_diff(torch.zeros(2), x) == 1.0


def test_max_scaled_error_is_in_units_of_the_rms() -> None:
    ref = torch.tensor([[3.0, -4.0], [0.0, 5.0]], dtype=torch.float64)
    out = ref.clone()
    out[1, 0] = 0.5
    assert max_scaled_error(ref.clone(), ref) == 0.0
    assert max_scaled_error(out, ref) == pytest.approx(0.5 / math.sqrt((9 + 16 + 25) / 4))
    assert max_scaled_error(out * 1e3, ref * 1e3) == pytest.approx(max_scaled_error(out, ref))


def test_one_wrong_element_shows_in_max_scaled_error_only() -> None:
    ref = torch.randn(400, 400, dtype=torch.float64)
    out = ref.clone()
    out[17, 23] += 1
    assert calc_diff(out, ref) < 1e-4
    assert max_scaled_error(out, ref) == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(
    ("out", "ref", "message"),
    [
        ([1.0, math.nan], [1.0, 2.0], r"1 of 2 elements are NaN .* at \(1,\), in out"),
        ([1.0, 2.0], [math.nan, 2.0], r"NaN .* at \(0,\), in ref"),
        ([math.inf, 2.0], [1.0, 2.0], r"\+inf .* in out"),
        ([math.inf, 2.0], [-math.inf, 2.0], r"\+inf .* in out"),
        ([1.0, 2.0], [1.0, -math.inf], r"-inf .* in ref"),
        ([1.0], [1.0, 2.0], r"out is \(1,\), ref is \(2,\)"),
    ],
)
def test_nan_and_infinity_are_compared_first(
    out: list[float], ref: list[float], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        max_scaled_error(torch.tensor(out), torch.tensor(ref, dtype=torch.float64))


def test_nan_and_infinity_in_the_same_places_are_left_out() -> None:
    ref = torch.tensor([math.nan, math.inf, 1e39, 2.0], dtype=torch.float64)
    out = torch.tensor([math.nan, math.inf, math.inf, 2.5]).bfloat16()
    assert max_scaled_error(out, ref) == pytest.approx(0.25)


def test_max_scaled_error_without_a_scale() -> None:
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    assert max_scaled_error(zeros.float(), zeros) == 0.0
    assert max_scaled_error(zeros.float() + 1, zeros) == math.inf
    assert max_scaled_error(torch.zeros(0, 2), zeros[:0]) == 0.0


def test_assert_bitwise_equal() -> None:
    x = torch.tensor([[0.0, math.nan], [1.0, 2.0]])
    assert_bitwise_equal(x, x.clone())
    assert_bitwise_equal(x.T, x.T.contiguous())
    assert_bitwise_equal(torch.zeros(0, 3), torch.zeros(0, 3))
    y = x.clone()
    y[0, 0] = -0.0
    with pytest.raises(AssertionError, match=r"D: 1 of 4 .* at \(0, 0\): 0.0 is not -0.0"):
        assert_bitwise_equal(x, y, label="D")
    with pytest.raises(AssertionError, match=r"float32 \(2, 2\) is not torch.bfloat16 \(2, 2\)"):
        assert_bitwise_equal(x, x.bfloat16())
    with pytest.raises(AssertionError, match=r"\(2, 2\) is not torch.float32 \(4,\)"):
        assert_bitwise_equal(x, x.flatten())


def test_count_bytes() -> None:
    sf = torch.zeros(3, 5)
    data = torch.zeros(2, 7, dtype=torch.bfloat16)
    assert count_bytes() == 0
    assert count_bytes(sf, None, (data, [sf, (data,)])) == 2 * 60 + 2 * 28


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e4m3fn])
@pytest.mark.parametrize(("m", "n", "row_stride"), [(5, 24, None), (5, 24, 40), (1, 7, 7)])
def test_guarded_output_is_poisoned_aligned_and_quiet(
    dtype: torch.dtype, m: int, n: int, row_stride: int | None
) -> None:
    guarded = guarded_output(m, n, dtype, "cpu", row_stride, guard_rows=16)
    assert guarded.view.isnan().all()
    assert tuple(guarded.view.shape) == (m, n)
    assert guarded.view.stride() == (row_stride or n, 1)
    assert (guarded.view.data_ptr() - guarded.buffer.data_ptr()) % 16 == 0
    guarded.check()
    guarded.view.copy_(torch.ones(m, n))
    guarded.check()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("row", "col"), [(-1, 0), (-16, 39), (5, 23), (20, 0), (0, 24), (4, 39), (-1, 24)]
)
def test_a_single_write_outside_is_found(dtype: torch.dtype, row: int, col: int) -> None:
    guarded = guarded_output(5, 24, dtype, "cpu", row_stride=40, guard_rows=16)
    guarded.view.fill_(1.0)
    guarded.buffer[16 + row, col] = 1.0
    with pytest.raises(AssertionError, match=rf"1 elements .* 5x24 .* row {row}, column {col}$"):
        guarded.check()


def test_a_guard_notices_nan_and_one_changed_byte() -> None:
    guarded = guarded_output(2, 8, device="cpu")
    guarded.buffer[0, 0] = math.nan
    guarded.buffer.view(torch.uint8)[-1, -1] ^= 1
    with pytest.raises(AssertionError, match="2 elements"):
        guarded.check()


@pytest.mark.parametrize(("m", "n"), [(0, 8), (4, 0)])
def test_guarded_output_may_be_empty(m: int, n: int) -> None:
    guarded = guarded_output(m, n, device="cpu", row_stride=8)
    assert tuple(guarded.view.shape) == (m, n)
    guarded.check()
    guarded.buffer[guarded.buffer.shape[0] // 2, 0] = 0.0
    with pytest.raises(AssertionError, match="1 elements"):
        guarded.check()


def test_guarded_output_refuses_overlap_and_misalignment() -> None:
    with pytest.raises(ArgumentError, match=r"row_stride: must be at least n=8, got 7"):
        guarded_output(2, 8, device="cpu", row_stride=7)
    for guard_rows in (0, 8):
        with pytest.raises(ArgumentError, match=r"guard_rows: must be a positive multiple of 16"):
            guarded_output(2, 8, device="cpu", guard_rows=guard_rows)
