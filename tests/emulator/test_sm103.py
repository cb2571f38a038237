"""One product of each kind as a B300 computes it: the kernels of SM100, compiled for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import deep_gemm
from tests.emulator.arch import on_arch
from tests.grouped_calls import check_dense, check_masked, run_dense, run_masked
from tests.grouped_operands import exact_operand, transposed
from tests.sm100_k_groups import KCase, run_k_case

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

N, K = 48, 272


@pytest.fixture(scope="module", autouse=True)
def on_sm103() -> Iterator[None]:
    with on_arch("103a"):
        yield


def test_dense() -> None:
    a, b = exact_operand((32, K), 1, "cpu"), exact_operand((N, K), 128, "cpu", 1)
    call = deep_gemm.fp8_gemm_tn
    d, c = run_dense(
        *(transposed(a), transposed(b), torch.float32), c="d", call=call, sizes=(32, N)
    )
    check_dense(d, a, b, c=c)


def test_m_grouped() -> None:
    masked_m = [3, 0, 7]
    a, b = exact_operand((3, 8, K), 1, "cpu"), exact_operand((3, N, K), 128, "cpu", 1)
    check_masked(run_masked(a, b, masked_m), a, b, masked_m)


def test_k_grouped() -> None:
    run_k_case(KCase("tn", (128, 0, 40)), "cpu")
