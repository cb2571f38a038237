"""SM100 kernels that selection returns over a sweep of problems: they compile for both
architectures, and spill nothing."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

import pytest

from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import broken_rules, select
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.kernels.sm100_fp8_gemm import generate_sm100
from deep_gemm.kernels.sm100_k_grouped import generate_sm100_k_group_maps

ARCHS = ("100a", "103a")
TIMES_FEWER = 12
"""Of the sweep's configurations, one of so many is compiled here for each architecture, and of
every grouping a pair besides."""

ROWS = (1, 128, 2048)
WEIGHTS = ((2112, 7168), (7168, 2048), (64, 512))
MAJORS = tuple(itertools.product((False, True), repeat=2))
GRANULARITIES = tuple(itertools.product((32, 128), repeat=2))


def dense_problems(m: int, n: int, k: int) -> Iterator[GemmProblem]:
    for mn_major, gran_k, d_bytes in itertools.product(MAJORS, GRANULARITIES, (2, 4)):
        yield GemmProblem(
            *(m, n, k, "100a", 148),
            gran_n=1,
            d_bytes=d_bytes,
            mn_major=mn_major,
            gran_k=gran_k,
        )
    yield GemmProblem(m, n, k, "100a", 148, gran_n=1, head_columns=64)


def grouped_problems(m: int, n: int, k: int) -> Iterator[GemmProblem]:
    for groups, d_bytes, is_major in itertools.product((4, 8, 32), (2, 4), (False, True)):
        for alignment in (1, 128):
            yield GemmProblem(
                *(m, n, k, "100a", 148, Grouping.M_GROUPED, groups, alignment),
                gran_n=1,
                d_bytes=d_bytes,
                mn_major=(False, is_major),
            )
        for gran in (32, 128):
            yield GemmProblem(
                *(n, k, m, "100a", 148, Grouping.K_GROUPED, groups),
                gran_n=1,
                d_bytes=d_bytes,
                mn_major=(is_major, is_major),
                gran_k=(gran, gran),
            )


@functools.cache
def returned_configs() -> tuple[Sm100GemmConfig, ...]:
    """What selection returns for any of the sweep's problems, each once."""
    found: dict[Sm100GemmConfig, None] = {}
    for m, (n, k) in itertools.product(ROWS, WEIGHTS):
        for problem in (*dense_problems(m, n, k), *grouped_problems(m, n, k)):
            selection = select(problem)
            if selection is not None:
                found[selection.config] = None
    return tuple(found)


def sample(arch: str) -> list[Sm100GemmConfig]:
    """What is compiled for an architecture."""
    configs = returned_configs()
    chosen = configs[0 if arch == ARCHS[0] else TIMES_FEWER // 2 :: TIMES_FEWER]
    pairs = {config.grouping: config for config in configs if config.cluster_m == 2}
    return list(dict.fromkeys((*chosen, *pairs.values())))


def check_kernel(config: Sm100GemmConfig, arch: str) -> None:
    """It compiles, with block-scaled MMAs, and needs no memory that it should not."""
    kernel = build(generate_sm100(config, arch))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0, config.name
    assert re.search(rf"^\.target sm_{arch}$", kernel.ptx, re.MULTILINE)
    assert f"cta_group::{config.cluster_m}.kind::mxf8f6f4.block_scale" in kernel.ptx


def test_the_sweep_has_kernels_of_all_kinds() -> None:
    configs = returned_configs()
    assert len(configs) > 200
    assert not any(broken_rules(config) for config in configs)
    for compiled in (configs, *map(sample, ARCHS)):
        kinds = {(config.grouping, config.cluster_m) for config in compiled}
        assert kinds == set(itertools.product(Grouping, (1, 2)))
        majors = {(config.a_is_mn_major, config.b_is_mn_major) for config in compiled}
        grans = {(config.gran_k_a, config.gran_k_b) for config in compiled}
        assert majors == set(MAJORS) and grans == set(GRANULARITIES)
        assert {config.d_bytes for config in compiled} == {2, 4}
        assert {1, 2} == {config.num_accumulators for config in compiled}


@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_compile_without_spills(arch: str) -> None:
    for config in sample(arch):
        check_kernel(config, arch)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_kernel_that_makes_tensor_maps_compiles(arch: str) -> None:
    kernel = build(generate_sm100_k_group_maps(arch))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0
