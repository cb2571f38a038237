"""Requantising: FP8 data and FP32 scale factors to FP8 data and powers of two."""

from __future__ import annotations

from ctypes import c_int64, c_uint32, c_void_p, sizeof

import torch

from deep_gemm.call_cache import CallCache
from deep_gemm.checks import MAX_DIMENSION, extent, refuse
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.kernels.transpose import strides_of_batch
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.utils.math import ceil_div

NUM_THREADS = 256
COLUMNS = 16
"""A thread has this many columns of one row."""

ENTRY = "requantize_to_ue8m0"

_plans: CallCache[Plan] = CallCache()
"""Plans of the calls seen so far, by everything that a plan depends on but the addresses."""


class RequantiseArguments(KernelArguments):
    """Parameters of a requantisation, in the order of the C++ struct in kernels/requantise.cuh."""

    _fields_ = (
        ("data", c_void_p),
        ("sf", c_void_p),
        ("out", c_void_p),
        ("new_sf", c_void_p),
        ("data_stride_batch", c_int64),
        ("data_stride_row", c_int64),
        ("sf_stride_batch", c_int64),
        ("sf_stride_row", c_int64),
        ("sf_stride_column", c_int64),
        ("out_stride_batch", c_int64),
        ("out_stride_row", c_int64),
        ("new_sf_stride_batch", c_int64),
        ("new_sf_stride_row", c_int64),
        ("rows", c_uint32),
        ("columns", c_uint32),
        ("gran_rows", c_uint32),
        ("gran_columns", c_uint32),
        ("num_vectors", c_uint32),
    )


def generate_requantise(arch: str) -> KernelSource:
    """The kernel."""
    text = f"""\
#include "kernels/requantise.cuh"

static_assert(sizeof(deep_gemm::RequantiseArguments) == {sizeof(RequantiseArguments)});
static_assert(deep_gemm::kRequantiseThreads == {NUM_THREADS});
static_assert(deep_gemm::kRequantiseColumns == {COLUMNS});

extern "C" __global__ void __launch_bounds__({NUM_THREADS})
    {ENTRY}(const __grid_constant__ deep_gemm::RequantiseArguments args) {{
    deep_gemm::requantise(args);
}}
"""
    return KernelSource(name=ENTRY, text=text, entry=ENTRY, arch=arch)


def requantise(
    data: torch.Tensor,
    sf: torch.Tensor,
    out: torch.Tensor,
    new_sf: torch.Tensor,
    gran: tuple[int, int],
) -> None:
    """Writes data and scale factors anew, on the current stream.

    Args:
        data: [rows, columns] or [batch, ..] float8_e4m3fn, contiguous columns.
        sf: [.., ceil(rows / gran[0]), ceil(columns / gran[1])] FP32, any strides.
        out: like data, contiguous; overwritten.
        new_sf: like sf, contiguous; overwritten.
        gran: rows and columns that share a scale factor; the latter a multiple of 16.

    Raises:
        ArgumentError: there is too much.
    """
    if data.numel() == 0:
        return
    key = (data.shape, data.stride(), sf.stride(), data.device, gran)
    plan = _plans.get(key) or _plans.remember(key, _plan(data, sf, out, new_sf, gran))
    plan.launch(data.data_ptr(), sf.data_ptr(), out.data_ptr(), new_sf.data_ptr())


def _plan(
    data: torch.Tensor,
    sf: torch.Tensor,
    out: torch.Tensor,
    new_sf: torch.Tensor,
    gran: tuple[int, int],
) -> Plan:
    arguments = RequantiseArguments.allocate()
    arguments.data_stride_batch, arguments.data_stride_row, _ = strides_of_batch(data)
    sf_strides = strides_of_batch(sf)
    arguments.sf_stride_batch, arguments.sf_stride_row, arguments.sf_stride_column = sf_strides
    arguments.out_stride_batch, arguments.out_stride_row, _ = strides_of_batch(out)
    arguments.new_sf_stride_batch, arguments.new_sf_stride_row, _ = strides_of_batch(new_sf)
    arguments.rows, arguments.columns = data.shape[-2:]
    arguments.gran_rows, arguments.gran_columns = gran
    num_vectors = data.shape[:-1].numel() * ceil_div(data.shape[-1], COLUMNS)
    if num_vectors > MAX_DIMENSION:
        refuse("x[0]", f"must have at most 2**31 - 1 pieces of {COLUMNS}", tuple(data.shape))
    arguments.num_vectors = num_vectors
    tensors = {"data": data, "sf": sf, "out": out, "new_sf": new_sf}
    launch = KernelLaunch(
        kernel=build(generate_requantise(arch_of(data.device))),
        arguments=arguments,
        maps=(),
        pointers=tuple((name, extent(tensor)) for name, tensor in tensors.items()),
        grid=ceil_div(num_vectors, NUM_THREADS),
        num_threads=NUM_THREADS,
        smem_bytes=0,
        cluster_size=1,
    )
    return make_plan(launch, (), data.device)
