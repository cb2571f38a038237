"""The grouped kernels in the emulator: the tests of tests/gpu at sizes of a few blocks.

Every sum is exact, so that every bit is known; the emulator looks for races in each run.
"""

from __future__ import annotations

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nn,
    fp8_gemm_nt,
    fp8_gemm_tn,
    fp8_gemm_tt,
    m_grouped_fp8_gemm_nn_contiguous,
    set_num_sms,
)
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.testing import assert_bitwise_equal
from tests.emulator.arch import each_arch, sm90_only
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_k_grouped,
    check_masked,
    run_contiguous,
    run_dense,
    run_k_grouped,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import (
    POISONS,
    Layout,
    Operand,
    exact_operand,
    flat_operand,
    of_ends,
    poison,
    random_operand,
    row_ends,
    row_ids,
    sf_layouts,
    transposed,
)

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

BF16, FP32 = torch.bfloat16, torch.float32
N, K = 24, 144


@pytest.fixture(params=[Timing.LATE.value, Timing.RANDOM.value])
def timing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders in which what happens at the same time may be seen to happen; all other tests here
    see it as early as may be."""
    monkeypatch.setenv("DG_EMULATOR_TIMING", request.param)


def contiguous(
    layout: Layout, kind: str = "nan", n: int = N, k: int = K
) -> tuple[Operand, Operand]:
    a = exact_operand((len(layout.row_groups), k), 1, "cpu")
    poison(a, layout.row_groups < 0, kind)
    return a, exact_operand((layout.num_groups, n, k), 128, "cpu", 1)


IDS = {
    "aligned to 128": row_ids([(0, 3), (1, 20)], 128, m=150),
    "aligned to 16": row_ids([(0, 5), (1, 16), (2, 20)], 16),
    "aligned to 1": row_ids([(0, 5), (2, 1), (1, 20), (-1, 3), (0, 9)], 1),
    "DG#34: leading padding": row_ids([(-1, 32), (0, 5)], 16),
    "DG#38: trailing padding": row_ids([(0, 5), (-1, 64)], 16),
    "DG#103: padding between groups": row_ids([(0, 20), (-1, 48), (1, 3)], 16),
    "DG#113: nothing but padding": row_ids([(-1, 40)], 16, num_groups=2),
    "the last block partial": row_ids([(1, 20), (0, 5)], 16, m=41),
}


@pytest.mark.parametrize("name", IDS)
def test_row_ids(name: str) -> None:
    layout = IDS[name]
    a, b = contiguous(layout)
    check_contiguous(run_contiguous(a, b, layout), a, b, layout)


ENDS = {
    "aligned to 128": of_ends([3, 148], 128, m=150),
    "aligned to 48": row_ends([5, 48, 50], 48),
    "aligned to 1": row_ends([5, 1, 20], 1, behind=7),
    "empty groups": row_ends([0, 5, 0, 0, 20, 0], 16, behind=16),
    "no rows at all": row_ends([0, 0], 16, behind=20),
    "an end before the group's beginning": of_ends([5, 5, 20], 16),
    "padding left alone": row_ends([5, 0, 20], 16, clears_padding=False),
    "the last padding cut off": of_ends([5, 37], 16, m=41),
    "33 groups": row_ends([0] * 31 + [5, 3], 1),
}


@pytest.mark.parametrize("name", ENDS)
def test_row_ends(name: str) -> None:
    layout = ENDS[name]
    a, b = contiguous(layout)
    check_contiguous(run_contiguous(a, b, layout), a, b, layout)


@pytest.mark.parametrize(
    "layout",
    [IDS["aligned to 1"], IDS["aligned to 16"], ENDS["empty groups"]],
    ids=["ids 1", "ids 16", "ends 16"],
)
def test_contiguous_in_other_orders(timing: None, layout: Layout) -> None:
    a, b = contiguous(layout)
    check_contiguous(run_contiguous(a, b, layout), a, b, layout)


@pytest.mark.parametrize("kind", POISONS)
@pytest.mark.parametrize("layout", [IDS["aligned to 16"], row_ends([5, 20], 16, behind=16)])
def test_what_padding_holds_does_not_matter(layout: Layout, kind: str) -> None:
    """vllm#49784, sglang#32385, flashinfer#3650."""
    a, b = contiguous(layout, kind)
    check_contiguous(run_contiguous(a, b, layout, FP32), a, b, layout)


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
def test_scale_factors_of_a_contiguous_product_in_any_layout(layout_name: str) -> None:
    layout = row_ids([(0, 5), (1, 6)], 1)
    a, b = contiguous(layout, k=272)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    check_contiguous(run_contiguous(*laid_out, layout, row_stride=40), a, b, layout)


def test_nn_contiguous() -> None:
    layout = row_ids([(0, 5), (1, 20)], 16)
    a, b = contiguous(layout, n=32)
    stored = transposed(b)
    d = run_contiguous(a, stored, layout, call=m_grouped_fp8_gemm_nn_contiguous, n=32)
    check_contiguous(d, a, b, layout)


@pytest.mark.parametrize("num_sms", [1, 3])
def test_any_number_of_sms(num_sms: int) -> None:
    layout = row_ends([70, 0, 20], 16)
    a, b = contiguous(layout, n=136)
    set_num_sms(num_sms)
    try:
        d = run_contiguous(a, b, layout)
    finally:
        set_num_sms(0)
    check_contiguous(d, a, b, layout)


MASKED = [
    ([3, 0, 10], 10, 4),
    ([8, 1], 8, 8),
    ([0, 0], 16, 1),
    ([32, 5], 32, 1000),
    ([66, 0, 7], 66, 1),
]


def masked(masked_m: list[int], m_max: int, kind: str = "nan") -> tuple[Operand, Operand]:
    a = exact_operand((len(masked_m), m_max, K), 1, "cpu")
    poison(a, ~valid_rows(masked_m, m_max), kind)
    return a, exact_operand((len(masked_m), N, K), 128, "cpu", 1)


@pytest.mark.parametrize(("masked_m", "m_max", "expected_m"), MASKED)
def test_masked(masked_m: list[int], m_max: int, expected_m: int) -> None:
    """DG#268 and commit 6da94d2: m_max below, and no multiple of, a block's rows."""
    a, b = masked(masked_m, m_max)
    check_masked(run_masked(a, b, masked_m, expected_m), a, b, masked_m)


def test_masked_in_other_orders(timing: None) -> None:
    masked_m = [3, 0, 70]
    a, b = masked(masked_m, 70)
    check_masked(run_masked(a, b, masked_m), a, b, masked_m)


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(2, 6, 3)))
def test_scale_factors_of_a_masked_product_in_any_layout(layout_name: str) -> None:
    """vLLM's are MN-major with (m_max * k blocks, 1, m_max) for strides, m_max no multiple of 4."""
    masked_m = [3, 6]
    a, b = masked(masked_m, 6)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    check_masked(run_masked(*laid_out, masked_m, dtype=FP32), a, b, masked_m)


@pytest.mark.parametrize("c", ["none", "d", "other"])
@pytest.mark.parametrize("dtype", [BF16, FP32])
@pytest.mark.parametrize("gran_n", [1, 128])
def test_every_output_and_recipe(gran_n: int, dtype: torch.dtype, c: str) -> None:
    n = 136 if gran_n == 128 else 40
    a, b = exact_operand((20, 144), 1, "cpu"), exact_operand((n, 144), gran_n, "cpu", 1)
    d, values = run_dense(a, b, dtype, gran_n, c)
    check_dense(d, a, b, gran_n, values)


@pytest.mark.parametrize("k", [16, 128, 400, 1152])
def test_1d1d_of_any_k(k: int) -> None:
    """Commit 6c5da03 (DG#25): 1152 is an odd number of k blocks."""
    a, b = exact_operand((20, k), 1, "cpu"), exact_operand((24, k), 1, "cpu", 1)
    d, _ = run_dense(a, b, FP32, 1)
    check_dense(d, a, b, 1)


@pytest.mark.parametrize("c", ["none", "d"])
def test_1d1d_in_other_orders(timing: None, c: str) -> None:
    a, b = exact_operand((70, 400), 1, "cpu"), exact_operand((72, 400), 1, "cpu", 1)
    d, values = run_dense(a, b, FP32, 1, c)
    check_dense(d, a, b, 1, values)


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
def test_scale_factors_of_1d1d_in_any_layout(layout_name: str) -> None:
    a, b = exact_operand((20, 272), 1, "cpu"), exact_operand((24, 272), 1, "cpu", 1)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    d, _ = run_dense(*laid_out, FP32, 1, row_stride=32)
    check_dense(d, a, b, 1)


@sm90_only
@pytest.mark.parametrize("gran_n", [1, 128])
@pytest.mark.parametrize("name", ["nn", "tn", "tt"])
def test_operands_the_other_way_round_give_the_same_bits(name: str, gran_n: int) -> None:
    m, n, k = 32, 48, 272
    a, b = random_operand((m, k), 1, "cpu"), random_operand((n, k), gran_n, "cpu", 1)
    stored_a = transposed(a) if name[0] == "t" else a
    stored_b = transposed(b) if name[1] == "n" else b
    call = {"nn": fp8_gemm_nn, "tn": fp8_gemm_tn, "tt": fp8_gemm_tt}[name]
    d, _ = run_dense(stored_a, stored_b, FP32, gran_n, call=call, sizes=(m, n))
    expected, _ = run_dense(a, b, FP32, gran_n, call=fp8_gemm_nt)
    assert_bitwise_equal(d, expected)


KS = [[128, 256], [0, 128, 0, 0], [128, 0, 384], [256, 128, 0], [0, 0]]


@pytest.mark.parametrize("ks", KS, ids=str)
@pytest.mark.parametrize("c", ["none", "d", "other"])
def test_k_grouped(ks: list[int], c: str) -> None:
    """DG#237, #300, #405: a CTA that skips groups."""
    a, b = flat_operand(16, ks, "cpu"), flat_operand(24, ks, "cpu", 2)
    d, values = run_k_grouped(a, b, ks, c=c)
    check_k_grouped(d, a, b, ks, values)


def test_k_grouped_in_other_orders(timing: None) -> None:
    ks = [256, 0, 128]
    a, b = flat_operand(70, ks, "cpu"), flat_operand(72, ks, "cpu", 2)
    d, values = run_k_grouped(a, b, ks, c="d")
    check_k_grouped(d, a, b, ks, values)


@pytest.mark.parametrize("dtype", [BF16, FP32])
def test_k_grouped_with_sizes_on_the_device_alone(dtype: torch.dtype) -> None:
    ks = [128, 0, 256]
    a, b = flat_operand(20, ks, "cpu"), flat_operand(24, ks, "cpu", 2)
    d, _ = run_k_grouped(a, b, ks, dtype, sizes_on_host=False)
    check_k_grouped(d, a, b, ks)
