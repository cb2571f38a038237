"""The kernels for MQA logits: what is fixed when one is compiled, and its source.

The Python half of csrc/mqa/config.cuh.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

import torch

from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.jit.codegen import wgmma_specialisation
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.mqa_arguments import MqaArguments
from deep_gemm.runtime.device import is_sm100
from deep_gemm.utils.math import align

TILE_KEYS = 128
"""Keys of a tile."""

NUM_THREADS = 384

FP32_BYTES = 4
"""Of a scale factor, and of a weight."""

BARRIERS_BYTES = 16
"""Of a slot of a ring: its `full` and its `empty`."""

MAX_COLUMNS = 256
"""Heads of all tokens of a block. On SM90 they are an accumulator of 128 registers a thread; on
SM100 it is the most columns of an MMA, and two such accumulators fill the tensor memory."""

TMEM_COLUMNS = 512
"""Of SM100's tensor memory."""

MAX_TOKENS = 16
"""Tokens of a block."""

SMEM_BYTES = 232448
"""What a CTA can have, on SM90 and on SM100."""

MAX_STAGES = 12
"""More key tiles than this are never under way."""


class MqaConfig(NamedTuple):
    """What is fixed when the kernel is compiled.

    Attributes:
        num_heads: a multiple of 8, at most 128.
        head_dim: 32, 64 or 128.
        num_tokens: query tokens of a block.
        page_keys: keys of a page, or 0 where keys lie in one matrix.
        logits_bytes: 4 for FP32, 2 for BF16.
        is_sm100: whether it is the kernel of SM100. Blocks and tiles are the same on both.
    """

    num_heads: int
    head_dim: int
    num_tokens: int
    page_keys: int
    logits_bytes: int
    is_sm100: bool = False

    @classmethod
    def of(cls, problem: MqaProblem) -> MqaConfig:
        """For a problem."""
        sizes = problem.heads, problem.head_dim
        dtype = torch.float32 if problem.logits_bytes == 4 else torch.bfloat16
        is_blackwell = is_sm100(problem.arch)
        if problem.page_keys:
            return cls.of_pages(*sizes, problem.next_n, problem.page_keys, dtype, is_blackwell)
        return cls.of_matrix(*sizes, dtype, is_blackwell)

    @classmethod
    def of_matrix(
        cls, num_heads: int, head_dim: int, dtype: torch.dtype, is_sm100: bool = False
    ) -> MqaConfig:
        """For keys in one matrix: as many tokens as columns allow, in whole quads of lanes if
        possible. It does not depend on the number of tokens."""
        most = min(MAX_COLUMNS // num_heads, MAX_TOKENS)
        num_tokens = most // 4 * 4 or most // 2 * 2
        return cls(num_heads, head_dim, num_tokens, 0, dtype.itemsize, is_sm100)

    @classmethod
    def of_pages(
        cls,
        num_heads: int,
        head_dim: int,
        next_n: int,
        page_keys: int,
        dtype: torch.dtype,
        is_sm100: bool = False,
    ) -> MqaConfig:
        """For keys in pages: all tokens of a sequence, or an equal part of them."""
        most = min(MAX_COLUMNS // num_heads, MAX_TOKENS)
        num_blocks = -(-next_n // most)
        num_tokens = -(-next_n // num_blocks)
        return cls(num_heads, head_dim, num_tokens, page_keys, dtype.itemsize, is_sm100)

    @property
    def quad_tokens(self) -> int:
        """Tokens that the four lanes of a quad share; on SM100 none does."""
        return 1 if self.is_sm100 else gcd(self.num_tokens, 4)

    @property
    def box_tokens(self) -> int:
        """Tokens whose queries one TMA box brings."""
        return self.num_tokens if self.is_sm100 else self.quad_tokens

    @property
    def columns(self) -> int:
        """Columns of the product."""
        return align(self.num_tokens * self.num_heads, 16)

    @property
    def num_accumulators(self) -> int:
        """Of SM100: one for each math warpgroup, or two, where they fit."""
        return 4 if 4 * self.columns <= TMEM_COLUMNS else 2

    @property
    def num_query_stages(self) -> int:
        """Slots of the ring of blocks. While a short one is computed, several have to be under way:
        each waits for its ranges of keys first, and then for its queries."""
        return 3 if self.columns * self.head_dim > 16384 else 4

    @property
    def num_stages(self) -> int:
        """Slots of the ring of key tiles: what fits."""
        room = SMEM_BYTES - self._bytes_of(0)
        return min(room // (TILE_KEYS * (self.head_dim + 4) + 16), MAX_STAGES)

    @property
    def smem_bytes(self) -> int:
        """Shared memory of a CTA: `sizeof(MqaStorage)`."""
        return self._bytes_of(self.num_stages)

    def _bytes_of(self, num_stages: int) -> int:
        queries = self.num_query_stages
        size = num_stages * TILE_KEYS * self.head_dim
        size = align(size, 1024) + queries * self.columns * self.head_dim
        size += num_stages * TILE_KEYS * FP32_BYTES
        size = align(size, 128) + queries * self.columns * FP32_BYTES
        size = align(size, 16) + queries * (self.num_tokens * 16 + 16)
        size += BARRIERS_BYTES * (num_stages + queries)
        if self.is_sm100:
            size += BARRIERS_BYTES * self.num_accumulators + 8
        size += NUM_THREADS // 32 * 4 + 16
        return align(size, 1024)

    @property
    def entry(self) -> str:
        """The kernel's name."""
        keys = f"page{self.page_keys}" if self.page_keys else "matrix"
        dtype = "fp32" if self.logits_bytes == 4 else "bf16"
        sizes = f"h{self.num_heads}_d{self.head_dim}_t{self.num_tokens}"
        return f"{self.family}_mqa_logits_{sizes}_{keys}_{dtype}"

    @property
    def family(self) -> str:
        """Whose kernel it is: sm90 or sm100."""
        return "sm100" if self.is_sm100 else "sm90"

    def initialiser(self) -> str:
        """The C++ value."""
        fields = {
            **self._asdict(),
            "num_stages": self.num_stages,
            "num_query_stages": self.num_query_stages,
            "is_sm100": str(self.is_sm100).lower(),
        }
        return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


def generate_mqa_logits(config: MqaConfig, arch: str) -> KernelSource:
    """The kernel of a configuration."""
    is_sm90 = not config.is_sm100
    wgmma = wgmma_specialisation(config.columns, config.head_dim) if is_sm90 else ""
    text = f"""\
#include "kernels/{config.family}_mqa_logits.cuh"

{wgmma}
constexpr deep_gemm::MqaConfig kConfig{config.initialiser()};

static_assert(sizeof(deep_gemm::MqaStorage<kConfig>) == {config.smem_bytes});
static_assert(sizeof(deep_gemm::MqaArguments) == {MqaArguments.cxx_size()});
static_assert(kConfig.kThreads == {NUM_THREADS});
static_assert(kConfig.kTileKeys == {TILE_KEYS});
static_assert(kConfig.quad_tokens() == {config.quad_tokens});
static_assert(kConfig.box_tokens() == {config.box_tokens});

extern "C" __global__ void __launch_bounds__({NUM_THREADS}, 1)
    {config.entry}(const __grid_constant__ deep_gemm::MqaArguments args) {{
    deep_gemm::{config.family}_mqa_logits<kConfig>(args);
}}
"""
    return KernelSource(config.entry, text, config.entry, arch, config=repr(config))
