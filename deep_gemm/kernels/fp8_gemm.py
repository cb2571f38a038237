"""FP8 GEMMs: from tensors to a plan, for one product and for many."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from deep_gemm.checks import extent
from deep_gemm.config.gemm_config import BLOCK_K, MMA_M, SF_GROUP, GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.arguments import GemmArguments, GroupedLayout, L2Policy, SfaLoad
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.tensor_map import BFLOAT16, FLOAT32, UINT8, BoxMap, matrix_map

if TYPE_CHECKING:
    from deep_gemm.config.sm100_config import Sm100GemmConfig

D_TYPES = {torch.bfloat16: BFLOAT16, torch.float32: FLOAT32}
"""What D may hold, and its CUtensorMapDataType."""

Fields = tuple[tuple[str, BoxMap], ...]
"""Tensor maps of a launch, each with its argument field."""


class GemmTensors(NamedTuple):
    """The tensors of one launch, each with a batch dimension in front, of size 1 where there is but
    one matrix.

    Attributes:
        a: [batch, m, k] float8_e4m3fn, rows contiguous.
        sfa: [batch, m, ceil(k / 128)] FP32, any strides.
        b: [batch, n, k] float8_e4m3fn, rows contiguous.
        sfb: [batch, ceil(n / 128), ceil(k / 128)] FP32, any strides; for 1D1D [batch, n, ...] as
            `along_rows` takes it.
        d: [batch, m, n] bfloat16 or float32, rows contiguous.
    """

    a: torch.Tensor
    sfa: torch.Tensor
    b: torch.Tensor
    sfb: torch.Tensor
    d: torch.Tensor

    @classmethod
    def of_matrices(cls, *matrices: torch.Tensor) -> GemmTensors:
        """Those of one product: a, sfa, b, sfb and d of two dimensions."""
        return cls(*(matrix.unsqueeze(0) for matrix in matrices))


def row_strides(tensor: torch.Tensor) -> tuple[int, int]:
    """Elements between matrices and between rows. Where there is but one, any stride would do; TMA
    gets one that it does not refuse."""
    batches, rows, columns = tensor.shape
    row_stride = tensor.stride(1) if rows > 1 else -(-columns // 16) * 16
    return tensor.stride(0) if batches > 1 else rows * row_stride, row_stride


def operand_maps(a: torch.Tensor, b: torch.Tensor, config: GemmConfig) -> Fields:
    """The tensor maps of A [batch, m, k] and B [batch, n, k]."""
    a_box = (config.block_m // config.cluster_n, BLOCK_K)
    b_box = (config.block_n // config.cluster_m, BLOCK_K)
    return (
        ("tensor_map_a", matrix_map(UINT8, tuple(a.shape), row_strides(a), a_box)),
        ("tensor_map_b", matrix_map(UINT8, tuple(b.shape), row_strides(b), b_box)),
    )


def output_map(d: torch.Tensor, config: GemmConfig) -> Fields:
    """The tensor map of D [batch, m, n]."""
    box = (min(config.block_m, MMA_M), config.d_swizzle_bytes // config.d_bytes)
    return (("tensor_map_d", matrix_map(D_TYPES[d.dtype], tuple(d.shape), row_strides(d), box)),)


def _lines_map(sf: torch.Tensor, along: int, across: int, box: tuple[int, int]) -> BoxMap | None:
    """The map of scale factors [batch, rows, k blocks] whose lines run along one dimension.

    TMA wants lines of adjacent elements, at multiples of 16 bytes, that do not overlap.

    Args:
        sf: the scale factors.
        along: dimension of a line.
        across: the other dimension.
        box: scale factors of one copy, along and across.
    """
    length, lines = sf.shape[along], sf.shape[across]
    step = sf.stride(across) if lines > 1 else -(-length // 4) * 4
    batch_step = sf.stride(0) if sf.shape[0] > 1 else lines * step
    if sf.stride(along) != 1 and length > 1:
        return None
    if sf.data_ptr() % 16 or step < length or step % 4 or batch_step % 4:
        return None
    if batch_step <= 0 or (sf.shape[0] > 1 and batch_step < length):
        return None
    dims = (length, lines, sf.shape[0])
    return BoxMap(FLOAT32, dims, (4 * step, 4 * batch_step), (*box, 1))


def along_rows(sf: torch.Tensor, block: int = 1) -> BoxMap | None:
    """The map of scale factors [batch, rows, k blocks] whose rows are adjacent (MN-major); None if
    they are not, or not aligned for TMA."""
    return _lines_map(sf, 1, 2, (block, SF_GROUP))


def along_k(sf: torch.Tensor, block: int = 1) -> BoxMap | None:
    """The same for scale factors whose k blocks are adjacent (K-major)."""
    return _lines_map(sf, 2, 1, (SF_GROUP, block))


def _sfa_map(sfa: torch.Tensor, config: GemmConfig) -> tuple[SfaLoad, BoxMap | None]:
    """How SFA is loaded, and its tensor map if by TMA."""
    ways = (
        (SfaLoad.TMA_ALONG_K, along_k(sfa, config.block_m)),
        (SfaLoad.TMA_ALONG_M, along_rows(sfa, config.block_m)),
    )
    # A group of a k-grouped product may begin at any k block, but lines at multiples of 16 bytes.
    for load, box_map in reversed(ways) if config.is_1d1d else ways:
        if box_map is not None:
            return load, box_map
    return SfaLoad.WORDS, None


def l2_policies(
    problem: GemmProblem, config: GemmConfig | Sm100GemmConfig
) -> tuple[L2Policy, L2Policy]:
    """Those of A and B.

    An operand that nobody will ask for again should not drive out what somebody will, or what has
    to be written back first: that costs up to a fourth of the bandwidth. It is so if D has one row
    of clusters (for B), or one column (for A), and for the larger one if all blocks run at a time.
    """
    rows, columns = config.cluster_grid(problem.m, problem.n)
    all_run = problem.num_groups == 1 and rows * columns * config.cluster_size <= problem.num_sms
    a_is_last_used = columns == 1 or (all_run and problem.m > problem.n)
    b_is_last_used = rows == 1 or (all_run and problem.n >= problem.m)
    return (
        L2Policy.EVICT_FIRST if a_is_last_used else L2Policy.NORMAL,
        L2Policy.EVICT_FIRST if b_is_last_used else L2Policy.NORMAL,
    )


def common_arguments(
    problem: GemmProblem, selection: Selection, tensors: GemmTensors, accumulates: bool
) -> GemmArguments:
    """The arguments of every kind of product, but for how scale factors are loaded."""
    arguments = GemmArguments.allocate()
    sfa, sfb = tensors.sfa, tensors.sfb
    arguments.sfa_stride_batch, arguments.sfa_stride_m, arguments.sfa_stride_k = sfa.stride()
    arguments.sfb_stride_batch, arguments.sfb_stride_n, arguments.sfb_stride_k = sfb.stride()
    arguments.m, arguments.n = tensors.d.shape[1], problem.n
    arguments.k = problem.k
    arguments.band = selection.band
    arguments.accumulates = accumulates
    arguments.policy_a, arguments.policy_b = l2_policies(problem, selection.config)
    arguments.num_groups = problem.num_groups
    return arguments


def persistent_launch(
    problem: GemmProblem,
    config: GemmConfig,
    arguments: GemmArguments,
    maps: Fields,
    pointers: tuple[tuple[str, int], ...],
    max_rows: int,
) -> KernelLaunch:
    """A persistent launch: as many CTAs as multiprocessors, or as there can be blocks.

    Args:
        problem: what is computed.
        config: how.
        arguments: complete but for addresses.
        maps: tensor maps, by field.
        pointers: other addresses, by field, and the bytes behind them.
        max_rows: the most rows of clusters that there can be, of all groups.
    """
    columns = config.cluster_grid(1, problem.n)[1]
    num_clusters = min(problem.num_sms // config.cluster_size, max_rows * columns)
    return KernelLaunch(
        kernel=build(generate(config, problem.arch), purpose=problem),
        arguments=arguments,
        maps=maps,
        pointers=pointers,
        grid=num_clusters * config.cluster_size,
        num_threads=config.num_threads,
        smem_bytes=config.smem_bytes,
        cluster_size=config.cluster_size,
        pdl=problem.pdl,
    )


def scale_factor_fields(
    arguments: GemmArguments, tensors: GemmTensors, config: GemmConfig
) -> tuple[Fields, tuple[tuple[str, int], ...]]:
    """Tensor maps and pointers of SFA and SFB, with addresses in the order sfa, sfb; sets how SFA
    is loaded."""
    arguments.sfa_load, sfa_map = _sfa_map(tensors.sfa, config)
    if config.is_1d1d:
        sfb_map = along_rows(tensors.sfb, config.block_n)
        if sfa_map is None or sfb_map is None:
            raise ValueError("scale factors of 1D1D kernels must be loadable by TMA")
        return (("tensor_map_sfa", sfa_map), ("tensor_map_sfb", sfb_map)), ()
    sfb = ("sfb", extent(tensors.sfb))
    if sfa_map is None:
        return (), (("sfa", extent(tensors.sfa)), sfb)
    return (("tensor_map_sfa", sfa_map),), (sfb,)


def plan_dense(
    problem: GemmProblem,
    selection: Selection,
    tensors: GemmTensors,
    accumulates: bool = False,
    head_splits: tuple[int, int, int] = (0, 0, 0),
) -> Plan:
    """Prepares D = A @ B.T; launch it with the addresses of a, b, d, sfa and sfb.

    If sfa starts at a multiple of 16 bytes, it must do so at every launch.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        tensors: of one product. Scale factors of 1D1D are such as `along_rows` takes.
        accumulates: D += A @ B.T instead.
        head_splits: columns to the left and to the right of a gap in D, and the gap's in between,
            as (left, mid, right), again and again; zeros for none.
    """
    config = selection.config
    arguments = common_arguments(problem, selection, tensors, accumulates)
    arguments.head_left, arguments.head_mid, arguments.head_right = head_splits
    arguments.prefetches_b = problem.pdl and not config.is_1d1d
    sf_maps, pointers = scale_factor_fields(arguments, tensors, config)
    maps = (*operand_maps(tensors.a, tensors.b, config), *output_map(tensors.d, config), *sf_maps)
    rows = config.cluster_grid(problem.m, problem.n)[0]
    launch = persistent_launch(problem, config, arguments, maps, pointers, rows)
    addresses = [
        tensor.data_ptr() for tensor in (tensors.a, tensors.b, tensors.d, tensors.sfa, tensors.sfb)
    ]
    return make_plan(launch, addresses, tensors.a.device)


def plan_m_grouped(
    problem: GemmProblem,
    selection: Selection,
    tensors: GemmTensors,
    layout: GroupedLayout,
    grouped_layout: torch.Tensor,
    clears_padding: bool,
) -> Plan:
    """Prepares an m-grouped product; launch it with the addresses of a, b, d, sfa, sfb, the grouped
    layout, d and sfa.

    Args:
        problem: sizes, architecture and multiprocessors.
        selection: the configuration and the block order.
        tensors: A, SFA and D of one matrix, or for ROW_COUNTS of one per group; B and SFB of one
            per group.
        layout: what the grouped layout holds.
        grouped_layout: int32, contiguous.
        clears_padding: for ROW_ENDS: rows of D behind a group's last become zero, up to the next
            aligned one.
    """
    config = selection.config
    arguments = common_arguments(problem, selection, tensors, accumulates=False)
    arguments.layout = layout
    arguments.alignment = problem.alignment
    arguments.clears_padding = clears_padding
    batch_stride, row_stride = row_strides(tensors.d)
    arguments.d_stride_batch = batch_stride * config.d_bytes
    arguments.d_stride_m = row_stride * config.d_bytes
    sf_maps, sf_pointers = scale_factor_fields(arguments, tensors, config)
    maps = (*operand_maps(tensors.a, tensors.b, config), *output_map(tensors.d, config), *sf_maps)
    pointers = (
        *sf_pointers,
        ("grouped_layout", extent(grouped_layout)),
        ("d", extent(tensors.d)),
        # Blocks at odd rows read SFA word by word where the others have a tensor map.
        ("sfa", extent(tensors.sfa)),
    )
    # Any group may begin anywhere and so need one tile more than its rows fill.
    batches, rows, _ = tensors.d.shape
    max_rows = batches * config.cluster_grid(rows, 1)[0] + problem.num_groups
    launch = persistent_launch(problem, config, arguments, maps, pointers, max_rows)
    every = (
        *(tensors.a, tensors.b, tensors.d, tensors.sfa, tensors.sfb),
        *(grouped_layout, tensors.d, tensors.sfa),
    )
    return make_plan(launch, [tensor.data_ptr() for tensor in every], tensors.a.device)
