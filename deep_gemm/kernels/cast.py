"""What the casts to FP8 share: their parameters, and the words of their configurations."""

from __future__ import annotations

from ctypes import c_float, c_int64, c_uint32, c_void_p
from enum import Enum

import torch

from deep_gemm.kernels.arguments import KernelArguments

INPUTS = {torch.bfloat16: "kBf16", torch.float16: "kFp16", torch.float32: "kFp32"}
"""Types of input -> `CastInput` in C++."""


class SfFormat(Enum):
    """How scale factors are written; the values are those of `SfFormat` in C++."""

    FP32 = "kFp32"
    """One float each."""

    UE8M0 = "kUe8m0"
    """The same, rounded up to a power of two."""

    PACKED_UE8M0 = "kPackedUe8m0"
    """The exponents of four consecutive k blocks in an int32, the first in its low byte."""


class CastRows(Enum):
    """Which rows are cast; the values are those of `CastRows` in C++."""

    ALL = "kAll"
    COUNTS = "kCounts"
    ENDS = "kEnds"
    IDS = "kIds"


class CastArguments(KernelArguments):
    """Parameters of a cast, in the order of the C++ struct in kernels/cast.cuh."""

    _fields_ = (
        ("x", c_void_p),
        ("up", c_void_p),
        ("data", c_void_p),
        ("sf", c_void_p),
        ("grouped_layout", c_void_p),
        ("x_stride_batch", c_int64),
        ("x_stride_row", c_int64),
        ("up_stride_batch", c_int64),
        ("up_stride_row", c_int64),
        ("data_stride_batch", c_int64),
        ("data_stride_row", c_int64),
        ("sf_stride_batch", c_int64),
        ("sf_stride_row", c_int64),
        ("sf_stride_column", c_int64),
        ("rows", c_uint32),
        ("columns", c_uint32),
        ("num_groups", c_uint32),
        ("alignment", c_uint32),
        ("clamp", c_float),
    )


def vector_size(dtype: torch.dtype) -> int:
    """Elements in 16 bytes of input."""
    return 16 // dtype.itemsize


def word(dtype: torch.dtype) -> str:
    """The type of input in a kernel's name."""
    return INPUTS[dtype][1:].lower()
