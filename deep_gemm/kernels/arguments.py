"""The kernels' parameter structs. The Python half of csrc/kernels/arguments.cuh."""

from __future__ import annotations

import ctypes
from ctypes import c_int64, c_uint32, c_void_p
from enum import IntEnum
from typing import TYPE_CHECKING

from deep_gemm.tensor_map import TensorMap

if TYPE_CHECKING:
    from typing_extensions import Self

ALIGNMENT = 64
"""Alignment of a tensor map, and so of a struct that holds one, in bytes."""


class SfaLoad(IntEnum):
    """How scale factors of A are loaded: word by word, or in 16 bytes along one dimension."""

    WORDS = 0
    TMA_ALONG_K = 1
    TMA_ALONG_M = 2


class KernelArguments(ctypes.Structure):
    """A kernel's only parameter; each kernel's struct derives from it."""

    @classmethod
    def cxx_size(cls) -> int:
        """`sizeof` in C++, where the tensor maps' alignment pads the struct."""
        return -(-ctypes.sizeof(cls) // ALIGNMENT) * ALIGNMENT

    @classmethod
    def allocate(cls) -> Self:
        """A zeroed struct at a multiple of 64 bytes."""
        memory = (ctypes.c_char * (cls.cxx_size() + ALIGNMENT))()
        return cls.from_buffer(memory, -ctypes.addressof(memory) % ALIGNMENT)

    def address_of(self, field: str) -> int:
        """Address of one field."""
        return ctypes.addressof(self) + int(getattr(type(self), field).offset)


class DenseArguments(KernelArguments):
    """Parameters of a dense FP8 GEMM, in the order of the C++ struct."""

    _fields_ = (
        ("tensor_map_a", TensorMap),
        ("tensor_map_b", TensorMap),
        ("tensor_map_d", TensorMap),
        ("tensor_map_sfa", TensorMap),
        ("sfa", c_void_p),
        ("sfb", c_void_p),
        ("sfa_stride_m", c_int64),
        ("sfa_stride_k", c_int64),
        ("sfb_stride_n", c_int64),
        ("sfb_stride_k", c_int64),
        ("m", c_uint32),
        ("n", c_uint32),
        ("k", c_uint32),
        ("band", c_uint32),
        ("sfa_load", c_uint32),
    )
