"""Every kernel that selection could pick, forced: the same bits from all of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from operands import check_exact, integer_operands

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.config.sm90 import candidates
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.testing import assert_bitwise_equal, guarded_output

# Edges in every block shape, an odd number of blocks for every cluster, K blocks of odd number with
# a partial last one, and enough blocks that a CTA gets several.
SHAPES = [(16, 1000, 1168), (31, 520, 400), (333, 1096, 912), (1030, 776, 272)]


def run(config: GemmConfig, m: int, n: int, k: int, num_sms: int = 132) -> None:
    """Runs one configuration twice and checks every bit and the guard."""
    problem = GemmProblem(m, n, k, num_sms=num_sms)
    (x, sfa), (y, sfb) = a, b = integer_operands(m, n, k)
    out = guarded_output(m, n)
    selection = Selection(config, best_band(problem, config))
    plan = plan_dense(problem, selection, GemmTensors.of_matrices(x, sfa, y, sfb, out.view))
    addresses = [t.data_ptr() for t in (x, y, out.view, sfa, sfb)]
    plan.launch(*addresses)
    torch.cuda.synchronize()
    out.check()
    check_exact(out.view, a, b)
    first = out.view.clone()
    out.view.fill_(float("nan"))
    plan.launch(*addresses)
    assert_bitwise_equal(out.view, first)


def compile_together(configs: list[GemmConfig]) -> None:
    """Compiles on all cores; the compiler runs without Python's lock."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda config: build(generate(config, "90a")), configs))


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_every_candidate_is_exact(m: int, n: int, k: int) -> None:
    configs = list(candidates(GemmProblem(m, n, k)))
    assert len(configs) >= 16
    compile_together(configs)
    for config in configs:
        run(config, m, n, k)


@pytest.mark.parametrize("num_sms", [1, 2, 3, 7, 131])
def test_any_number_of_sms(num_sms: int) -> None:
    for config in candidates(GemmProblem(333, 1096, 912, num_sms=num_sms)):
        if config.block_n % 48 == 0:
            run(config, 333, 1096, 912, num_sms)


@pytest.mark.parametrize("num_stages", [2, 3, 5])
@pytest.mark.parametrize("k", [16, 128, 256, 640])
def test_more_and_fewer_stages_than_k_blocks(num_stages: int, k: int) -> None:
    for cluster in ((1, 1), (2, 1), (1, 2)):
        run(GemmConfig(128, 96, num_stages, 2, *cluster), 700, 504, k)
