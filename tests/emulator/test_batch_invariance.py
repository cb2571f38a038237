"""K is split where D has few blocks, and never where a row's bits must not depend on other rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import deep_gemm
from deep_gemm import gemm
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.runtime.launch import Plan
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.random_operands import RandomOperands

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

N, K = 64, 4096


def chosen(monkeypatch: pytest.MonkeyPatch) -> list[GemmConfig]:
    """The kernels of calls from now on."""
    found: list[GemmConfig] = []
    plan_dense = gemm.plan_dense

    def noted(problem: GemmProblem, selection: Selection, *others: Any, **more: Any) -> Plan:
        found.append(selection.config)
        return plan_dense(problem, selection, *others, **more)

    monkeypatch.setattr(gemm, "plan_dense", noted)
    return found


def run(m: int, source: RandomOperands) -> torch.Tensor:
    (a, sfa), b = source.by_token(65, K), source.by_block(N, K)
    d = torch.full((m, N), torch.nan, dtype=torch.bfloat16)
    deep_gemm.fp8_gemm_nt((a[:m], sfa[:m]), b, d)
    return d


def test_the_bits_of_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch)
    with deep_gemm.override(batch_invariant=True):
        few, many = (run(m, RandomOperands(7, torch.device("cpu"))) for m in (3, 65))
    assert [config.cluster_k for config in found] == [1, 1]
    assert_bitwise_equal(few, many[:3])


def test_k_is_split_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = chosen(monkeypatch)
    split = run(3, RandomOperands(7, torch.device("cpu")))
    assert found[0].cluster_k > 1
    with deep_gemm.override(batch_invariant=True):
        whole = run(3, RandomOperands(7, torch.device("cpu")))
    error = (split.float() - whole.float()).abs().max() / whole.float().square().mean().sqrt()
    # They differ by roundings only.
    assert error < 0.02
