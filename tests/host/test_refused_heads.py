"""fp8_gemm_nt_skip_head_mid: what is refused."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import fp8_gemm_nt_skip_head_mid
from tests.host.refusals import refuses

Splits = tuple[int, int, int]


def call(head_splits: object, n: int = 64, k: int = 128, width: int = 96) -> None:
    """Two heads of 32 columns fit, with gaps of 16."""
    a = (torch.zeros(8, k, dtype=torch.float8_e4m3fn), torch.ones(8, -(-k // 128)))
    b = (torch.zeros(n, k, dtype=torch.float8_e4m3fn), torch.ones(1, -(-k // 128)))
    d = torch.zeros(8, width, dtype=torch.bfloat16)
    fp8_gemm_nt_skip_head_mid(a, b, d, head_splits)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, 16, (16, 16), (16, 16, 16, 16), "abc"])
def test_refuses_what_is_no_triple(value: object) -> None:
    with refuses("head_splits", r"\(left, mid, right\)", ""):
        call(value)


@pytest.mark.parametrize("value", [(16.0, 16, 16), (-16, 16, 48), (0, 16, 0), (True, 16, 16)])
def test_refuses_sizes(value: Splits) -> None:
    with refuses("head_splits", "three ints", ""):
        call(value)


@pytest.mark.parametrize("value", [(8, 16, 24), (24, 16, 8), (16, 4, 16), (20, 16, 12)])
def test_refuses_what_cannot_be_stored(value: Splits) -> None:
    with refuses("head_splits", "multiples of 16, mid of 8", ""):
        call(value)


def test_refuses_parts_of_a_head() -> None:
    with refuses("b[0]", "multiple of left . right = 32 rows", "48"):
        call((16, 16, 16), n=48)


@pytest.mark.parametrize("width", [64, 80, 104])
def test_refuses_a_d_of_another_width(width: int) -> None:
    with refuses("d", r"= \(8, 96\)", rf"\(8, {width}\)"):
        call((16, 16, 16), width=width)


def test_refuses_no_k() -> None:
    with refuses("a[0]", "must have columns", ""):
        call((16, 16, 16), k=0)


def test_refuses_scale_factors_per_row_of_b() -> None:
    a = (torch.zeros(8, 128, dtype=torch.float8_e4m3fn), torch.ones(8, 1))
    b = (torch.zeros(32, 128, dtype=torch.float8_e4m3fn), torch.ones(32, 1))
    d = torch.zeros(8, 48, dtype=torch.bfloat16)
    with refuses("recipe", "must be .1, 128, 128.", r"\(1, 1, 128\)"):
        fp8_gemm_nt_skip_head_mid(a, b, d, (16, 16, 16), recipe=(1, 1, 128))
