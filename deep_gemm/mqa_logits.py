"""MQA logits: the scores of the lightning indexer, for prefill and for pages of a cache.

Nothing here waits for the device, and every call can be part of a CUDA graph.
"""

from __future__ import annotations

import math

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm.call_cache import CallCache
from deep_gemm.checks import check_is_tensor, check_operand, check_positive, refuse
from deep_gemm.kernels.mqa_logits import MatrixLogits, PagedLogits
from deep_gemm.kernels.paged_shares import plan_paged_shares
from deep_gemm.mqa_checks import (
    ROW_BYTES,
    check_context_lens,
    check_count,
    check_logits_dtype,
    check_matrix_addresses,
    check_matrix_call,
    check_no_indices,
    check_page_keys,
    check_paged_addresses,
    check_paged_call,
    plain_queries,
)
from deep_gemm.runtime.device import arch_of
from deep_gemm.runtime.launch import Plan
from deep_gemm.settings import current
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils.math import align

Queries = torch.Tensor | tuple[torch.Tensor, None]
"""FP8 queries: a tensor, or a pair with None in the place of scale factors."""

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""What a call reads: the tensors of `MatrixLogits` or of `PagedLogits`, but the logits."""

_plans: CallCache[Plan] = CallCache()


def fp8_mqa_logits(
    q: Queries,
    kv: tuple[torch.Tensor, torch.Tensor],
    weights: torch.Tensor,
    cu_seq_len_k_start: torch.Tensor,
    cu_seq_len_k_end: torch.Tensor,
    clean_logits: bool | int | None = None,
    max_seqlen_k: int | None = 0,
    logits_dtype: torch.dtype = torch.float32,
    *,
    schedule_meta: None = None,
) -> torch.Tensor:
    """Scores keys for each query token, on the current stream:

        logits[i, j] = (sum over heads h of weights[i, h] * relu(q[i, h] . k[j])) * sf[j]

    A logit's bits depend on its operands alone: neither on the other tokens nor on the ranges.

    There are two orders of arguments in use, told apart by the sixth: a bool is `clean_logits`; an
    int is `max_seqlen_k`, as in the reference library since 2.8, which then does not clean.

    Args:
        q: [tokens, heads, head_dim] float8_e4m3fn, or (q, None). Heads a multiple of 8, up to 128;
            head_dim 32, 64 or 128; tokens at any stride of whole 16 bytes.
        kv: keys [keys, head_dim] float8_e4m3fn, and their scale factors [keys] FP32, contiguous.
        weights: [tokens, heads] FP32, any token stride.
        cu_seq_len_k_start: [tokens] int32: the first key that a token sees.
        cu_seq_len_k_end: [tokens] int32: the key behind the last. Beyond the last key that there is
            it means that one; where it is not above the start, no key is seen.
        clean_logits: write -inf where a token sees no key; otherwise what lies there is not
            written. By default True, unless max_seqlen_k is given.
        max_seqlen_k: if not 0, logits are compressed: column 0 of row i is key
            cu_seq_len_k_start[i], and there are so many columns. What does not fit is not computed.
        logits_dtype: torch.float32 or torch.bfloat16; sums are FP32.
        schedule_meta: must be None: the kernel finds its schedule itself.

    Returns:
        [tokens, keys], or [tokens, max_seqlen_k], of `logits_dtype`. Rows begin at multiples of
        1024 bytes: it is a view.

    Raises:
        ArgumentError: an argument breaks one of these rules.
        UnsupportedArchitectureError: there are no kernels for the device.
        CompilationError: the kernel could not be compiled.
    """
    data, (keys, key_sf) = plain_queries(q), check_operand("kv", kv)
    width, cleans = _columns(clean_logits, max_seqlen_k, schedule_meta)
    dtype = check_logits_dtype(logits_dtype)
    inputs = (data, keys, key_sf, weights, cu_seq_len_k_start, cu_seq_len_k_end)
    if is_dynamo_compiling() or has_no_memory(data):
        recorded: torch.Tensor = torch.ops.deep_gemm.mqa_logits(*inputs, width, cleans, dtype)
        return recorded
    return run_matrix_logits(inputs, width, cleans, dtype)


fp8_fp4_mqa_logits = fp8_mqa_logits
"""The name under which others also take FP4 operands; here they are refused."""


def run_matrix_logits(
    inputs: Inputs, width: int | None, cleans: bool, dtype: torch.dtype
) -> torch.Tensor:
    """What `fp8_mqa_logits` does once its arguments are in one form.

    Args:
        inputs: q, keys, their scale factors, weights, first keys, ends.
        width: columns of compressed logits.
        cleans: write -inf where a token sees no key.
        dtype: of the logits.
    """
    data, keys = inputs[:2]
    settings = current()
    key = (*map(_kind, inputs), width, cleans, dtype, settings, arch_of(data.device))
    plan = _plans.get(key)
    if plan is None:
        check_matrix_call(MatrixLogits(*inputs, data))
    num_keys = keys.shape[0]
    logits = new_logits(data.shape[0], num_keys if width is None else width, dtype, data.device)
    tensors = MatrixLogits(*inputs, logits)
    if logits.numel() == 0:
        return logits
    if num_keys == 0:
        return logits.fill_(-math.inf) if cleans else logits
    check_matrix_addresses(tensors)
    if plan is None:
        plan = _plans.remember(key, tensors.plan(width is not None, cleans, settings))
    plan.launch(*tensors.addresses())
    return logits


def get_paged_mqa_logits_metadata(
    context_lens: torch.Tensor, block_kv: int, num_sms: int, indices: None = None
) -> torch.Tensor:
    """Divides the keys of all sequences among multiprocessors: a kernel on the current stream.

    What it holds depends on context_lens and num_sms only. It may be copied elsewhere, and it is
    right as long as context_lens stays as it is.

    Args:
        context_lens: int32, contiguous: [sequences], or [sequences, next_n], see
            `fp8_paged_mqa_logits`.
        block_kv: keys of a page: 16, 32 or 64.
        num_sms: multiprocessors that `fp8_paged_mqa_logits` is to use.
        indices: must be None.

    Returns:
        [num_sms + 1, 2] int32, contiguous: sequence and tile of 128 keys at which each begins; the
        last row is where the last one ends. None has more than one tile more than another.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    check_is_tensor("context_lens", context_lens)
    check_context_lens(context_lens, context_lens.device)
    check_page_keys(block_kv)
    check_positive("num_sms", num_sms)
    check_no_indices(indices)
    if is_dynamo_compiling() or has_no_memory(context_lens):
        operator = torch.ops.deep_gemm.get_paged_mqa_logits_metadata
        recorded: torch.Tensor = operator(context_lens, block_kv, num_sms)
        return recorded
    shape = (num_sms + 1, 2)
    if context_lens.numel() == 0:
        return torch.zeros(shape, dtype=torch.int32, device=context_lens.device)
    settings = current()
    shares = torch.empty(shape, dtype=torch.int32, device=context_lens.device)
    key = (_kind(context_lens), num_sms, settings)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans.remember(key, plan_paged_shares(context_lens, shares, settings))
    plan.launch(context_lens.data_ptr(), shares.data_ptr())
    return shares


def fp8_paged_mqa_logits(
    q: Queries,
    kv_cache: torch.Tensor,
    weights: torch.Tensor,
    context_lens: torch.Tensor,
    block_table: torch.Tensor,
    schedule_meta: torch.Tensor,
    max_context_len: int,
    clean_logits: bool | None = False,
    logits_dtype: torch.dtype | None = torch.float32,
    indices: None = None,
) -> torch.Tensor:
    """Scores the keys of a paged cache for the last tokens of sequences, as `fp8_mqa_logits` does.

    Args:
        q: [sequences, next_n, heads, head_dim] float8_e4m3fn, or (q, None), as there.
        kv_cache: [pages, block_kv, 1, head_dim + 4] uint8, pages contiguous and at multiples of 16
            bytes: of each page block_kv * head_dim bytes of float8_e4m3fn keys, then their scale
            factors, block_kv FP32. block_kv is 16, 32 or 64.
        weights: [sequences * next_n, heads] FP32, any row stride.
        context_lens: int32, contiguous: [sequences, next_n], the number of keys that each token
            sees; or [sequences], then token i of next_n sees context_lens - next_n + i + 1.
        block_table: [sequences, n] int32, rows contiguous: pages of each sequence, in order. What
            lies behind the last page in use may be anything; it is not read.
        schedule_meta: what `get_paged_mqa_logits_metadata` gave for these context_lens.
        max_context_len: columns of the logits; keys from there on are not scored.
        clean_logits: write -inf from a row's length on; otherwise what lies there is not written.
        logits_dtype: torch.float32 or torch.bfloat16; sums are FP32.
        indices: must be None. Orders of arguments in which it stands in the place of
            `clean_logits` or `logits_dtype` are known by its None.

    Returns:
        [sequences * next_n, max_context_len] of `logits_dtype`. Rows begin at multiples of 1024
        bytes: it is a view.

    Raises:
        ArgumentError: an argument breaks one of these rules.
        UnsupportedArchitectureError: there are no kernels for the device.
        CompilationError: the kernel could not be compiled.
    """
    data = plain_queries(q)
    for value in (clean_logits, logits_dtype, indices):
        if isinstance(value, torch.Tensor):
            check_no_indices(value)
    check_no_indices(indices)
    width, cleans = check_count("max_context_len", max_context_len), bool(clean_logits)
    dtype = torch.float32 if logits_dtype is None else check_logits_dtype(logits_dtype)
    inputs = (data, kv_cache, weights, context_lens, block_table, schedule_meta)
    if is_dynamo_compiling() or has_no_memory(data):
        recorded: torch.Tensor = torch.ops.deep_gemm.paged_mqa_logits(*inputs, width, cleans, dtype)
        return recorded
    return run_paged_logits(inputs, width, cleans, dtype)


fp8_fp4_paged_mqa_logits = fp8_paged_mqa_logits
"""The name under which others also take FP4 operands; here they are refused."""


def run_paged_logits(inputs: Inputs, width: int, cleans: bool, dtype: torch.dtype) -> torch.Tensor:
    """What `fp8_paged_mqa_logits` does once its arguments are in one form.

    Args:
        inputs: q, cache, weights, lengths, table, schedule.
        width: columns of the logits.
        cleans: write -inf from a row's length on.
        dtype: of the logits.
    """
    data = inputs[0]
    settings = current()
    key = (*map(_kind, inputs), width, cleans, dtype, settings, arch_of(data.device))
    plan = _plans.get(key)
    if plan is None:
        check_paged_call(PagedLogits(*inputs, data))
    logits = new_logits(data.shape[0] * data.shape[1], width, dtype, data.device)
    tensors = PagedLogits(*inputs, logits)
    if logits.numel() == 0:
        return logits
    check_paged_addresses(tensors)
    if plan is None:
        plan = _plans.remember(key, tensors.plan(cleans, settings))
    plan.launch(*tensors.addresses())
    return logits


def _columns(
    clean_logits: object, max_seqlen_k: object, schedule_meta: object
) -> tuple[int | None, bool]:
    """Columns of compressed logits, or None, and whether logits are cleaned."""
    if isinstance(clean_logits, int) and not isinstance(clean_logits, bool):
        # The newer order: max_seqlen_k, schedule_meta. Its logits are always compressed.
        is_unset = max_seqlen_k is None or isinstance(max_seqlen_k, int)
        _check_no_schedule(schedule_meta if is_unset else max_seqlen_k)
        return check_count("max_seqlen_k", clean_logits), False
    if clean_logits is not None and not isinstance(clean_logits, bool):
        refuse("clean_logits", "must be a bool, or an int for max_seqlen_k", repr(clean_logits))
    _check_no_schedule(schedule_meta)
    width = check_count("max_seqlen_k", max_seqlen_k) or None
    return width, width is None if clean_logits is None else clean_logits


def _check_no_schedule(schedule_meta: object) -> None:
    if schedule_meta is not None:
        rule = "must be None: the kernel finds its schedule itself"
        refuse("schedule_meta", rule, type(schedule_meta).__name__)


def new_logits(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """[rows, columns] of a wider buffer, on which other libraries' kernels for top-k rely."""
    step = align(columns + 256, ROW_BYTES // dtype.itemsize)
    return torch.empty((rows, step), dtype=dtype, device=device)[:, :columns]


def _kind(tensor: object) -> object:
    """All of a tensor but its address; the type of what is none."""
    if not isinstance(tensor, torch.Tensor):
        return type(tensor)
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device
