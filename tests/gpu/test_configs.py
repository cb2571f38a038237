"""Every kernel that selection could pick, forced: the same bits from all of them."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from operands import check_close, check_exact, integer_operands

from deep_gemm import per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.legality import MAX_CLUSTER, broken_rules, max_stages
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.config.sm90 import BLOCK_M, MIN_STAGES, candidates
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.testing import (
    assert_bitwise_equal,
    guarded_output,
)

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


def split_configs() -> list[GemmConfig]:
    """Configurations that split K, of every height and number of parts."""
    shapes = [
        GemmConfig(block_m, block_n, MIN_STAGES, 1 if block_m <= 64 else 2, cluster_k=parts)
        for block_m in BLOCK_M
        for parts in range(2, MAX_CLUSTER + 1)
        for block_n in (
            16 * parts,
            64 // (16 * parts) * 16 * parts,
            128 // parts // 16 * 16 * parts,
        )
        if block_n
    ]
    configs = [replace(shape, num_stages=max_stages(shape)) for shape in dict.fromkeys(shapes)]
    return [config for config in configs if not broken_rules(config)]


@pytest.mark.parametrize(("m", "n", "k"), [(16, 1000, 7168), (333, 1096, 1168), (1030, 776, 272)])
def test_every_way_to_split_k_is_exact(m: int, n: int, k: int) -> None:
    configs = split_configs()
    assert {config.cluster_k for config in configs} == set(range(2, MAX_CLUSTER + 1))
    compile_together(configs)
    for config in configs:
        run(config, m, n, k)
        run(config, m, n, k, num_sms=config.cluster_k)


def test_split_k_gives_the_same_bits_every_time() -> None:
    config = GemmConfig(64, 64, 8, 1, cluster_k=4)
    m, n, k = 64, 2112, 7168
    problem = GemmProblem(m, n, k)
    x, y = (torch.randn(rows, k, device="cuda").bfloat16() for rows in (m, n))
    a = per_token_cast_to_fp8(x, use_ue8m0=False)
    b = per_block_cast_to_fp8(y, use_ue8m0=False)
    d = torch.empty(m, n, device="cuda", dtype=torch.bfloat16)
    selection = Selection(config, best_band(problem, config))
    plan = plan_dense(problem, selection, GemmTensors.of_matrices(*a, *b, d))
    results = []
    for _ in range(20):
        d.fill_(float("nan"))
        plan.launch(*(tensor.data_ptr() for tensor in (a[0], b[0], d, a[1], b[1])))
        results.append(d.clone())
    for result in results[1:]:
        assert_bitwise_equal(result, results[0])
    check_close(d, a, b)
