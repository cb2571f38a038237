"""Weight gradients under their names of version 1, in the emulator; its GEMMs for activations are
in test_fake_engines.py."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import wgrad_gemm_fp8_fp8_fp32_nt
from tests.emulator.arch import each_arch
from tests.grouped_operands import exact_operand
from tests.weight_gradients import STORED, check_k_grouped_wgrad, check_wgrad

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("how", STORED)
def test_scale_factors_may_be_stored_either_way(how: str) -> None:
    check_wgrad("cpu", 20, 24, 400, how)


def test_square_scale_factors_are_rows_first() -> None:
    """Two rows of two k blocks fit both forms."""
    check_wgrad("cpu", 2, 24, 256)


@pytest.mark.parametrize("ks", [[128, 0, 256], [48, 144], [0, 0]], ids=str)
def test_groups(ks: list[int]) -> None:
    check_k_grouped_wgrad("cpu", 20, 24, ks)


def test_k_of_zero_adds_nothing() -> None:
    out = torch.full((20, 24), 3.0)
    a, b = exact_operand((20, 0), 1, "cpu"), exact_operand((24, 0), 1, "cpu")
    wgrad_gemm_fp8_fp8_fp32_nt(a, b, out)
    assert (out == 3).all()
