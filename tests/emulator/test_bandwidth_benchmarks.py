"""Small rows of the bandwidth tables: ours is what torch makes, and a copy moves as many bytes."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bandwidth import Problem
from benchmarks.layouts import KGroupedPacking, Packing
from benchmarks.transpose import Transposition
from deep_gemm.testing import assert_bitwise_equal

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize(
    "problem",
    [
        Transposition(33, 48, torch.float8_e4m3fn),
        Transposition(40, 7, torch.float32),
        Packing(37, 8),
        Packing(40, 7),
        KGroupedPacking(8, 6, (0, 1, 5), spare=2),
    ],
    ids=str,
)
def test_the_variants_agree(problem: Problem) -> None:
    calls = problem.variants("cpu")
    assert list(calls) == ["ours", "torch", "copy"]
    ours, torch_s, copy = (call() for call in calls.values())
    assert_bitwise_equal(ours, torch_s)
    assert 2 * copy.numel() in (problem.num_bytes, problem.num_bytes - 1)
