"""K-grouped FP8 GEMM: a small kernel that makes each group's tensor maps, and the GEMM."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch

from deep_gemm.checks import extent
from deep_gemm.config.gemm_config import BLOCK_K, GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate_k_group_maps
from deep_gemm.kernels.arguments import ALIGNMENT, KGroup, KGroupMapsArguments
from deep_gemm.kernels.fp8_gemm import (
    GemmTensors,
    common_arguments,
    operand_maps,
    output_map,
    persistent_launch,
    scale_factor_fields,
)
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.tensor_map import TensorMap
from deep_gemm.utils.math import align

WARP = 32
"""Threads that make one group's maps."""


@dataclass(frozen=True)
class KGroupedPlan:
    """The two launches of a k-grouped product.

    Attributes:
        maps: makes the groups' tensor maps.
        gemm: uses them.
        num_groups: groups.
        device: where the tensors are.
    """

    maps: Plan
    gemm: Plan
    num_groups: int
    device: torch.device

    def launch(self, *addresses: int) -> None:
        """Enqueues both on the device's current stream, for a, b, d, sfa, sfb and ks."""
        a, b, d, sfa, sfb, ks = addresses
        # From PyTorch's allocator, which gives memory back in stream order.
        workspace = _workspace(self.num_groups, self.device)
        group_maps = align(workspace.data_ptr(), ALIGNMENT)
        k_groups = group_maps + maps_bytes(self.num_groups)
        self.maps.launch(a, b, a, b, ks, group_maps, k_groups)
        self.gemm.launch(d, sfa, sfb, group_maps, k_groups, a, b)


def maps_bytes(num_groups: int) -> int:
    """Of the groups' tensor maps of A and B."""
    return 2 * num_groups * ctypes.sizeof(TensorMap)


def k_groups_bytes(num_groups: int) -> int:
    """Of what else the GEMM knows of them."""
    return num_groups * ctypes.sizeof(KGroup)


def _workspace(num_groups: int, device: torch.device) -> torch.Tensor:
    """Memory for two tensor maps per group, and where groups begin, from any multiple of
    ALIGNMENT in it on."""
    num_bytes = ALIGNMENT + maps_bytes(num_groups) + k_groups_bytes(num_groups)
    return torch.empty(num_bytes, dtype=torch.uint8, device=device)


def _maps_launch(
    problem: GemmProblem, config: GemmConfig, m: int, total_k: int, ks: torch.Tensor
) -> KernelLaunch:
    """The launch that makes the groups' maps; addresses: a, b, a, b, ks, maps, first k blocks."""
    arguments = KGroupMapsArguments.allocate()
    arguments.m, arguments.n = m, problem.n
    arguments.num_groups, arguments.total_k = problem.num_groups, total_k
    # Of one k block; the kernel puts in each group's address, k and row stride.
    a, b = (torch.empty(1, rows, BLOCK_K, device="meta") for rows in (m, problem.n))
    (_, pattern_a), (_, pattern_b) = operand_maps(a, b, config)
    num_groups = problem.num_groups
    return KernelLaunch(
        kernel=build(generate_k_group_maps(problem.arch), purpose=problem),
        arguments=arguments,
        maps=(("pattern_a", pattern_a), ("pattern_b", pattern_b)),
        pointers=(
            *(("a", m * total_k), ("b", problem.n * total_k), ("ks", extent(ks))),
            ("group_maps", maps_bytes(num_groups)),
            ("k_groups", k_groups_bytes(num_groups)),
        ),
        grid=num_groups,
        num_threads=WARP,
        smem_bytes=0,
        cluster_size=1,
    )


def plan_k_grouped(
    problem: GemmProblem,
    selection: Selection,
    tensors: GemmTensors,
    total_k: int,
    ks: torch.Tensor,
    accumulates: bool,
) -> KGroupedPlan:
    """Prepares D[g] = A_g @ B_g.T of all groups; launch it with the addresses of a, b, d, sfa, sfb
    and ks.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        tensors: A and B flat: [m, k_i] and [n, k_i] of each group, row-major, one behind the other.
            SFA and SFB [1, m or n, total_k / 128] such as `along_rows` takes; D [groups, m, n].
        total_k: k_i of all groups together.
        ks: int32 [num_groups], k_i of each, multiples of 128.
        accumulates: D += instead.
    """
    config = selection.config
    a, b, d = tensors.a, tensors.b, tensors.d
    arguments = common_arguments(problem, selection, tensors, accumulates)
    sf_maps, _ = scale_factor_fields(arguments, tensors, config)
    maps_launch = _maps_launch(problem, config, arguments.m, total_k, ks)
    *_, group_maps, k_groups = maps_launch.pointers
    rows = problem.num_groups * config.cluster_grid(arguments.m, 1)[0]
    gemm_launch = persistent_launch(
        problem,
        config,
        arguments,
        maps=(*output_map(d, config), *sf_maps),
        # A and B are reached by the groups' maps.
        pointers=(group_maps, k_groups, ("", extent(a)), ("", extent(b))),
        max_rows=rows,
    )
    # The addresses of maps count now, to be encoded; those of pointers at each launch.
    addresses = [tensor.data_ptr() for tensor in (a, b)]
    gemm_addresses = [tensor.data_ptr() for tensor in (d, tensors.sfa, tensors.sfb)]
    return KGroupedPlan(
        make_plan(maps_launch, addresses, a.device),
        make_plan(gemm_launch, gemm_addresses, a.device),
        problem.num_groups,
        a.device,
    )
