"""FP8 GEMMs on SM100: from tensors to a plan."""

from __future__ import annotations

import torch

from deep_gemm.checks import extent
from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import Sm100Selection
from deep_gemm.config.sm100_config import MMA_M, Sm100GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GemmArguments, GroupedLayout
from deep_gemm.kernels.fp8_gemm import D_TYPES, GemmTensors, l2_policies, row_strides
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
    return KernelSource(config.name, text, config.entry, arch, config=repr(config))


def operand_map(x: torch.Tensor, is_mn_major: bool, rows: int) -> BoxMap:
    """The tensor map of an operand [batch, mn, k], for tiles of so many rows of 128 of K."""
    if is_mn_major:
        x, rows = x.mT, BLOCK_K
    return matrix_map(UINT8, tuple(x.shape), row_strides(x), (rows, BLOCK_K))


def output_map(config: Sm100GemmConfig, d: torch.Tensor) -> tuple[str, BoxMap]:
    """The field and the tensor map of D [batch, m, n]."""
    box = (MMA_M, config.d_swizzle_bytes // config.d_bytes)
    return "tensor_map_d", matrix_map(D_TYPES[d.dtype], tuple(d.shape), row_strides(d), box)


def gemm_arguments(
    problem: GemmProblem, selection: Sm100Selection, tensors: GemmTensors, accumulates: bool
) -> GemmArguments:
    """The arguments of every kind of product."""
    arguments = GemmArguments.allocate()
    sfa, sfb = tensors.sfa, tensors.sfb
    arguments.sfa_stride_batch, arguments.sfa_stride_m, arguments.sfa_stride_k = sfa.stride()
    arguments.sfb_stride_batch, arguments.sfb_stride_n, arguments.sfb_stride_k = sfb.stride()
    arguments.m, arguments.n, arguments.k = tensors.d.shape[1], problem.n, problem.k
    arguments.band = selection.band
    arguments.accumulates = accumulates
    arguments.policy_a, arguments.policy_b = l2_policies(problem, selection.config)
    arguments.num_groups = problem.num_groups
    return arguments


def sm100_launch(
    problem: GemmProblem,
    config: Sm100GemmConfig,
    arguments: GemmArguments,
    tensors: GemmTensors,
    maps: tuple[tuple[str, BoxMap], ...],
    pointers: tuple[tuple[str, int], ...],
    max_rows: int,
) -> KernelLaunch:
    """A persistent launch.

    Args:
        problem: what is computed.
        config: how.
        arguments: complete but for addresses.
        tensors: of the launch.
        maps: tensor maps, by field.
        pointers: what follows SFA and SFB, by field, and the bytes behind it.
        max_rows: the most rows of clusters that there can be.
    """
    columns = config.cluster_grid(1, problem.n)[1]
    num_clusters = min(problem.num_sms // config.cluster_size, max_rows * columns)
    return KernelLaunch(
        kernel=build(generate_sm100(config, problem.arch), purpose=problem),
        arguments=arguments,
        maps=maps,
        pointers=(("sfa", extent(tensors.sfa)), ("sfb", extent(tensors.sfb)), *pointers),
        grid=num_clusters * config.cluster_size,
        num_threads=config.num_threads,
        smem_bytes=config.smem_bytes,
        cluster_size=config.cluster_size,
        pdl=problem.pdl,
    )


def _matrix_maps(config: Sm100GemmConfig, tensors: GemmTensors) -> tuple[tuple[str, BoxMap], ...]:
    """The tensor maps of A, B and D."""
    return (
        ("tensor_map_a", operand_map(tensors.a, config.a_is_mn_major, MMA_M)),
        ("tensor_map_b", operand_map(tensors.b, config.b_is_mn_major, config.b_part)),
        output_map(config, tensors.d),
    )


def plan_sm100_dense(
    problem: GemmProblem,
    selection: Sm100Selection,
    tensors: GemmTensors,
    accumulates: bool = False,
    head_splits: tuple[int, int, int] = (0, 0, 0),
) -> Plan:
    """Prepares D = A @ B.T; launch it with the addresses of a, b, d, sfa and sfb.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        tensors: of one product; scale factors are packed, int32 [1, rows, words], any strides.
        accumulates: D += A @ B.T instead.
        head_splits: as for `plan_dense`.
    """
    config = selection.config
    arguments = gemm_arguments(problem, selection, tensors, accumulates)
    arguments.head_left, arguments.head_mid, arguments.head_right = head_splits
    rows = config.cluster_grid(problem.m, problem.n)[0]
    launch = sm100_launch(
        problem, config, arguments, tensors, _matrix_maps(config, tensors), (), rows
    )
    every = (tensors.a, tensors.b, tensors.d, tensors.sfa, tensors.sfb)
    return make_plan(launch, [tensor.data_ptr() for tensor in every], tensors.d.device)


def plan_sm100_m_grouped(
    problem: GemmProblem,
    selection: Sm100Selection,
    tensors: GemmTensors,
    layout: GroupedLayout,
    grouped_layout: torch.Tensor,
    clears_padding: bool,
) -> Plan:
    """Prepares an m-grouped product; launch it as what `plan_m_grouped` makes.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        tensors: A, SFA and D of one matrix, or for ROW_COUNTS of one per group; B and SFB of one
            per group; scale factors are packed.
        layout: what the grouped layout holds.
        grouped_layout: int32, contiguous.
        clears_padding: for ROW_ENDS: rows of D behind a group's last become zero, up to the next
            aligned one.
    """
    config = selection.config
    arguments = gemm_arguments(problem, selection, tensors, accumulates=False)
    arguments.layout = layout
    arguments.alignment = problem.alignment
    arguments.clears_padding = clears_padding
    batch_stride, row_stride = row_strides(tensors.d)
    arguments.d_stride_batch = batch_stride * config.d_bytes
    arguments.d_stride_m = row_stride * config.d_bytes
    batches, rows, _ = tensors.d.shape
    pointers = (
        ("grouped_layout", extent(grouped_layout)),
        ("d", extent(tensors.d)),
        # The order of addresses is that of SM90, whose kernel has SFA twice.
        ("", extent(tensors.sfa)),
    )
    # Any group may begin anywhere and so need one tile more than its rows fill.
    max_rows = batches * config.cluster_grid(rows, 1)[0] + problem.num_groups
    maps = _matrix_maps(config, tensors)
    launch = sm100_launch(problem, config, arguments, tensors, maps, pointers, max_rows)
    every = (tensors.a, tensors.b, tensors.d, tensors.sfa, tensors.sfb)
    addresses = [t.data_ptr() for t in (*every, grouped_layout, tensors.d, tensors.sfa)]
    return make_plan(launch, addresses, tensors.d.device)
