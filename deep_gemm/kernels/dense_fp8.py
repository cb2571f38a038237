"""Dense FP8 GEMM with 1D2D scaling: from tensors to a plan."""

from __future__ import annotations

import torch

from deep_gemm.config.gemm_config import BLOCK_K, MMA_M, SF_GROUP, GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.arguments import DenseArguments, SfaLoad
from deep_gemm.runtime.emulated import EmulatedPlan
from deep_gemm.runtime.launch import CudaPlan, KernelLaunch, Plan
from deep_gemm.tensor_map import BFLOAT16, FLOAT32, UINT8, BoxMap, matrix_map


def _row_stride(tensor: torch.Tensor) -> int:
    """Elements between rows. A single row may have any stride, which TMA would refuse."""
    rows, columns = tensor.shape
    return tensor.stride(0) if rows > 1 else -(-columns // 16) * 16


def _maps(
    a: torch.Tensor, b: torch.Tensor, d: torch.Tensor, config: GemmConfig
) -> tuple[tuple[str, BoxMap], ...]:
    """The tensor maps of A, B and D, each with its argument field."""

    def map_of(tensor: torch.Tensor, dtype: int, box_rows: int, box_columns: int) -> BoxMap:
        rows, columns = tensor.shape
        return matrix_map(dtype, rows, columns, _row_stride(tensor), box_rows, box_columns)

    slab_columns = config.d_swizzle_bytes // 2
    return (
        ("tensor_map_a", map_of(a, UINT8, config.block_m // config.cluster_n, BLOCK_K)),
        ("tensor_map_b", map_of(b, UINT8, config.block_n // config.cluster_m, BLOCK_K)),
        ("tensor_map_d", map_of(d, BFLOAT16, min(config.block_m, MMA_M), slab_columns)),
    )


def _extent(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def _sfa_map(sfa: torch.Tensor, config: GemmConfig) -> tuple[SfaLoad, BoxMap | None]:
    """How SFA is loaded, and its tensor map if by TMA.

    TMA wants 16 aligned bytes along one dimension, and lines along it that do not overlap.
    """
    rows, num_k_blocks = sfa.shape
    stride_m, stride_k = sfa.stride()
    if sfa.data_ptr() % 16 == 0:
        if stride_k == 1 and stride_m >= num_k_blocks and stride_m % 4 == 0:
            box = (SF_GROUP, config.block_m)
            return SfaLoad.TMA_ALONG_K, BoxMap(FLOAT32, (num_k_blocks, rows), (4 * stride_m,), box)
        if stride_m == 1 and stride_k >= rows and stride_k % 4 == 0:
            box = (config.block_m, SF_GROUP)
            return SfaLoad.TMA_ALONG_M, BoxMap(FLOAT32, (rows, num_k_blocks), (4 * stride_k,), box)
    return SfaLoad.WORDS, None


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
    arguments = DenseArguments.allocate()
    arguments.sfa_stride_m, arguments.sfa_stride_k = sfa.stride()
    arguments.sfb_stride_n, arguments.sfb_stride_k = sfb.stride()
    arguments.m, arguments.n, arguments.k = problem.m, problem.n, problem.k
    arguments.band = selection.band
    arguments.sfa_load, sfa_map = _sfa_map(sfa, config)
    maps = _maps(a, b, d, config)
    pointers: tuple[tuple[str, int], ...] = (("sfb", _extent(sfb)),)
    if sfa_map is None:
        pointers = (("sfa", _extent(sfa)), *pointers)
    else:
        maps = (*maps, ("tensor_map_sfa", sfa_map))

    rows, columns = config.cluster_grid(problem.m, problem.n)
    num_clusters = min(problem.num_sms // config.cluster_size, rows * columns)
    launch = KernelLaunch(
        kernel=build(generate(config, problem.arch)),
        arguments=arguments,
        maps=maps,
        pointers=pointers,
        grid=num_clusters * config.cluster_size,
        num_threads=config.num_threads,
        smem_bytes=config.smem_bytes,
        cluster_size=config.cluster_size,
    )
    if a.device.type == "cpu":
        return EmulatedPlan(launch)
    addresses = [tensor.data_ptr() for tensor in (a, b, d, sfa, sfb)]
    return CudaPlan(launch, addresses, a.device.index)
