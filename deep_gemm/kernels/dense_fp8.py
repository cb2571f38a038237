"""Dense FP8 GEMM with 1D2D scaling: from tensors to a plan."""

from __future__ import annotations

import functools

import torch

from deep_gemm.config.gemm_config import BLOCK_K, MMA_M, GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.arguments import DenseArguments
from deep_gemm.runtime.cuda import driver, launch_config
from deep_gemm.runtime.launch import Plan, Slot
from deep_gemm.tensor_map import BFLOAT16, UINT8, MatrixMap


def _row_stride(tensor: torch.Tensor) -> int:
    """Elements between rows. A single row may have any stride, which TMA would refuse."""
    rows, columns = tensor.shape
    return tensor.stride(0) if rows > 1 else -(-columns // 16) * 16


def _maps(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, config: GemmConfig
) -> list[tuple[str, torch.Tensor, MatrixMap]]:
    """The tensor maps of A, B and D, each with its argument field."""

    def matrix_map(tensor: torch.Tensor, dtype: int, box_rows: int, box_columns: int) -> MatrixMap:
        rows, columns = tensor.shape
        return MatrixMap(dtype, rows, columns, _row_stride(tensor), box_rows, box_columns)

    slab_columns = config.d_swizzle_bytes // 2
    return [
        ("tensor_map_a", a, matrix_map(a, UINT8, config.block_m // config.cluster_n, BLOCK_K)),
        ("tensor_map_b", b, matrix_map(b, UINT8, config.block_n // config.cluster_m, BLOCK_K)),
        ("tensor_map_d", d, matrix_map(d, BFLOAT16, min(config.block_m, MMA_M), slab_columns)),
    ]


def _has_quads(sf: torch.Tensor) -> bool:
    """Whether every four scale factors along K of a row are 16 aligned bytes."""
    stride_m, stride_k = sf.stride()
    return stride_k == 1 and stride_m % 4 == 0 and sf.data_ptr() % 16 == 0


def plan_dense(
    problem: GemmProblem,
    selection: Selection,
    a: torch.Tensor,
    sfa: torch.Tensor,
    b: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
) -> Plan:
    """Prepares D = A @ B.T; launch it with the addresses of a, b, d, sfa and sfb.

    If sfa starts at a multiple of 16 bytes, it must do so at every launch.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        a: [m, k] float8_e4m3fn, row-major.
        sfa: [m, ceil(k / 128)] FP32, any strides.
        b: [n, k] float8_e4m3fn, row-major.
        sfb: [ceil(n / 128), ceil(k / 128)] FP32, any strides.
        d: [m, n] bfloat16, row-major.
    """
    config = selection.config
    driver().ensure_context(a.device.index)
    kernel = build(generate(config, problem.arch))
    arguments = DenseArguments.allocate()
    arguments.sfa_stride_m, arguments.sfa_stride_k = sfa.stride()
    arguments.sfb_stride_n, arguments.sfb_stride_k = sfb.stride()
    arguments.m, arguments.n, arguments.k = problem.m, problem.n, problem.k
    arguments.band = selection.band
    arguments.sfa_has_quads = _has_quads(sfa)

    slots: list[Slot] = []
    for field, tensor, matrix_map in _maps(a, b, d, config):
        destination = arguments.address_of(field)
        matrix_map.encode(destination, tensor.data_ptr())
        slots.append(functools.partial(driver().tensor_map_replace_address, destination))
    slots += [functools.partial(setattr, arguments, field) for field in ("sfa", "sfb")]

    rows, columns = config.cluster_grid(problem.m, problem.n)
    num_clusters = min(problem.num_sms // config.cluster_size, rows * columns)
    grid = num_clusters * config.cluster_size
    launch = launch_config(grid, config.num_threads, config.smem_bytes, config.cluster_size)
    return Plan(kernel, arguments, slots, launch, a.device.index)
