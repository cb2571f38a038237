"""Small rows of the MQA table pass their own check, which sees a wrong logit."""

from __future__ import annotations

import pytest
import torch

import deep_gemm
from benchmarks.mqa_problems import MAX_ERROR, MqaProblem
from benchmarks.mqa_worker import Worker

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize(
    "problem",
    [MqaProblem("parallel", 8, 40, 16, 32), MqaProblem("paged", 3, 100, 16, 32, 2)],
    ids=str,
)
def test_a_row_is_checked(problem: MqaProblem) -> None:
    with deep_gemm.override(num_sms=2):
        case, error = Worker(deep_gemm, "cpu").checked(str(problem))
        assert 0 < error <= MAX_ERROR
        logits = case.launch()
    logits[0, 3] += torch.finfo(torch.float32).eps + 0.5 * logits[0].abs().max()
    assert max(case.errors(logits)) > MAX_ERROR
