"""k-grouped products on a GPU: every group's gradient, sizes of zero anywhere, C or none."""

from __future__ import annotations

import random

import pytest
import torch

from deep_gemm import k_grouped_fp8_gemm_nt_contiguous
from deep_gemm.testing import assert_bitwise_equal, by_k_group, fp8_gemm_nt_reference
from tests.grouped_calls import check_k_grouped, check_values, run_k_grouped
from tests.grouped_operands import Operand, flat_operand, random_operand, sf_layouts


def operands(m: int, n: int, ks: list[int]) -> tuple[Operand, Operand]:
    return flat_operand(m, ks, "cuda"), flat_operand(n, ks, "cuda", 2)


def run_exact(
    m: int,
    n: int,
    ks: list[int],
    dtype: torch.dtype = torch.float32,
    c: str = "none",
    sizes_on_host: bool = True,
) -> None:
    a, b = operands(m, n, ks)
    d, values = run_k_grouped(a, b, ks, dtype, c, sizes_on_host)
    check_k_grouped(d, a, b, ks, values)


SIZES = {
    "one": [256],
    "equal": [256, 256, 256],
    "unequal": [128, 1152, 384, 256, 128],
    "first zero": [0, 256, 128],
    "last zero": [256, 128, 0],
    "middle zero": [256, 0, 0, 0, 128],
    "all but one zero": [0, 0, 0, 384, 0, 0],
    "all zero": [0, 0, 0],
}


@pytest.mark.parametrize("sizes_on_host", [True, False])
@pytest.mark.parametrize("c", ["none", "d", "other"])
@pytest.mark.parametrize("name", SIZES)
def test_group_sizes(name: str, c: str, sizes_on_host: bool) -> None:
    run_exact(200, 264, SIZES[name], c=c, sizes_on_host=sizes_on_host)


@pytest.mark.parametrize("c", ["none", "d", "other"])
def test_bf16_output(c: str) -> None:
    run_exact(200, 264, [128, 0, 1152, 384], torch.bfloat16, c)


@pytest.mark.parametrize(("m", "n"), [(1, 8), (7, 24), (65, 136), (130, 1000), (577, 12)])
def test_odd_shapes(m: int, n: int) -> None:
    for c in ("none", "d"):
        run_exact(m, n, [128, 0, 384, 256], c=c)


@pytest.mark.parametrize("num_groups", [1, 2, 3, 4, 32, 33, 127, 128, 256, 1024])
def test_any_number_of_groups(num_groups: int) -> None:
    pick = random.Random(num_groups)
    ks = [pick.choice([0, 128, 256]) for _ in range(num_groups)]
    run_exact(40, 72, ks, sizes_on_host=False)


def test_the_device_has_the_last_word() -> None:
    """Two hosts' lists that sum up alike; the sizes on the device are those that count."""
    ks = [384, 128, 0, 256]
    a, b = operands(136, 264, ks)
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    d = torch.full((4, 136, 264), float("nan"), device="cuda")
    k_grouped_fp8_gemm_nt_contiguous(a, b, d, [256, 0, 128, 384], sizes)
    check_k_grouped(d, a, b, ks)


def test_older_names_of_the_sizes() -> None:
    ks = [128, 256]
    a, b = operands(136, 264, ks)
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    d = torch.full((2, 136, 264), float("nan"), device="cuda")
    k_grouped_fp8_gemm_nt_contiguous(a, b, d, ks=tuple(ks), ks_tensor=sizes)
    check_k_grouped(d, a, b, ks)


@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
@pytest.mark.parametrize("m", [6, 136])
def test_scale_factors_in_any_layout(m: int, layout_name: str) -> None:
    ks = [128, 384, 0, 128]
    a, b = operands(m, 264, ks)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    d, _ = run_k_grouped(*laid_out, ks)
    check_k_grouped(d, a, b, ks)


def test_sizes_reaching_beyond_the_operands_are_cut_off() -> None:
    ks = [128, 256]
    a, b = operands(136, 264, ks)
    d = torch.full((3, 136, 264), float("nan"), device="cuda")
    sizes = torch.tensor([128, 2**30, 128], device="cuda", dtype=torch.int32)
    k_grouped_fp8_gemm_nt_contiguous(a, b, d, None, sizes)
    check_k_grouped(d, a, b, [128, 256, 0])


def test_weight_gradients_are_close_and_repeat_bit_for_bit() -> None:
    """DG#300, DG#405: M 768, N 1536, fewer blocks per group than multiprocessors."""
    m, n, ks = 768, 1536, [2048, 0, 128, 4096, 1024]
    a, b = (
        (data.view(-1), sf)
        for data, sf in (random_operand((rows, sum(ks)), 1, "cuda", rows) for rows in (m, n))
    )
    first, _ = run_k_grouped(a, b, ks)
    check_values(first, lambda gemm: by_k_group(gemm, a, b, ks), exact=False)
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    d = torch.empty_like(first)
    for _ in range(20):
        d.fill_(float("nan"))
        k_grouped_fp8_gemm_nt_contiguous(a, b, d, ks, sizes)
        assert_bitwise_equal(d, first)


def test_empty_outputs() -> None:
    sizes = torch.tensor([128, 256], device="cuda", dtype=torch.int32)
    for m, n in ((0, 264), (136, 0)):
        a, b = operands(m, n, [128, 256])
        d = torch.empty(2, m, n, device="cuda")
        k_grouped_fp8_gemm_nt_contiguous(a, b, d, [128, 256], sizes)


def test_c_is_left_as_it_was_and_groups_of_zero_copy_it() -> None:
    ks = [0, 128, 0]
    a, b = operands(136, 264, ks)
    d, c = run_k_grouped(a, b, ks, c="other")
    assert c is not None
    assert_bitwise_equal(d[0], c[0])
    assert_bitwise_equal(d[2], c[2])
    product = by_k_group(fp8_gemm_nt_reference, a, b, ks)
    assert_bitwise_equal(d[1], (product[1] + c[1]).float())
