"""The parameter of the kernels for MQA logits. The Python half of csrc/mqa/arguments.cuh."""

from __future__ import annotations

from ctypes import c_bool, c_int64, c_uint32, c_uint64, c_void_p

from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.tensor_map import TensorMap


class MqaArguments(KernelArguments):
    """Parameters of MQA logits, in the order of the C++ struct."""

    _fields_ = (
        ("tensor_map_q", TensorMap),
        ("tensor_map_keys", TensorMap),
        ("key_sf", c_void_p),
        ("weights", c_void_p),
        ("logits", c_void_p),
        ("key_starts", c_void_p),
        ("key_ends", c_void_p),
        ("context_lens", c_void_p),
        ("block_table", c_void_p),
        ("schedule", c_void_p),
        ("weights_stride", c_int64),
        ("logits_stride", c_int64),
        ("table_stride", c_int64),
        ("page_stride", c_int64),
        ("policy_keys", c_uint64),
        ("num_tokens", c_uint32),
        ("num_keys", c_uint32),
        ("width", c_uint32),
        ("next_n", c_uint32),
        ("lens_per_sequence", c_uint32),
        ("is_compressed", c_bool),
        ("cleans", c_bool),
    )
