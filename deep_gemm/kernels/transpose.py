"""Transposition: for operands and scale factors that lie the other way round."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int64, c_uint32, c_void_p
from dataclasses import dataclass

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm.call_cache import CallCache
from deep_gemm.checks import MAX_DIMENSION, TMA_ALIGNMENT, check_device_type, extent, refuse
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils.math import align, ceil_div

TILE_ROWS = 128
TILE_ROW_BYTES = 128
NUM_THREADS = 256
SMEM_BYTES = TILE_ROWS * TILE_ROW_BYTES

CTAS_PER_SM = 8
"""How many are to fit a multiprocessor: a thread may have 32 registers."""

WORDS_OF_ALIGNMENT = TMA_ALIGNMENT // 4

_plans: CallCache[Plan] = CallCache()
"""Plans of the calls seen so far, by everything that a plan depends on but the addresses."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """What brings tensors of one kind into a layout.

    Attributes:
        strides: of the layout.
        is_there: they lie so, but for strides of dimensions of size 1, which mean nothing.
        plan: copies them; None if there is nothing to copy.
    """

    strides: tuple[int, ...]
    is_there: bool
    plan: Plan | None = None

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor itself, a view of it, or a copy."""
        if self.is_there:
            if tensor.stride() == self.strides:
                return tensor
            return tensor.as_strided(tensor.shape, self.strides)
        out = tensor.new_empty_strided(tensor.shape, self.strides)
        if self.plan is not None:
            self.plan.launch(tensor.data_ptr(), out.data_ptr())
        return out


_layouts: CallCache[_Layout] = CallCache()
"""Layouts of the tensors seen so far, likewise."""


class TransposeArguments(KernelArguments):
    """Parameters of a transposition, in the order of the C++ struct in kernels/transpose.cuh."""

    _fields_ = (
        ("source", c_void_p),
        ("out", c_void_p),
        ("source_stride_batch", c_int64),
        ("source_stride_row", c_int64),
        ("source_stride_column", c_int64),
        ("out_stride_batch", c_int64),
        ("out_stride_column", c_int64),
        ("rows", c_uint32),
        ("columns", c_uint32),
    )


def generate_transpose(element_bytes: int, arch: str) -> KernelSource:
    """The transposing kernel for elements of 1 or 4 bytes."""
    entry = f"transpose_{8 * element_bytes}bit"
    text = f"""\
#include "kernels/transpose.cuh"

using Tile = deep_gemm::TransposeTile<{element_bytes}>;

static_assert(sizeof(deep_gemm::TransposeArguments) == {TransposeArguments.cxx_size()});
static_assert(sizeof(Tile) == {SMEM_BYTES});
static_assert(Tile::kRows == {TILE_ROWS});
static_assert(Tile::kColumns == {TILE_ROW_BYTES // element_bytes});
static_assert(Tile::kThreads == {NUM_THREADS});

extern "C" __global__ void __launch_bounds__({NUM_THREADS}, {CTAS_PER_SM})
    {entry}(const __grid_constant__ deep_gemm::TransposeArguments args) {{
    deep_gemm::transpose<{element_bytes}>(args);
}}
"""
    return KernelSource(name=entry, text=text, entry=entry, arch=arch)


def k_major(argument: str, x: torch.Tensor) -> torch.Tensor:
    """An FP8 operand whose rows are contiguous: `x` itself, or a transposed copy of its memory.

    The copy comes from torch's caching allocator, on the current stream.

    Args:
        argument: its name, for the message.
        x: [rows, k] or [groups, rows, k] float8_e4m3fn, contiguous along k or along rows.

    Returns:
        A tensor of x's shape and values, contiguous along k; a new one without gaps.

    Raises:
        ArgumentError: another dtype or number of dimensions, or contiguous along neither.
    """
    key = ("k-major", x.shape, x.stride(), x.dtype, x.device)
    layout = _layouts.get(key) or _layouts.remember(key, _k_major_layout(argument, x))
    return layout.of(x)


def _k_major_layout(argument: str, x: torch.Tensor) -> _Layout:
    if x.dim() not in (2, 3):
        refuse(argument, "must have 2 or 3 dimensions", f"shape {tuple(x.shape)}")
    if x.dtype != torch.float8_e4m3fn:
        refuse(argument, "must have dtype torch.float8_e4m3fn", x.dtype)
    rows, k = x.shape[-2:]
    stride_row, stride_k = x.stride()[-2:]
    if stride_k == 1 or k <= 1:
        return _Layout(x.stride(), is_there=True)
    if stride_row != 1 and rows > 1:
        rule = "must be contiguous along one of its last two dimensions"
        refuse(argument, rule, f"strides {tuple(x.stride())}")
    strides = (rows * k, k, 1)[-x.dim() :]
    out = x.new_empty_strided(x.shape, strides)
    return _Layout(strides, False, _plan(x.mT, out) if x.numel() else None)


def mn_major(sf: torch.Tensor) -> torch.Tensor:
    """FP32 scale factors as TMA reads them along MN: `sf` itself if it lies so, else a copy. A view
    of it if only the strides of dimensions of size 1 are others.

    The copy comes from torch's caching allocator, on the current stream.

    Args:
        sf: [mn, k] or [groups, mn, k] FP32, any strides.

    Returns:
        A tensor of sf's shape and values at a multiple of 16 bytes, with strides
        (k * align(mn, 4), 1, align(mn, 4)). What lies between the end of a column and the next
        column is undefined.

    Raises:
        ArgumentError: another dtype or number of dimensions.
    """
    if is_dynamo_compiling() or has_no_memory(sf):
        return sf.new_empty_strided(sf.shape, mn_major_strides(sf.shape)).copy_(sf)
    is_aligned = sf.data_ptr() % TMA_ALIGNMENT == 0
    key = ("mn-major", sf.shape, sf.stride(), sf.dtype, sf.device, is_aligned)
    layout = _layouts.get(key) or _layouts.remember(key, _mn_major_layout(sf, is_aligned))
    return layout.of(sf)


def _mn_major_layout(sf: torch.Tensor, is_aligned: bool) -> _Layout:
    if sf.dim() not in (2, 3):
        refuse("sf", "must have 2 or 3 dimensions", f"shape {tuple(sf.shape)}")
    if sf.dtype != torch.float32:
        refuse("sf", "must have dtype torch.float32", sf.dtype)
    check_device_type("sf", sf.device)
    strides = mn_major_strides(sf.shape)
    each = zip(sf.shape, sf.stride(), strides, strict=True)
    if is_aligned and all(size <= 1 or stride == wanted for size, stride, wanted in each):
        return _Layout(strides, is_there=True)
    out = sf.new_empty_strided(sf.shape, strides)
    return _Layout(strides, False, _plan(sf, out.mT) if sf.numel() else None)


def mn_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of words [.., mn, k] with columns that begin at multiples of 16 bytes."""
    mn, k = shape[-2:]
    column = align(mn, WORDS_OF_ALIGNMENT)
    return (k * column, 1, column)[-len(shape) :]


def transpose(source: torch.Tensor, out: torch.Tensor) -> None:
    """Computes out[.., c, r] = source[.., r, c], bit by bit, on the current stream.

    Args:
        source: [rows, columns] or [batch, rows, columns], elements of 1 or 4 bytes, any strides;
            fast with contiguous columns and rows that start at multiples of 16 bytes.
        out: [columns, rows] or [batch, columns, rows] of the same dtype and device, contiguous
            along rows; overwritten.

    Raises:
        ArgumentError: a dimension is too large.
    """
    if source.numel() == 0:
        return
    key = (source.shape, source.stride(), out.stride(), source.element_size(), source.device)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans.remember(key, _plan(source, out))
    plan.launch(source.data_ptr(), out.data_ptr())


def strides_of_batch(tensor: torch.Tensor) -> tuple[int, int, int]:
    """Strides as those of a batch; a dimension of size 1 has whichever keeps vectors possible."""
    if tensor.dim() == 2:
        tensor = tensor.unsqueeze(0)
    batch, rows, columns = tensor.shape
    strides = tensor.stride()
    return (
        strides[0] if batch > 1 else 0,
        strides[1] if rows > 1 else 0,
        strides[2] if columns > 1 else 1,
    )


def _plan(source: torch.Tensor, out: torch.Tensor) -> Plan:
    rows, columns = source.shape[-2:]
    for size in (rows, columns):
        if size > MAX_DIMENSION:
            refuse("source", f"dimensions must be at most {MAX_DIMENSION}", tuple(source.shape))
    element_bytes = source.element_size()
    arguments = TransposeArguments.allocate()
    batch_stride, row_stride, column_stride = strides_of_batch(source)
    arguments.source_stride_batch = batch_stride
    arguments.source_stride_row, arguments.source_stride_column = row_stride, column_stride
    arguments.out_stride_batch, arguments.out_stride_column, _ = strides_of_batch(out)
    arguments.rows, arguments.columns = rows, columns
    num_tiles = ceil_div(rows, TILE_ROWS) * ceil_div(columns * element_bytes, TILE_ROW_BYTES)
    launch = KernelLaunch(
        kernel=build(generate_transpose(element_bytes, arch_of(source.device))),
        arguments=arguments,
        maps=(),
        pointers=(("source", extent(source)), ("out", extent(out))),
        grid=num_tiles * (source.numel() // (rows * columns)),
        num_threads=NUM_THREADS,
        smem_bytes=SMEM_BYTES,
        cluster_size=1,
    )
    return make_plan(launch, (source.data_ptr(), out.data_ptr()), source.device)
