"""Casts to FP8 with one scale factor per 128 rows and column, or per 128 x 128."""

from __future__ import annotations

from ctypes import sizeof
from typing import NamedTuple

import torch

from deep_gemm.checks import MAX_DIMENSION, extent, refuse
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.cast import INPUTS, CastArguments, SfFormat, vector_size, word
from deep_gemm.kernels.transpose import strides_of_batch
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.utils.math import ceil_div

TILE = 128
VECTORS = 8
"""Vectors of 16 bytes that a thread reads."""

THREADS_OF_SM = 1024
"""Threads that are to fit a multiprocessor: each may have 64 registers."""


class BlockCastConfig(NamedTuple):
    """What is fixed when the kernel is compiled: `BlockCastConfig` of block_cast.cuh.

    Attributes:
        dtype: of the input.
        use_ue8m0: scale factors are rounded up to powers of two.
        per_channel: a scale factor for every column, not for 128.
    """

    dtype: torch.dtype
    use_ue8m0: bool
    per_channel: bool

    @property
    def num_threads(self) -> int:
        """Threads of a CTA."""
        return TILE * TILE // vector_size(self.dtype) // VECTORS

    @property
    def smem_bytes(self) -> int:
        """Of largest magnitudes, per warp and column, and of scale factors."""
        return 4 * TILE * (self.num_threads // 32 + 1)

    @property
    def entry(self) -> str:
        """The kernel's name."""
        kind = "per_channel" if self.per_channel else "per_block"
        return f"{kind}_cast_{word(self.dtype)}_{self._sf.name.lower()}"

    @property
    def _sf(self) -> SfFormat:
        return SfFormat.UE8M0 if self.use_ue8m0 else SfFormat.FP32

    def initialiser(self) -> str:
        """The C++ value."""
        return (
            f"{{.input = deep_gemm::CastInput::{INPUTS[self.dtype]}, "
            f".sf = deep_gemm::SfFormat::{self._sf.value}, "
            f".per_channel = {str(self.per_channel).lower()}}}"
        )


def generate_block_cast(config: BlockCastConfig, arch: str) -> KernelSource:
    """The casting kernel of a configuration."""
    text = f"""\
#include "kernels/block_cast.cuh"

constexpr deep_gemm::BlockCastConfig kConfig{config.initialiser()};

static_assert(sizeof(deep_gemm::CastArguments) == {sizeof(CastArguments)});
static_assert(sizeof(deep_gemm::BlockCastStorage<kConfig>) == {config.smem_bytes});
static_assert(kConfig.kTile == {TILE});
static_assert(kConfig.threads() == {config.num_threads});

extern "C" __global__ void
    __launch_bounds__({config.num_threads}, {THREADS_OF_SM // config.num_threads})
    {config.entry}(const __grid_constant__ deep_gemm::CastArguments args) {{
    deep_gemm::block_cast<kConfig>(args);
}}
"""
    return KernelSource(config.entry, text, config.entry, arch, config=repr(config))


def plan_block_cast(
    config: BlockCastConfig, x: torch.Tensor, data: torch.Tensor, sf: torch.Tensor
) -> Plan:
    """The launch for tensors of these shapes and strides; it lacks their addresses.

    Args:
        config: of the kernel.
        x: [m, n] or [batch, m, n] of config's dtype, contiguous columns.
        data: FP8 of x's shape, contiguous columns.
        sf: FP32 [.., ceil(m / 128), n] per channel, else [.., ceil(m / 128), ceil(n / 128)], any
            strides.

    Raises:
        ArgumentError: there are too many tiles.
    """
    rows, columns = x.shape[-2:]
    num_tiles = x.shape[:-2].numel() * ceil_div(rows, TILE) * ceil_div(columns, TILE)
    if num_tiles > MAX_DIMENSION:
        refuse("x", f"must have at most {MAX_DIMENSION} tiles of {TILE} x {TILE}", tuple(x.shape))
    arguments = CastArguments.allocate()
    arguments.x_stride_batch, arguments.x_stride_row, _ = strides_of_batch(x)
    arguments.data_stride_batch, arguments.data_stride_row, _ = strides_of_batch(data)
    sf_strides = strides_of_batch(sf)
    arguments.sf_stride_batch, arguments.sf_stride_row, arguments.sf_stride_column = sf_strides
    arguments.rows, arguments.columns = rows, columns
    launch = KernelLaunch(
        kernel=build(generate_block_cast(config, arch_of(x.device))),
        arguments=arguments,
        maps=(),
        pointers=(("x", extent(x)), ("data", extent(data)), ("sf", extent(sf))),
        grid=num_tiles,
        num_threads=config.num_threads,
        smem_bytes=config.smem_bytes,
        cluster_size=1,
    )
    return make_plan(launch, (x.data_ptr(), data.data_ptr(), sf.data_ptr()), x.device)
