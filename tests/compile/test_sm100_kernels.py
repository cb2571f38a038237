"""Every SM100 kernel that selection can return: it compiles for both architectures, and fits."""

from __future__ import annotations

import re
from itertools import product

import pytest

from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import candidates
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.kernels.sm100_fp8_gemm import generate_sm100

MAJORS = list(product((False, True), repeat=2))


def configs_of(
    majors: tuple[bool, bool], grouping: Grouping = Grouping.DENSE, **fields: object
) -> list[Sm100GemmConfig]:
    problem = GemmProblem(
        *(4096, 4096, 4096, "100a", 148, grouping),
        mn_major=majors,
        **fields,  # type: ignore[arg-type]
    )
    return list(candidates(problem))


@pytest.mark.parametrize("majors", MAJORS, ids=str)
@pytest.mark.parametrize("grouping", [Grouping.DENSE, Grouping.M_GROUPED], ids=lambda g: g.value)
def test_every_candidate_compiles_without_spills(
    grouping: Grouping, majors: tuple[bool, bool]
) -> None:
    configs = configs_of(majors, grouping)
    assert len(configs) == 16
    for config in configs[3::4] if grouping is Grouping.M_GROUPED else configs[1::2]:
        kernel = build(generate_sm100(config, "100a"))
        assert kernel.spill_bytes == 0
        assert kernel.static_smem_bytes == 0
        assert re.search(r"^\.target sm_100a$", kernel.ptx, re.MULTILINE)
        assert "kind::mxf8f6f4.block_scale" in kernel.ptx


@pytest.mark.parametrize("gran_k", [(32, 32), (32, 128), (128, 32)], ids=str)
@pytest.mark.parametrize("d_bytes", [2, 4])
def test_every_recipe_compiles(d_bytes: int, gran_k: tuple[int, int]) -> None:
    for config in configs_of((False, False), gran_k=gran_k, d_bytes=d_bytes)[7::8]:
        assert build(generate_sm100(config, "100a")).spill_bytes == 0


def test_it_compiles_for_sm103_too() -> None:
    kernel = build(generate_sm100(configs_of((False, True))[11], "103a"))
    assert re.search(r"^\.target sm_103a$", kernel.ptx, re.MULTILINE)
