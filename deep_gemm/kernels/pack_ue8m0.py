"""Packing of FP32 scale factors into UE8M0, four to a word: of a matrix or a batch, and of the
groups of a k-grouped GEMM."""

from __future__ import annotations

from ctypes import c_bool, c_int64, c_uint32, c_void_p
from typing import NamedTuple

import torch

from deep_gemm.call_cache import CallCache
from deep_gemm.checks import MAX_DIMENSION, extent, refuse
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GroupedLayout, KernelArguments
from deep_gemm.kernels.transpose import strides_of_batch
from deep_gemm.runtime.device import any_arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.utils.math import ceil_div

NUM_THREADS = 256
BLOCK = 4
"""A thread packs this many of MN and of K."""

BLOCKS_OF_BAND = 8
"""Threads that write one stretch of a column."""

CTAS_PER_SM = 6
"""How many are to fit a multiprocessor: a thread may have 40 registers."""

WORD_BYTES = 4
"""Of a report: the bits of a scale factor that UE8M0 does not have."""


class GroupRows(NamedTuple):
    """Which rows of an m-grouped product belong to a group; others may hold anything.

    Attributes:
        layout: what the numbers mean.
        numbers: int32, contiguous, the grouped layout.
        num_groups: of the product.
        alignment: of the rows at which groups begin.
    """

    layout: GroupedLayout
    numbers: torch.Tensor
    num_groups: int
    alignment: int = 1


_plans: CallCache[Plan] = CallCache()
"""Plans of the calls seen so far, by everything that a plan depends on but the addresses."""


class PackArguments(KernelArguments):
    """Parameters of a packing, in the order of the C++ struct in kernels/pack_ue8m0.cuh."""

    _fields_ = (
        ("sf", c_void_p),
        ("out", c_void_p),
        ("sf_stride_batch", c_int64),
        ("sf_stride_mn", c_int64),
        ("sf_stride_k", c_int64),
        ("out_stride_batch", c_int64),
        ("out_stride_k", c_int64),
        ("report", c_void_p),
        ("grouped_layout", c_void_p),
        ("layout", c_uint32),
        ("num_groups", c_uint32),
        ("alignment", c_uint32),
        ("mn", c_uint32),
        ("k", c_uint32),
        ("gran_mn", c_uint32),
        ("num_columns", c_uint32),
    )


class KGroupedPackArguments(KernelArguments):
    """Parameters of the packing of groups, in the order of the C++ struct in
    kernels/k_grouped_pack.cuh."""

    _fields_ = (
        ("sf", c_void_p),
        ("out", c_void_p),
        ("grouped_layout", c_void_p),
        ("report", c_void_p),
        ("sf_stride_k", c_int64),
        ("sf_stride_mn", c_int64),
        ("num_groups", c_uint32),
        ("gran_k", c_uint32),
        ("alignment", c_uint32),
        ("mn", c_uint32),
        ("num_rows", c_uint32),
        ("has_ends", c_bool),
    )


def generate_pack(arch: str) -> KernelSource:
    """The kernel that packs a matrix or a batch."""
    entry = "pack_fp32_into_ue8m0"
    return _generate(entry, "kernels/pack_ue8m0.cuh", PackArguments, entry, arch)


def generate_k_grouped_pack(arch: str) -> KernelSource:
    """The kernel that packs the groups of a k-grouped GEMM."""
    entry = "k_grouped_pack_fp32_into_ue8m0"
    return _generate(entry, "kernels/k_grouped_pack.cuh", KGroupedPackArguments, entry, arch)


def _generate(
    entry: str, header: str, arguments: type[KernelArguments], function: str, arch: str
) -> KernelSource:
    struct = arguments.__name__
    text = f"""\
#include "{header}"

using deep_gemm::PackBlock;

static_assert(sizeof(deep_gemm::{struct}) == {arguments.cxx_size()});
static_assert(PackBlock::kThreads == {NUM_THREADS});
static_assert(PackBlock::kSize == {BLOCK});
static_assert(PackBlock::kBlocksOfBand == {BLOCKS_OF_BAND});

extern "C" __global__ void __launch_bounds__({NUM_THREADS}, {CTAS_PER_SM})
    {entry}(const __grid_constant__ deep_gemm::{struct} args) {{
    deep_gemm::{function}(args);
}}
"""
    return KernelSource(name=entry, text=text, entry=entry, arch=arch)


def pack_fp32_into_ue8m0(
    sf: torch.Tensor,
    out: torch.Tensor,
    gran_mn: int = 1,
    rows: GroupRows | None = None,
    report: int = 0,
) -> None:
    """Packs the exponents of scale factors, four along K to a word, on the current stream.

    Args:
        sf: [ceil(mn / gran_mn), k] or [batch, ..] FP32, any strides; fast where four along one
            dimension are 16 bytes at a multiple of 16.
        out: [mn, ceil(k / 4)] or [batch, ..] int32 on the same device, contiguous along mn;
            overwritten.
        gran_mn: rows of out that have one row of sf.
        rows: those that belong to a group; None if all do. Others may be left as they are.
        report: address of a word that the device can write: it gets the bits of one scale factor,
            of a row that counts, that UE8M0 does not have. 0 if nobody wants to know.

    Raises:
        ArgumentError: there are too many scale factors.
    """
    if out.numel() == 0:
        return
    kind = None if rows is None else (rows.layout, rows.numbers.numel(), *rows[2:])
    key = (*(sf.shape, sf.stride(), out.shape, out.stride(), sf.device), gran_mn, kind, report != 0)
    plan = _plans.get(key) or _plans.remember(key, _plan(sf, out, gran_mn, rows, report != 0))
    addresses = [sf.data_ptr(), out.data_ptr()]
    if rows is not None:
        addresses.append(rows.numbers.data_ptr())
    plan.launch(*addresses, *([report] if report else []))


def _plan(
    sf: torch.Tensor,
    out: torch.Tensor,
    gran_mn: int,
    rows: GroupRows | None,
    reports: bool,
) -> Plan:
    arguments = PackArguments.allocate()
    batch_stride, arguments.sf_stride_mn, arguments.sf_stride_k = strides_of_batch(sf)
    arguments.sf_stride_batch = batch_stride
    # Transposed, so that a single column counts as lying along MN.
    arguments.out_stride_batch, arguments.out_stride_k, _ = strides_of_batch(out.mT)
    mn, num_words = out.shape[-2:]
    arguments.mn, arguments.k, arguments.gran_mn = mn, sf.shape[-1], gran_mn
    arguments.alignment = 1
    pointers = [("sf", extent(sf)), ("out", extent(out))]
    if rows is not None:
        arguments.layout, arguments.num_groups = rows.layout, rows.num_groups
        arguments.alignment = rows.alignment
        pointers.append(("grouped_layout", extent(rows.numbers)))
    if reports:
        pointers.append(("report", WORD_BYTES))
    num_bands = ceil_div(mn, BLOCK * BLOCKS_OF_BAND)
    num_columns = out.numel() // (mn * num_words) * num_bands * num_words
    if num_columns > MAX_DIMENSION:
        refuse("sf", "must be of at most 2**31 - 1 words for every 32 rows", tuple(sf.shape))
    arguments.num_columns = num_columns
    launch = KernelLaunch(
        kernel=build(generate_pack(any_arch_of(sf.device))),
        arguments=arguments,
        maps=(),
        pointers=tuple(pointers),
        grid=ceil_div(num_columns, NUM_THREADS // BLOCKS_OF_BAND),
        num_threads=NUM_THREADS,
        smem_bytes=0,
        cluster_size=1,
    )
    return make_plan(launch, (), sf.device)


def k_grouped_pack_fp32_into_ue8m0(
    sf: torch.Tensor,
    out: torch.Tensor,
    grouped_layout: torch.Tensor,
    gran_k: int,
    alignment: int | None = None,
    report: int = 0,
) -> None:
    """Packs the exponents of each group's scale factors, four along K to a word, on the current
    stream.

    Args:
        sf: [sum(ceil(k_i / gran_k)), mn] FP32, any strides; fast with contiguous rows at multiples
            of 16 bytes.
        out: [rows, mn] int32, contiguous, fast if mn is a multiple of 4: group i takes
            ceil(k_i / gran_k / 4) rows; overwritten, with zeros behind the last group.
        grouped_layout: int32 [groups] on the same device: each k_i, or where the group ends.
        gran_k: elements along K that share a scale factor.
        alignment: if groups have ends, of the places along K where they begin, a multiple of
            gran_k; None if they have sizes.
        report: as in `pack_fp32_into_ue8m0`.
    """
    if out.numel() == 0:
        return
    num_groups = grouped_layout.numel()
    shapes = sf.shape, sf.stride(), out.shape, sf.device
    key = (*shapes, num_groups, gran_k, alignment, report != 0, "k-grouped")
    plan = _plans.get(key)
    if plan is None:
        plan = _k_grouped_plan(sf, out, grouped_layout, gran_k, alignment, report != 0)
        _plans.remember(key, plan)
    addresses = sf.data_ptr(), out.data_ptr(), grouped_layout.data_ptr()
    plan.launch(*addresses, *([report] if report else []))


def _k_grouped_plan(
    sf: torch.Tensor,
    out: torch.Tensor,
    grouped_layout: torch.Tensor,
    gran_k: int,
    alignment: int | None,
    reports: bool,
) -> Plan:
    num_words, mn = out.shape
    arguments = KGroupedPackArguments.allocate()
    _, arguments.sf_stride_k, arguments.sf_stride_mn = strides_of_batch(sf)
    arguments.num_groups, arguments.gran_k = grouped_layout.numel(), gran_k
    arguments.has_ends, arguments.alignment = alignment is not None, alignment or 1
    arguments.mn, arguments.num_rows = mn, sf.shape[0]
    tensors = {"sf": sf, "out": out, "grouped_layout": grouped_layout}
    pointers = [(name, extent(tensor)) for name, tensor in tensors.items()]
    if reports:
        pointers.append(("report", WORD_BYTES))
    launch = KernelLaunch(
        kernel=build(generate_k_grouped_pack(any_arch_of(sf.device))),
        arguments=arguments,
        maps=(),
        pointers=tuple(pointers),
        grid=num_words * ceil_div(mn, NUM_THREADS * BLOCK),
        num_threads=NUM_THREADS,
        smem_bytes=0,
        cluster_size=1,
    )
    return make_plan(launch, (), sf.device)
