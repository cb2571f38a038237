"""The C++ half of configurations and arguments, compiled for the host, equals the Python half."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import product

import pytest

from deep_gemm.config import gemm_config, sm100
from deep_gemm.config.gemm_config import BLOCK_SLOT_BYTES, GemmConfig, Grouping
from deep_gemm.config.legality import MAX_STAGES, broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import BLOCK_N
from deep_gemm.kernels.arguments import GemmArguments, KernelArguments, KGroupMapsArguments
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

SHAPES = [(block_m, 1 if block_m <= 64 else 2) for block_m in (16, 32, 64, 128, 256)]
KINDS = [
    (Grouping.DENSE, 128, 2),
    (Grouping.M_GROUPED, 128, 2),
    (Grouping.M_GROUPED, 128, 4),
    (Grouping.K_GROUPED, 1, 4),
    (Grouping.DENSE, 1, 2),
]
CONFIGS = [
    config
    for (block_m, num_math_warpgroups), block_n, kind in product(SHAPES, BLOCK_N, KINDS)
    for num_stages in (range(2, MAX_STAGES + 1) if kind == KINDS[0] else (2, 3, 5))
    for rounds, cluster_k in ((1, 1), (2, 1), (4, 1), (1, 2), (2, 4))
    if not broken_rules(
        config := GemmConfig(
            *(block_m, block_n, num_stages, num_math_warpgroups, 1, 1, cluster_k, rounds, *kind)
        )
    )
]
DERIVED = [
    *("mma_rows", "num_waves", "num_accumulators", "cluster_size", "d_columns", "num_threads"),
    *("sf_segment", "num_sfb", "d_swizzle_bytes", "slabs_per_round", "is_1d1d"),
]
SM100_CONFIGS = [
    config
    for grouping, gran_k, mn_major, d_bytes in product(
        (Grouping.DENSE, Grouping.M_GROUPED), ((128, 128), (32, 128)), (False, True), (2, 4)
    )
    for config in sm100.candidates(
        GemmProblem(
            *(4096, 4096, 4096, "100a", 148, grouping),
            mn_major=(False, mn_major),
            gran_k=gran_k,
            d_bytes=d_bytes,
        )
    )
]
SM100_DERIVED = [
    *("sf_group", "num_sf_groups", "num_accumulators", "tmem_columns", "b_rows"),
    *("d_swizzle_bytes", "b_part", "cluster_size"),
]
CONSTANTS = {
    name: value
    for name, value in vars(gemm_config).items()
    if name.isupper() and not name.startswith("_") and name not in ("BLOCK_SLOT_BYTES", "MMA_K")
}
STRUCTS: dict[str, type[KernelArguments]] = {
    "GemmArguments": GemmArguments,
    "KGroupMapsArguments": KGroupMapsArguments,
}
CXX_NAMES = {
    **{"pattern_a": "patterns[0]", "pattern_b": "patterns[1]", "a": "operands[0]"},
    **{"b": "operands[1]", "m": "rows[0]", "n": "rows[1]"},
}
"""Fields of KGroupMapsArguments that are elements of an array in C++."""


def offsets_of(name: str, struct: type[KernelArguments]) -> str:
    """C++ expressions for where the fields of a struct are."""
    renamed = CXX_NAMES if struct is KGroupMapsArguments else {}
    fields = (renamed.get(field, field) for field, *_ in struct._fields_)
    return ", ".join(f"offsetof({name}, {field})" for field in fields)


def cxx_constant(name: str) -> str:
    """BLOCK_K -> GemmConfig::kBlockK."""
    return "GemmConfig::k" + "".join(part.capitalize() for part in name.split("_"))


HARNESS = f"""
{CUDA_ON_HOST}
#include <cstddef>

#include "kernels/arguments.cuh"
#include "kernels/k_group_maps.cuh"
#include "pipeline/shared_storage.cuh"
#include "sm100/storage.cuh"

using namespace deep_gemm;

template <GemmConfig kConfig>
constexpr int derived[] = {{
    {", ".join(f"kConfig.{name}()" for name in DERIVED)}, sizeof(SharedStorage<kConfig>)}};

template <Sm100GemmConfig kConfig>
constexpr int sm100_derived[] = {{
    {", ".join(f"kConfig.{name}()" for name in SM100_DERIVED)}, sizeof(Sm100Storage<kConfig>)}};

extern "C" {{
const int* sm100_tables[] = {{{
    ", ".join(f"sm100_derived<Sm100GemmConfig{c.initialiser()}>" for c in SM100_CONFIGS)
}}};
const int* tables[] = {{{", ".join(f"derived<GemmConfig{c.initialiser()}>" for c in CONFIGS)}}};
int constants[] = {{{", ".join(map(cxx_constant, CONSTANTS))}}};
int GemmArguments_offsets[] = {{{offsets_of("GemmArguments", GemmArguments)}}};
int KGroupMapsArguments_offsets[] = {{{offsets_of("KGroupMapsArguments", KGroupMapsArguments)}}};
int sizes[] = {{sizeof(GemmArguments), sizeof(KGroupMapsArguments), sizeof(BlockSlot)}};
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


def test_every_derived_size_of_sm100_is_equal(library: ctypes.CDLL) -> None:
    kind = ctypes.POINTER(ctypes.c_int) * len(SM100_CONFIGS)
    tables = kind.in_dll(library, "sm100_tables")
    for config, table in zip(SM100_CONFIGS, tables, strict=True):
        expected = {name: getattr(config, name) for name in [*SM100_DERIVED, "smem_bytes"]}
        assert dict(zip(expected, table[: len(expected)], strict=True)) == expected, config


def test_the_sweep_of_configurations_is_wide() -> None:
    assert len(CONFIGS) > 400 and len(SM100_CONFIGS) > 200
    assert {config.num_accumulators for config in CONFIGS} == {1, 2}
    assert {config.num_sfb for config in CONFIGS} == {1, 2, 3}
    assert {config.d_swizzle_bytes for config in CONFIGS} == {32, 64, 128}


def test_every_constant_is_equal(library: ctypes.CDLL) -> None:
    values = integers(library, "constants", len(CONSTANTS))
    assert dict(zip(CONSTANTS, values, strict=True)) == CONSTANTS
    assert "BLOCK_K" in CONSTANTS


def test_every_argument_is_at_its_place(library: ctypes.CDLL) -> None:
    for name, struct in STRUCTS.items():
        expected = [getattr(struct, field).offset for field, *_ in struct._fields_]
        assert integers(library, f"{name}_offsets", len(expected)) == expected
    sizes = [*(struct.cxx_size() for struct in STRUCTS.values()), BLOCK_SLOT_BYTES]
    assert integers(library, "sizes", len(sizes)) == sizes
