"""What the calls for MQA logits refuse, and the forms that their arguments come in."""

from __future__ import annotations

import torch

from deep_gemm.checks import (
    MAX_DIMENSION,
    TMA_ALIGNMENT,
    check_address,
    check_device_type,
    check_is_tensor,
    check_not_fp4,
    check_shape,
    refuse,
)
from deep_gemm.config.mqa_problem import HEAD_DIMS, HEADS, PAGE_KEYS
from deep_gemm.kernels.mqa_config import FP32_BYTES
from deep_gemm.kernels.mqa_logits import MatrixLogits, PagedLogits, row_stride

LOGITS_TYPES = (torch.float32, torch.bfloat16)

ROW_BYTES = 1024
"""Rows of logits begin at multiples of so many bytes."""


def plain_queries(q: object) -> torch.Tensor:
    """The queries, which come alone or as a pair with scale factors that FP8 does not have."""
    if isinstance(q, (tuple, list)):
        if len(q) != 2 or q[1] is not None:
            rule = "must be a tensor or (tensor, None): FP8 queries have no scale factors"
            refuse("q", rule, f"{len(q)} items" if len(q) != 2 else type(q[1]).__name__)
        q = q[0]
    queries = check_is_tensor("q", q)
    check_device_type("q", queries.device)
    return queries


def check_logits_dtype(dtype: object) -> torch.dtype:
    """A type that logits may have."""
    if dtype not in LOGITS_TYPES:
        refuse("logits_dtype", "must be torch.float32 or torch.bfloat16", dtype)
    return dtype


def check_count(argument: str, value: object) -> int:
    """An int that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        refuse(argument, "must be an int, not negative", repr(value))
    if value > MAX_DIMENSION:
        refuse(argument, f"must be at most {MAX_DIMENSION}", value)
    return value


def check_matrix_call(tensors: MatrixLogits) -> None:
    """All of `fp8_mqa_logits`' tensors but the logits.

    Raises:
        ArgumentError: one breaks a rule.
    """
    q, keys, key_sf, weights, starts, ends, _ = tensors
    _check_queries(q, 3)
    tokens, heads, head_dim = q.shape
    _check_like_q("kv[0]", keys, 2, torch.float8_e4m3fn, q.device)
    check_shape("kv[0]", keys, (keys.shape[0], head_dim), "(keys, head_dim)")
    _check_rows("kv[0]", keys)
    if row_stride(keys) % TMA_ALIGNMENT or (keys.shape[0] > 1 and keys.stride(0) < head_dim):
        rule = f"row stride must be a multiple of {TMA_ALIGNMENT} bytes and at least head_dim"
        refuse("kv[0]", rule, keys.stride(0))
    _check_vector("kv[1]", key_sf, torch.float32, q.device)
    check_shape("kv[1]", key_sf, (keys.shape[0],), "(keys)")
    _check_weights(weights, tokens, heads, q.device)
    for name, vector in (("cu_seq_len_k_start", starts), ("cu_seq_len_k_end", ends)):
        _check_vector(name, vector, torch.int32, q.device)
        check_shape(name, vector, (tokens,), "(tokens)")


def check_matrix_addresses(tensors: MatrixLogits) -> None:
    """TMA reads from multiples of 16 bytes."""
    q, keys, key_sf = tensors[:3]
    for name, tensor in (("q", q), ("kv[0]", keys), ("kv[1]", key_sf)):
        check_address(name, tensor.data_ptr(), TMA_ALIGNMENT)


def check_paged_call(tensors: PagedLogits) -> None:
    """All of `fp8_paged_mqa_logits`' tensors but the logits.

    Raises:
        ArgumentError: one breaks a rule.
    """
    q, cache, weights, lens, table, schedule, _ = tensors
    _check_queries(q, 4)
    sequences, next_n, heads, head_dim = q.shape
    if sequences > 1 and q.stride(0) != next_n * q.stride(1):
        refuse("q", "must have its tokens at one stride", f"strides {tuple(q.stride())}")
    _check_cache(cache, head_dim, q.device)
    _check_weights(weights, sequences * next_n, heads, q.device)
    check_context_lens(lens, q.device)
    if lens.shape not in ((sequences,), (sequences, next_n)):
        rule = f"must have shape (sequences) or (sequences, next_n) = {(sequences, next_n)}"
        refuse("context_lens", rule, f"shape {tuple(lens.shape)}")
    _check_like_q("block_table", table, 2, torch.int32, q.device)
    check_shape("block_table", table, (sequences, table.shape[1]), "(sequences, pages)")
    _check_rows("block_table", table)
    _check_like_q("schedule_meta", schedule, 2, torch.int32, q.device)
    if schedule.shape[0] < 2 or schedule.shape[1] != 2 or not schedule.is_contiguous():
        rule = "must be a contiguous [num_sms + 1, 2] of get_paged_mqa_logits_metadata"
        refuse("schedule_meta", rule, f"shape {tuple(schedule.shape)}")


def check_paged_addresses(tensors: PagedLogits) -> None:
    """TMA reads from multiples of 16 bytes."""
    for name, tensor in (("q", tensors.q), ("kv_cache", tensors.cache)):
        check_address(name, tensor.data_ptr(), TMA_ALIGNMENT)


def check_context_lens(lens: torch.Tensor, device: torch.device) -> None:
    """[sequences] or [sequences, next_n], int32, contiguous."""
    if lens.dim() not in (1, 2):
        refuse("context_lens", "must have 1 or 2 dimensions", f"shape {tuple(lens.shape)}")
    _check_like_q("context_lens", lens, lens.dim(), torch.int32, device)
    if not lens.is_contiguous():
        refuse("context_lens", "must be contiguous", f"strides {tuple(lens.stride())}")


def check_page_keys(page_keys: object) -> None:
    """A number of keys that a page may have."""
    if page_keys not in PAGE_KEYS:
        refuse("block_kv", f"must be one of {PAGE_KEYS}", repr(page_keys))


def check_no_indices(indices: object) -> None:
    """Shared rows of a block table, which no kernel has."""
    if indices is not None:
        refuse("indices", "must be None", type(indices).__name__)


def _check_queries(q: torch.Tensor, dims: int) -> None:
    check_not_fp4("q", q)
    _check_like_q("q", q, dims, torch.float8_e4m3fn, q.device)
    *_, heads, head_dim = q.shape
    if heads not in HEADS:
        refuse("q", "must have a multiple of 8 heads, 8 to 128", heads)
    if head_dim not in HEAD_DIMS:
        refuse("q", f"head_dim must be one of {HEAD_DIMS}", head_dim)
    if q.stride(-1) != 1 or q.stride(-2) != head_dim:
        refuse("q", "must have contiguous heads", f"strides {tuple(q.stride())}")
    token = q.stride(-3) if q.shape[-3] > 1 else heads * head_dim
    if token < heads * head_dim or token % TMA_ALIGNMENT:
        rule = f"token stride must be a multiple of {TMA_ALIGNMENT} bytes, heads must not overlap"
        refuse("q", rule, f"strides {tuple(q.stride())}")


def _check_cache(cache: torch.Tensor, head_dim: int, device: torch.device) -> None:
    _check_like_q("kv_cache", cache, 4, torch.uint8, device)
    pages, page_keys, one, row = cache.shape
    if page_keys not in PAGE_KEYS:
        refuse("kv_cache", f"must have pages of {PAGE_KEYS} keys", page_keys)
    width = head_dim + FP32_BYTES
    if (one, row) != (1, width):
        rule = f"must have shape (pages, page_keys, 1, head_dim + 4 = {width})"
        refuse("kv_cache", rule, f"shape {tuple(cache.shape)}")
    if pages == 0:
        refuse("kv_cache", "must have pages", f"shape {tuple(cache.shape)}")
    strides = cache.stride()
    if strides[1] != width or strides[3] != 1:
        refuse("kv_cache", "must have contiguous pages", f"strides {strides}")
    if pages > 1 and (strides[0] % TMA_ALIGNMENT or strides[0] < page_keys * width):
        rule = f"pages must begin at multiples of {TMA_ALIGNMENT} bytes and not overlap"
        refuse("kv_cache", rule, f"strides {strides}")


def _check_weights(weights: torch.Tensor, tokens: int, heads: int, device: torch.device) -> None:
    _check_like_q("weights", weights, 2, torch.float32, device)
    check_shape("weights", weights, (tokens, heads), "(tokens, heads)")
    _check_rows("weights", weights)


def _check_like_q(
    argument: str, tensor: object, dims: int, dtype: torch.dtype, device: torch.device
) -> None:
    tensor = check_is_tensor(argument, tensor)
    if tensor.dim() != dims:
        refuse(argument, f"must have {dims} dimension(s)", f"shape {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        refuse(argument, f"must have dtype {dtype}", tensor.dtype)
    if tensor.device != device:
        refuse(argument, f"must be on {device}, the device of q", tensor.device)


def _check_rows(argument: str, matrix: torch.Tensor) -> None:
    if matrix.shape[1] > 1 and matrix.stride(1) != 1:
        refuse(argument, "must have contiguous rows", f"strides {tuple(matrix.stride())}")


def _check_vector(argument: str, vector: object, dtype: torch.dtype, device: torch.device) -> None:
    vector = check_is_tensor(argument, vector)
    _check_like_q(argument, vector, 1, dtype, device)
    if not vector.is_contiguous():
        refuse(argument, "must be contiguous", f"strides {tuple(vector.stride())}")
