"""The C++ half of configurations and arguments, compiled for the host, equals the Python half."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import product

import pytest

from deep_gemm.config import gemm_config
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.legality import MAX_STAGES, broken_rules
from deep_gemm.config.sm90 import BLOCK_N
from deep_gemm.kernels.arguments import GemmArguments
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

SHAPES = [(block_m, 1 if block_m <= 64 else 2) for block_m in (16, 32, 64, 128, 256)]
CONFIGS = [
    config
    for (block_m, num_math_warpgroups), block_n in product(SHAPES, BLOCK_N)
    for num_stages in range(2, MAX_STAGES + 1)
    for rounds in (1, 2, 4)
    if not broken_rules(
        config := GemmConfig(block_m, block_n, num_stages, num_math_warpgroups, 1, 1, rounds)
    )
]
DERIVED = [
    *("mma_rows", "num_waves", "num_accumulators", "cluster_size", "num_threads"),
    *("sf_segment", "num_sfb", "d_swizzle_bytes", "slabs_per_round"),
]
CONSTANTS = {name: value for name, value in vars(gemm_config).items() if name.isupper()}
FIELDS = [name for name, *_ in GemmArguments._fields_]


def cxx_constant(name: str) -> str:
    """BLOCK_K -> GemmConfig::kBlockK."""
    return "GemmConfig::k" + "".join(part.capitalize() for part in name.split("_"))


HARNESS = f"""
{CUDA_ON_HOST}
#include <cstddef>

#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"

using namespace deep_gemm;

template <GemmConfig kConfig>
constexpr int derived[] = {{
    {", ".join(f"kConfig.{name}()" for name in DERIVED)}, sizeof(SharedStorage<kConfig>)}};

extern "C" {{
const int* tables[] = {{{", ".join(f"derived<GemmConfig{c.initialiser()}>" for c in CONFIGS)}}};
int constants[] = {{{", ".join(map(cxx_constant, CONSTANTS))}}};
int offsets[] = {{{", ".join(f"offsetof(GemmArguments, {name})" for name in FIELDS)}}};
int arguments_size = sizeof(GemmArguments);
}}
"""


@pytest.fixture(scope="module")
def library(host_compiler: Callable[..., ctypes.CDLL]) -> ctypes.CDLL:
    return host_compiler(HARNESS, *CUDA_ON_HOST_FLAGS)


def integers(library: ctypes.CDLL, name: str, count: int) -> list[int]:
    return list((ctypes.c_int * count).in_dll(library, name))


def test_every_derived_size_is_equal(library: ctypes.CDLL) -> None:
    kind = ctypes.POINTER(ctypes.c_int) * len(CONFIGS)
    for config, table in zip(CONFIGS, kind.in_dll(library, "tables"), strict=True):
        expected = {name: getattr(config, name) for name in [*DERIVED, "smem_bytes"]}
        assert dict(zip(expected, table[: len(expected)], strict=True)) == expected, config


def test_the_sweep_of_configurations_is_wide() -> None:
    assert len(CONFIGS) > 400
    assert {config.num_accumulators for config in CONFIGS} == {1, 2}
    assert {config.num_sfb for config in CONFIGS} == {1, 2, 3}
    assert {config.d_swizzle_bytes for config in CONFIGS} == {32, 64, 128}


def test_every_constant_is_equal(library: ctypes.CDLL) -> None:
    values = integers(library, "constants", len(CONSTANTS))
    assert dict(zip(CONSTANTS, values, strict=True)) == CONSTANTS
    assert "BLOCK_K" in CONSTANTS


def test_every_argument_is_at_its_place(library: ctypes.CDLL) -> None:
    expected = {name: getattr(GemmArguments, name).offset for name in FIELDS}
    assert dict(zip(FIELDS, integers(library, "offsets", len(FIELDS)), strict=True)) == expected
    assert integers(library, "arguments_size", 1) == [GemmArguments.cxx_size()]
