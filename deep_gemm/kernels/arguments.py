"""The kernels' parameter structs. The Python half of csrc/kernels/arguments.cuh."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_int64, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from typing import TYPE_CHECKING

from deep_gemm.tensor_map import TensorMap

if TYPE_CHECKING:
    from typing_extensions import Self

ALIGNMENT = 64
"""Alignment of a tensor map, and so of a struct that holds one, in bytes."""


WORD_BYTES = 8
"""Of an address."""


class L2Policy(IntEnum):
    """What L2 does with lines that a load brings. The words are opaque: CUTLASS has them, and on an
    H100 `createpolicy` makes the same EVICT_FIRST; for NORMAL it makes another, slower one."""

    NORMAL = 0x1000_0000_0000_0000
    EVICT_FIRST = 0x12F0_0000_0000_0000
    """They are the first to make room."""


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

    @classmethod
    def word_of(cls, field: str) -> int:
        """Which of the struct's words of 8 bytes a field begins with."""
        return int(getattr(cls, field).offset) // WORD_BYTES


class GroupedLayout(IntEnum):
    """What grouped_layout holds in an m-grouped product."""

    ROW_IDS = 0
    """[m]: each row's group; anything but 0 .. num_groups - 1 is padding."""

    ROW_ENDS = 1
    """[num_groups]: the row behind each group's last; groups begin aligned."""

    ROW_COUNTS = 2
    """[num_groups]: rows of each group, which has a matrix of A and D for itself."""


class GemmArguments(KernelArguments):
    """Parameters of an FP8 GEMM, in the order of the C++ struct."""

    _fields_ = (
        ("tensor_map_a", TensorMap),
        ("tensor_map_b", TensorMap),
        ("tensor_map_d", TensorMap),
        ("tensor_map_sfa", TensorMap),
        ("tensor_map_sfb", TensorMap),
        ("sfa", c_void_p),
        ("sfb", c_void_p),
        ("sfa_stride_batch", c_int64),
        ("sfa_stride_m", c_int64),
        ("sfa_stride_k", c_int64),
        ("sfb_stride_batch", c_int64),
        ("sfb_stride_n", c_int64),
        ("sfb_stride_k", c_int64),
        ("policy_a", c_uint64),
        ("policy_b", c_uint64),
        ("m", c_uint32),
        ("n", c_uint32),
        ("k", c_uint32),
        ("band", c_uint32),
        ("sfa_load", c_uint32),
        ("accumulates", c_bool),
        ("prefetches_b", c_bool),
        ("head_left", c_uint32),
        ("head_mid", c_uint32),
        ("head_right", c_uint32),
        ("num_groups", c_uint32),
        ("grouped_layout", c_void_p),
        ("d", c_void_p),
        ("d_stride_batch", c_int64),
        ("d_stride_m", c_int64),
        ("layout", c_uint32),
        ("alignment", c_uint32),
        ("clears_padding", c_bool),
        ("k_groups", c_void_p),
        ("group_maps", c_void_p),
    )


class KGroup(ctypes.Structure):
    """A group of a k-grouped product, as its kernels tell each other of it."""

    _fields_ = (("first_k_block", c_uint32), ("num_k_blocks", c_uint32))


class KGroupMapsArguments(KernelArguments):
    """Parameters of the kernel that makes a k-grouped GEMM's tensor maps, in the C++ order."""

    _fields_ = (
        ("pattern_a", TensorMap),
        ("pattern_b", TensorMap),
        ("a", c_void_p),
        ("b", c_void_p),
        ("m", c_uint32),
        ("n", c_uint32),
        ("ks", c_void_p),
        ("group_maps", c_void_p),
        ("k_groups", c_void_p),
        ("num_groups", c_uint32),
        ("total_k", c_uint32),
    )
