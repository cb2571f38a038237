"""MQA logits: the same sizes in C++ as in Python, and configurations that fit the hardware."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable

import pytest
import torch

from deep_gemm.config.mqa_problem import HEAD_DIMS, HEADS, PAGE_KEYS, MqaProblem
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.kernels.mqa_arguments import MqaArguments
from deep_gemm.kernels.mqa_config import (
    MAX_COLUMNS,
    MAX_TOKENS,
    SMEM_BYTES,
    TMEM_COLUMNS,
    MqaConfig,
)
from deep_gemm.kernels.paged_shares import PagedSharesArguments
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

FP32 = torch.float32

CONFIGS = sorted(
    {
        *(MqaConfig.of_matrix(h, d, FP32) for h, d in itertools.product(HEADS, HEAD_DIMS)),
        *(
            MqaConfig.of_pages(h, d, next_n, page, FP32)
            for h, d, next_n, page in itertools.product(
                (8, 16, 24, 32, 64, 128), HEAD_DIMS, (1, 2, 3, 4, 7, 12, 40), PAGE_KEYS
            )
        ),
    }
)
CONFIGS += [config._replace(is_sm100=True) for config in CONFIGS[::3]]
DERIVED = ("quad_tokens", "box_tokens", "columns", "num_accumulators")
STRUCTS: dict[str, type[KernelArguments]] = {
    "MqaArguments": MqaArguments,
    "PagedSharesArguments": PagedSharesArguments,
}


def offsets_of(name: str) -> str:
    fields = (field for field, *_ in STRUCTS[name]._fields_)
    return ", ".join(f"offsetof({name}, {field})" for field in fields)


HARNESS = f"""
{CUDA_ON_HOST}
#include <cstddef>

#include "kernels/paged_shares.cuh"
#include "mqa/arguments.cuh"
#include "mqa/storage.cuh"

using namespace deep_gemm;

template <MqaConfig kConfig>
constexpr int derived[] = {{
    {", ".join(f"kConfig.{name}()" for name in DERIVED)}, sizeof(MqaStorage<kConfig>)}};

extern "C" {{
const int* tables[] = {{{", ".join(f"derived<MqaConfig{c.initialiser()}>" for c in CONFIGS)}}};
{"".join(f"int {name}_offsets[] = {{{offsets_of(name)}}};" for name in STRUCTS)}
}}
"""


@pytest.fixture(scope="module")
def library(host_compiler: Callable[..., ctypes.CDLL]) -> ctypes.CDLL:
    return host_compiler(HARNESS, *CUDA_ON_HOST_FLAGS)


def test_every_derived_size_is_equal(library: ctypes.CDLL) -> None:
    kind = ctypes.POINTER(ctypes.c_int) * len(CONFIGS)
    for config, table in zip(CONFIGS, kind.in_dll(library, "tables"), strict=True):
        expected = {name: getattr(config, name) for name in [*DERIVED, "smem_bytes"]}
        assert dict(zip(expected, table[: len(expected)], strict=True)) == expected, config


@pytest.mark.parametrize("name", STRUCTS)
def test_every_argument_is_at_its_place(library: ctypes.CDLL, name: str) -> None:
    struct = STRUCTS[name]
    expected = [getattr(struct, field).offset for field, *_ in struct._fields_]
    found = (ctypes.c_int * len(expected)).in_dll(library, f"{name}_offsets")
    assert list(found) == expected


def test_every_configuration_fits() -> None:
    for config in CONFIGS:
        assert config.num_stages >= 4 and config.num_query_stages >= 2, config
        assert config.smem_bytes <= SMEM_BYTES, config
        assert 1 <= config.num_tokens <= MAX_TOKENS, config
        # Each half is the N of a WGMMA: a multiple of 8. All are the N of a tcgen05.mma.
        assert config.columns <= MAX_COLUMNS and config.columns % 16 == 0, config
        assert config.num_accumulators * config.columns <= TMEM_COLUMNS, config


def test_blocks_of_a_matrix_have_as_many_tokens_as_columns_allow() -> None:
    tokens = {h: MqaConfig.of_matrix(h, 128, FP32).num_tokens for h in (8, 16, 24, 32, 64, 72, 128)}
    assert tokens == {8: 16, 16: 16, 24: 8, 32: 8, 64: 4, 72: 2, 128: 2}


def test_the_tokens_of_a_sequence_are_divided_equally() -> None:
    tokens = {n: MqaConfig.of_pages(64, 128, n, 64, FP32).num_tokens for n in (1, 2, 3, 4, 5, 6, 9)}
    assert tokens == {1: 1, 2: 2, 3: 3, 4: 4, 5: 3, 6: 3, 9: 3}


def test_a_problem_has_the_configuration_of_its_calls() -> None:
    assert MqaConfig.of(MqaProblem(64, 128)) == MqaConfig.of_matrix(64, 128, FP32)
    paged = MqaProblem(32, 64, 16, 3, 2, "103a")
    bf16 = torch.bfloat16
    assert MqaConfig.of(paged) == MqaConfig.of_pages(32, 64, 3, 16, bf16, is_sm100=True)
