"""K-grouped FP8 GEMM on SM100: a small kernel that makes each group's tensor maps, and the GEMM."""

from __future__ import annotations

from ctypes import c_bool, c_uint32, c_void_p
from typing import NamedTuple

import torch

from deep_gemm.checks import extent
from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import Sm100Selection
from deep_gemm.config.sm100_config import MMA_M, Sm100GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.kernels.k_grouped import WARP, KGroupedPlan, k_groups_bytes, maps_bytes
from deep_gemm.kernels.sm100_fp8_gemm import gemm_arguments, operand_map, output_map, sm100_launch
from deep_gemm.runtime.launch import KernelLaunch
from deep_gemm.runtime.plan import make_plan
from deep_gemm.tensor_map import TensorMap


class KGroups(NamedTuple):
    """The groups of a k-grouped product.

    Attributes:
        numbers: int32 [num_groups], on the device: k_i of each, or where each ends.
        total_k: along K, of all groups and the gaps between them.
        alignment: if they have ends, of the places along K where they begin; else None.
    """

    numbers: torch.Tensor
    total_k: int
    alignment: int | None = None


class Sm100KGroupMapsArguments(KernelArguments):
    """Parameters of the kernel that makes the maps, in the order of the C++ struct in
    kernels/sm100_k_group_maps.cuh."""

    _fields_ = (
        ("pattern_a", TensorMap),
        ("pattern_b", TensorMap),
        ("a", c_void_p),
        ("b", c_void_p),
        ("bytes_per_k_a", c_uint32),
        ("bytes_per_k_b", c_uint32),
        ("grouped_layout", c_void_p),
        ("group_maps", c_void_p),
        ("k_groups", c_void_p),
        ("num_groups", c_uint32),
        ("total_k", c_uint32),
        ("num_words", c_uint32),
        ("gran_k", c_uint32),
        ("alignment", c_uint32),
        ("has_ends", c_bool),
        ("is_mn_major", c_bool),
    )


def generate_sm100_k_group_maps(arch: str) -> KernelSource:
    """The kernel that makes the tensor maps of a k-grouped GEMM's groups."""
    name = "sm100_k_group_maps"
    size = Sm100KGroupMapsArguments.cxx_size()
    text = f"""\
#include "kernels/sm100_k_group_maps.cuh"

static_assert(sizeof(deep_gemm::Sm100KGroupMapsArguments) == {size});

extern "C" __global__ void __launch_bounds__({WARP})
    {name}(const __grid_constant__ deep_gemm::Sm100KGroupMapsArguments args) {{
    deep_gemm::sm100_k_group_maps(args);
}}
"""
    return KernelSource(name=name, text=text, entry=name, arch=arch)


def _pattern(x: torch.Tensor, is_mn_major: bool, rows: int) -> torch.Tensor:
    """What stands for one group's operand [1, rows, k] of one k block; the kernel puts in address,
    k and, K-major, the stride of rows."""
    if not is_mn_major:
        return torch.empty(1, rows, BLOCK_K, device="meta")
    row_stride = x.stride(0)
    strides = (BLOCK_K * row_stride, row_stride, 1)
    return torch.empty_strided((1, BLOCK_K, rows), strides, device="meta").mT


def _maps_launch(
    problem: GemmProblem, config: Sm100GemmConfig, tensors: GemmTensors, groups: KGroups
) -> KernelLaunch:
    """The launch that makes the groups' maps; addresses: a, b, a, b, numbers, maps, groups."""
    arguments = Sm100KGroupMapsArguments.allocate()
    a, b, m = tensors.a, tensors.b, tensors.d.shape[1]
    is_mn_major = config.a_is_mn_major
    arguments.bytes_per_k_a = a.stride(0) if is_mn_major else m
    arguments.bytes_per_k_b = b.stride(0) if is_mn_major else problem.n
    arguments.num_groups, arguments.total_k = problem.num_groups, groups.total_k
    arguments.num_words, arguments.gran_k = tensors.sfa.shape[-1], config.gran_k_a
    arguments.has_ends, arguments.alignment = groups.alignment is not None, groups.alignment or 1
    arguments.is_mn_major = is_mn_major
    pattern_a = operand_map(_pattern(a, is_mn_major, m), is_mn_major, MMA_M)
    pattern_b = operand_map(_pattern(b, is_mn_major, problem.n), is_mn_major, config.b_part)
    return KernelLaunch(
        kernel=build(generate_sm100_k_group_maps(problem.arch), purpose=problem),
        arguments=arguments,
        maps=(("pattern_a", pattern_a), ("pattern_b", pattern_b)),
        pointers=(
            *(("a", extent(a)), ("b", extent(b)), ("grouped_layout", extent(groups.numbers))),
            ("group_maps", maps_bytes(problem.num_groups)),
            ("k_groups", k_groups_bytes(problem.num_groups)),
        ),
        grid=problem.num_groups,
        num_threads=WARP,
        smem_bytes=0,
        cluster_size=1,
    )


def plan_sm100_k_grouped(
    problem: GemmProblem,
    selection: Sm100Selection,
    tensors: GemmTensors,
    groups: KGroups,
    accumulates: bool,
) -> KGroupedPlan:
    """Prepares D[g] = A_g @ B_g.T of all groups; launch it with the addresses of a, b, d, sfa, sfb
    and the groups' numbers.

    Args:
        problem: sizes, architecture and multiprocessors; both operands of the same major.
        selection: the configuration and the block order.
        tensors: A and B as callers have them: flat, or [k, m] and [k, n]. SFA and SFB packed,
            [1, m or n, words], any strides; D [groups, m, n].
        groups: where they lie along K.
        accumulates: D += instead.
    """
    config, a, d = selection.config, tensors.a, tensors.d
    arguments = gemm_arguments(problem, selection, tensors, accumulates)
    maps_launch = _maps_launch(problem, config, tensors, groups)
    *_, group_maps, k_groups = maps_launch.pointers
    rows = problem.num_groups * config.cluster_grid(d.shape[1], 1)[0]
    # A and B are reached by the groups' maps.
    others = (group_maps, k_groups, ("", extent(a)), ("", extent(tensors.b)))
    maps = (output_map(config, d),)
    gemm_launch = sm100_launch(problem, config, arguments, tensors, maps, others, rows)
    addresses = [tensor.data_ptr() for tensor in (d, tensors.sfa, tensors.sfb)]
    return KGroupedPlan(
        make_plan(maps_launch, [a.data_ptr(), tensors.b.data_ptr()], a.device),
        make_plan(gemm_launch, addresses, a.device),
        problem.num_groups,
        a.device,
    )
