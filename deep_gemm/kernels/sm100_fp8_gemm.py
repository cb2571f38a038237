"""FP8 GEMMs on SM100: from tensors to a plan."""

from __future__ import annotations

import torch

from deep_gemm.checks import extent
from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.config.sm100_config import MMA_M, Sm100GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GemmArguments
from deep_gemm.kernels.fp8_gemm import D_TYPES, GemmTensors
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.tensor_map import UINT8, BoxMap, matrix_map


def generate_sm100(config: Sm100GemmConfig, arch: str) -> KernelSource:
    """The FP8 GEMM kernel of an SM100 configuration."""
    text = f"""\
#include "kernels/sm100_fp8_gemm.cuh"

constexpr deep_gemm::Sm100GemmConfig kConfig{config.initialiser()};

static_assert(sizeof(deep_gemm::Sm100Storage<kConfig>) == {config.smem_bytes});
static_assert(sizeof(deep_gemm::GemmArguments) == {GemmArguments.cxx_size()});
static_assert(kConfig.kNumThreads == {config.num_threads});
static_assert(kConfig.tmem_columns() == {config.tmem_columns});
static_assert(kConfig.d_swizzle_bytes() == {config.d_swizzle_bytes});

extern "C" __global__ void __launch_bounds__({config.num_threads}, 1)
    {config.entry}(const __grid_constant__ deep_gemm::GemmArguments args) {{
    deep_gemm::sm100_fp8_gemm<kConfig>(args);
}}
"""
    return KernelSource(name=config.name, text=text, entry=config.entry, arch=arch)


def operand_map(x: torch.Tensor, is_mn_major: bool, rows: int) -> BoxMap:
    """The tensor map of an operand [batch, mn, k], for tiles of so many rows of 128 of K."""
    if is_mn_major:
        x, rows = x.mT, BLOCK_K
    return matrix_map(UINT8, tuple(x.shape), (x.stride(0), x.stride(1)), (rows, 128))


def plan_sm100_dense(
    shape: tuple[int, int, int],
    config: Sm100GemmConfig,
    tensors: GemmTensors,
    num_sms: int,
    arch: str,
    accumulates: bool = False,
) -> Plan:
    """Prepares D = A @ B.T; launch it with the addresses of a, b, d, sfa and sfb.

    Args:
        shape: m, n and k.
        config: how.
        tensors: scale factors are int32, [batch, rows, words], any strides.
        num_sms: multiprocessors.
        arch: such as "100a".
        accumulates: D += A @ B.T instead.
    """
    m, n, k = shape
    arguments = GemmArguments.allocate()
    sfa, sfb, d = tensors.sfa, tensors.sfb, tensors.d
    arguments.sfa_stride_batch, arguments.sfa_stride_m, arguments.sfa_stride_k = sfa.stride()
    arguments.sfb_stride_batch, arguments.sfb_stride_n, arguments.sfb_stride_k = sfb.stride()
    arguments.m, arguments.n, arguments.k = m, n, k
    arguments.band = 1
    arguments.accumulates = accumulates
    arguments.num_groups = 1
    rows, columns = config.cluster_grid(m, n)
    box = (MMA_M, config.d_swizzle_bytes // config.d_bytes)
    d_strides = (d.stride(0), d.stride(1))
    launch = KernelLaunch(
        kernel=build(generate_sm100(config, arch)),
        arguments=arguments,
        maps=(
            ("tensor_map_a", operand_map(tensors.a, config.a_is_mn_major, MMA_M)),
            ("tensor_map_b", operand_map(tensors.b, config.b_is_mn_major, config.block_n)),
            ("tensor_map_d", matrix_map(D_TYPES[d.dtype], tuple(d.shape), d_strides, box)),
        ),
        pointers=(("sfa", extent(sfa)), ("sfb", extent(sfb))),
        grid=min(num_sms, rows * columns),
        num_threads=config.num_threads,
        smem_bytes=config.smem_bytes,
        cluster_size=config.cluster_size,
    )
    every = (tensors.a, tensors.b, d, sfa, sfb)
    return make_plan(launch, [tensor.data_ptr() for tensor in every], d.device)
