"""What was precompiled is what calls on this GPU ask for, under capture too."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from operands import check_exact, integer_operands

from deep_gemm import ProblemRange, fp8_gemm_nt, get_num_sms, precompile
from deep_gemm.config.problem import GemmProblem
from deep_gemm.jit.build import forbid_compilation
from tests.warm_up import check_a_recorded_run


def test_a_recorded_run_needs_no_compiler_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_a_recorded_run("cuda", tmp_path, monkeypatch)


@pytest.mark.parametrize("m", [1, 7, 16, 17, 32, 33, 64, 65])
def test_blocks_higher_than_the_matrix(m: int) -> None:
    """The kernels that are kept for serving have blocks of 64 rows at least."""
    a, b = integer_operands(m, 576, 1168)
    d = torch.full((m, 576), float("nan"), device="cuda", dtype=torch.bfloat16)
    fp8_gemm_nt(a, b, d)
    torch.cuda.synchronize()
    check_exact(d, a, b)


def test_first_calls_under_capture() -> None:
    n, k, last_m = 1536, 1168, 2048
    problem = GemmProblem(1, n, k, num_sms=get_num_sms())
    precompile([ProblemRange(problem, last_m)])
    for m in random.Random(0).sample(range(1, last_m + 1), 8):
        a, b = integer_operands(m, n, k)
        d = torch.zeros(m, n, device="cuda", dtype=torch.bfloat16)
        graph = torch.cuda.CUDAGraph()
        with forbid_compilation(), torch.cuda.graph(graph):
            fp8_gemm_nt(a, b, d)
        graph.replay()
        torch.cuda.synchronize()
        check_exact(d, a, b)
