"""Kernels of grouped products and of 1D1D that selection could pick, forced: all exact.

The reference's bugs with clusters came from numbers of blocks that do not divide: commits 95e81b3
(DG#90), aff9da0 (DG#147), 046fab6, ddccb23, 79f48ee, and ac428e2, FP32 outputs of every block_n.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import candidates
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_k_grouped,
    check_masked,
    forced,
    run_contiguous,
    run_dense,
    run_k_grouped,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import exact_operand, flat_operand, poison, row_ends, row_ids

N, K = 776, 400
M_GROUPED = GemmProblem(333, N, K, grouping=Grouping.M_GROUPED, num_groups=4)


def sample(problem: GemmProblem) -> list[GemmConfig]:
    """Two configurations for every block_n, compiled on all cores: all would take minutes."""
    pick = random.Random(0)
    by_block_n = defaultdict(list)
    for config in candidates(problem):
        by_block_n[config.block_n].append(config)
    configs = [c for same in by_block_n.values() for c in pick.sample(same, min(2, len(same)))]
    assert any(config.cluster_size > 1 for config in configs)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda config: build(generate(config, "90a")), configs))
    return configs


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_contiguous(dtype: torch.dtype) -> None:
    configs = sample(replace(M_GROUPED, d_bytes=dtype.itemsize))
    sizes = [77, 0, 333, 129, 640]
    for layout in (row_ids(list(enumerate(sizes)), 1), row_ends(sizes, 16, behind=100)):
        a = exact_operand((len(layout.row_groups), K), 1, "cuda")
        poison(a, layout.row_groups < 0)
        b = exact_operand((5, N, K), 128, "cuda", 1)
        for config in configs:
            with forced(config):
                check_contiguous(run_contiguous(a, b, layout, dtype), a, b, layout)


def test_masked() -> None:
    masked_m = [333, 0, 65, 130]
    a, b = exact_operand((4, 333, K), 1, "cuda"), exact_operand((4, N, K), 128, "cuda", 1)
    poison(a, ~valid_rows(masked_m, 333))
    for config in sample(M_GROUPED):
        with forced(config):
            check_masked(run_masked(a, b, masked_m), a, b, masked_m)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("gran_n", [1, 128])
def test_dense(gran_n: int, dtype: torch.dtype) -> None:
    a, b = exact_operand((333, K), 1, "cuda"), exact_operand((N, K), gran_n, "cuda", 1)
    for config in sample(GemmProblem(333, N, K, gran_n=gran_n, d_bytes=dtype.itemsize)):
        for c in ("none", "d"):
            with forced(config):
                d, values = run_dense(a, b, dtype, gran_n, c)
            check_dense(d, a, b, gran_n, values)


def test_k_grouped() -> None:
    ks = [384, 0, 128, 256]
    a, b = flat_operand(333, ks, "cuda"), flat_operand(N, ks, "cuda", 2)
    kind = GemmProblem(333, N, 192, grouping=Grouping.K_GROUPED, num_groups=4, gran_n=1, d_bytes=4)
    for config in sample(kind):
        for c in ("none", "d"):
            with forced(config):
                d, values = run_k_grouped(a, b, ks, c=c)
            check_k_grouped(d, a, b, ks, values)
