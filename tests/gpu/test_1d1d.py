"""Dense products on a GPU beyond 1D2D in BF16: 1D1D, FP32 output, C, and transposed operands."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import fp8_gemm_nn, fp8_gemm_nt, fp8_gemm_tn, fp8_gemm_tt
from deep_gemm.testing import assert_bitwise_equal, fp8_gemm_nt_reference
from deep_gemm.testing.profiler import record_calls
from tests.grouped_calls import check_dense, check_values, run_dense
from tests.grouped_operands import (
    Operand,
    exact_operand,
    random_operand,
    sf_layouts,
    transposed,
)

BF16, FP32 = torch.bfloat16, torch.float32


def operands(m: int, n: int, k: int, gran_n: int, exact: bool = True) -> tuple[Operand, Operand]:
    make = exact_operand if exact else random_operand
    return make((m, k), 1, "cuda"), make((n, k), gran_n, "cuda", 1)


def num_kernels(a: Operand, b: Operand, d: torch.Tensor) -> int:
    """Kernels that a 1D1D call launches."""

    def call() -> None:
        fp8_gemm_nt(a, b, d, recipe=(1, 1, 128))

    call()
    (events,) = record_calls([call], flush_l2=False)
    return len(events)


def run_exact(
    m: int, n: int, k: int, gran_n: int = 1, dtype: torch.dtype = FP32, c: str = "none"
) -> None:
    a, b = operands(m, n, k, gran_n)
    d, values = run_dense(a, b, dtype, gran_n, c)
    check_dense(d, a, b, gran_n, values)


@pytest.mark.parametrize("c", ["none", "d", "other"])
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("gran_n", [1, 128])
@pytest.mark.parametrize("m", [1, 65, 300])
def test_every_output_and_recipe(m: int, gran_n: int, dtype: torch.dtype, c: str) -> None:
    run_exact(m, 264, 400, gran_n, dtype, c)


@pytest.mark.parametrize("gran_n", [1, 128])
def test_c_and_d_with_gaps_between_rows(gran_n: int) -> None:
    a, b = operands(65, 264, 400, gran_n)
    for c in ("none", "d", "other"):
        d, values = run_dense(a, b, FP32, gran_n, c, row_stride=512)
        check_dense(d, a, b, gran_n, values)


@pytest.mark.parametrize("k", [16, 64, 128, 192, 256, 384, 1152])
@pytest.mark.parametrize("n", [8, 24, 136, 1000])
def test_odd_shapes(n: int, k: int) -> None:
    """Commits 6c5da03 (DG#25), 04278f6 (DG#95), d374456, daec8fd; ac428e2: FP32 in any block_n."""
    run_exact(65, n, k)
    run_exact(200, n, k, 128)


@pytest.mark.parametrize("m", [7, 9, 63, 66, 129, 577])
def test_rows_no_multiple_of_4(m: int) -> None:
    """Commits b69f630 (DG#23), ca13ce0: M below a block's rows, and scale factors of odd length."""
    run_exact(m, 136, 400)
    run_exact(m, 136, 400, dtype=BF16, c="d")


def test_n_of_4_modulo_8_in_fp32() -> None:
    for gran_n in (1, 128):
        run_exact(65, 132, 272, gran_n)


@pytest.mark.parametrize(("m", "n", "k"), [(512, 1024, 147_456), (1538, 256, 2048)])
def test_weight_gradients_accumulate(m: int, n: int, k: int) -> None:
    """DG#110: (512, 1024, 147456) and (1538, 256, 2048) were wrong."""
    run_exact(m, n, k, c="d")
    run_exact(m, n, k, c="other")


def test_one_block_along_n_and_an_odd_number_along_m() -> None:
    """Commit aff9da0 (DG#147): a launch failed where a CTA's peer had no block."""
    for c in ("none", "d"):
        run_exact(576, 16, 7168, c=c)


@pytest.mark.parametrize("gran_n", [1, 128])
def test_many_blocks_per_cta(gran_n: int) -> None:
    """Commit 3fc6728: barriers that did not fit shared memory at the most stages."""
    run_exact(2100, 2056, 1040, gran_n, c="d")


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
@pytest.mark.parametrize("m", [6, 130])
def test_scale_factors_in_any_layout(m: int, layout_name: str) -> None:
    a, b = operands(m, 272, 400, 1)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    d, _ = run_dense(*laid_out, FP32, 1)
    check_dense(d, a, b, 1)


def test_aligned_scale_factors_take_no_kernel_of_their_own() -> None:
    """Commit 3f92607 (DG#47): they were copied again at every call."""
    a, b = operands(130, 272, 400, 1)
    d = torch.empty(130, 272, device="cuda")
    aligned = "MN-major aligned"
    of_a, of_b = sf_layouts(a[1]), sf_layouts(b[1])
    assert num_kernels((a[0], of_a[aligned]), (b[0], of_b[aligned]), d) == 1
    assert num_kernels((a[0], of_a[aligned]), (b[0], of_b["row-major"]), d) == 2


@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("gran_n", [1, 128])
def test_model_shapes_are_close_and_repeat_bit_for_bit(gran_n: int, dtype: torch.dtype) -> None:
    """humming#53: at M = 4096 up to a fifth was wrong where multicast came before its receiver."""
    a, b = operands(4096, 2112, 7168, gran_n, exact=False)
    first, _ = run_dense(a, b, dtype, gran_n)
    check_values(first, lambda gemm: gemm(a, b, gran_n=gran_n), exact=False)
    d = torch.empty_like(first)
    for _ in range(20):
        d.fill_(float("nan"))
        fp8_gemm_nt(a, b, d, recipe=(1, gran_n, 128))
        assert_bitwise_equal(d, first)


def test_accumulation_repeats_bit_for_bit() -> None:
    a, b = operands(2048, 1024, 4096, 1, exact=False)
    c = torch.randn(2048, 1024, device="cuda")
    first = c.clone()
    fp8_gemm_nt(a, b, first, first, recipe=(1, 1, 128))
    check_values(first, lambda gemm: gemm(a, b, c, 1), exact=False)
    for _ in range(20):
        d = c.clone()
        fp8_gemm_nt(a, b, d, d, recipe=(1, 1, 128))
        assert_bitwise_equal(d, first)


NOT_NT = {"nn": fp8_gemm_nn, "tn": fp8_gemm_tn, "tt": fp8_gemm_tt}


@pytest.mark.parametrize("gran_n", [1, 128])
@pytest.mark.parametrize("name", NOT_NT)
@pytest.mark.parametrize(("m", "n", "k"), [(144, 272, 400), (16, 16, 16), (1040, 528, 1152)])
def test_operands_the_other_way_round_give_the_bits_of_nt(
    m: int, n: int, k: int, name: str, gran_n: int
) -> None:
    a, b = operands(m, n, k, gran_n, exact=False)
    views = tuple(tuple(tensor.t() for tensor in operand) for operand in (a, b))
    expected, _ = run_dense(a, b, FP32, gran_n)
    for stored in ((transposed(a), transposed(b)), views):
        x = stored[0] if name[0] == "t" else a
        y = stored[1] if name[1] == "n" else b
        d, _ = run_dense(x, y, FP32, gran_n, call=NOT_NT[name], sizes=(m, n))
        assert_bitwise_equal(d, expected)


def test_backward_of_576_columns() -> None:
    """DG#93: the gradient (seq, 576) x (576, 7168), where k is no multiple of 128."""
    a, b = random_operand((512, 576), 1, "cuda"), random_operand((7168, 576), 128, "cuda", 1)
    d, _ = run_dense(a, transposed(b), BF16, call=fp8_gemm_nn, sizes=(512, 7168))
    check_values(d, lambda gemm: gemm(a, b), exact=False)


@pytest.mark.parametrize("gran_n", [1, 128])
@pytest.mark.parametrize("c", ["none", "d", "other"])
def test_k_of_zero(c: str, gran_n: int) -> None:
    a, b = operands(65, 136, 0, gran_n)
    d, values = run_dense(a, b, FP32, gran_n, c)
    check_dense(d, a, b, gran_n, values)


def test_scale_factors_far_apart() -> None:
    (x, sfa), (y, sfb) = operands(64, 256, 512, 1, exact=False)
    a, b = (x, sfa * 1e-30), (y, sfb * 1e20)
    d, _ = run_dense(a, b, FP32, 1)
    check_values(d, lambda gemm: gemm(a, b, gran_n=1), exact=False)


def test_zero_channels_give_zero() -> None:
    """DG#375: a channel of zeros has a scale factor of 1e-30, and the product must be zero."""
    a, b = operands(130, 264, 400, 1)
    b[0].view(torch.uint8)[77] = 0
    b[1][77] = 1e-30
    d, _ = run_dense(a, b, FP32, 1)
    assert (d[:, 77] == 0).all()
    assert_bitwise_equal(d, fp8_gemm_nt_reference(a, b, gran_n=1).float())
