"""What the calls for MQA logits refuse: argument, rule and what was got, without a compiler."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import (
    ArgumentError,
    fp8_fp4_mqa_logits,
    fp8_fp4_paged_mqa_logits,
    fp8_mqa_logits,
    fp8_paged_mqa_logits,
    get_paged_mqa_logits_metadata,
)
from deep_gemm.jit.build import forbid_compilation

FP8, INT32 = torch.float8_e4m3fn, torch.int32

Q = torch.zeros(6, 16, 32).to(FP8)
KV = (torch.zeros(40, 32).to(FP8), torch.zeros(40))
W = torch.zeros(6, 16)
KS = torch.zeros(6, dtype=INT32)
KE = KS + 40

PQ = Q.view(3, 2, 16, 32)
CACHE = torch.zeros(5, 64, 1, 36, dtype=torch.uint8)
LENS = torch.zeros(3, 2, dtype=INT32)
TABLE = torch.zeros(3, 4, dtype=INT32)
META = torch.zeros(9, 2, dtype=INT32)

Call = Callable[[], object]


def prefill(**changes: object) -> Call:
    """A call that is right but for what is changed."""
    arguments = {
        "q": Q, "kv": KV, "weights": W, "cu_seq_len_k_start": KS, "cu_seq_len_k_end": KE,
    }  # fmt: skip
    return lambda: fp8_mqa_logits(**{**arguments, **changes})  # type: ignore[arg-type]


def paged(**changes: object) -> Call:
    arguments = {
        "q": PQ, "kv_cache": CACHE, "weights": W, "context_lens": LENS, "block_table": TABLE,
        "schedule_meta": META, "max_context_len": 200,
    }  # fmt: skip
    return lambda: fp8_paged_mqa_logits(**{**arguments, **changes})  # type: ignore[arg-type]


def metadata(lens: object = LENS, block_kv: object = 64, num_sms: object = 8) -> Call:
    return lambda: get_paged_mqa_logits_metadata(lens, block_kv, num_sms)  # type: ignore[arg-type]


REFUSALS: dict[str, tuple[Call, str]] = {
    "no tensor": (prefill(q=3), "argument q: must be a torch.Tensor, got int"),
    "scale factors of q": (
        prefill(q=(Q, W)),
        r"argument q: must be a tensor or \(tensor, None\): FP8 .*, got Tensor",
    ),
    "three queries": (prefill(q=(Q, None, None)), "argument q: .*, got 3 items"),
    "packed FP4": (prefill(q=Q.view(torch.int8)), "argument q: must have dtype .*packed FP4"),
    "queries of two dimensions": (prefill(q=Q[0]), r"argument q: must have 3 .*, got shape \(16"),
    "12 heads": (
        prefill(q=Q[:, :12]),
        "argument q: must have a multiple of 8 heads, 8 to 128, got 12",
    ),
    "136 heads": (prefill(q=torch.zeros(6, 136, 32).to(FP8)), "8 to 128, got 136"),
    "head_dim": (
        prefill(q=torch.zeros(6, 16, 96).to(FP8)),
        r"argument q: head_dim must be one of \(32, 64, 128\), got 96",
    ),
    "heads apart": (
        prefill(q=torch.zeros(6, 32, 32).to(FP8)[:, ::2]),
        "argument q: must have contiguous heads, got strides",
    ),
    "tokens that overlap": (
        prefill(q=torch.zeros(2000).to(FP8).as_strided((6, 16, 32), (16, 32, 1))),
        "argument q: token stride must be a multiple of 16 bytes, heads must not overlap",
    ),
    "meta": (prefill(q=Q.to("meta")), "argument q: must be on a CUDA device, or on the CPU"),
    "kv alone": (prefill(kv=KV[0]), r"argument kv: must be a pair \(data, scale factors\)"),
    "another head_dim": (
        prefill(kv=(torch.zeros(40, 64).to(FP8), KV[1])),
        r"argument kv\[0\]: must have shape \(keys, head_dim\) = \(40, 32\)",
    ),
    "keys of BF16": (prefill(kv=(W.bfloat16(), KV[1])), r"argument kv\[0\]: must have dtype"),
    "rows of keys": (
        prefill(kv=(torch.zeros(40, 40).to(FP8)[:, :32], KV[1])),
        r"argument kv\[0\]: row stride must be a multiple of 16 bytes .*, got 40",
    ),
    "too few scale factors": (
        prefill(kv=(KV[0], KV[1][:39])),
        r"argument kv\[1\]: must have shape \(keys\) = \(40,\), got shape \(39,\)",
    ),
    "scale factors apart": (
        prefill(kv=(KV[0], torch.zeros(80)[::2])),
        r"argument kv\[1\]: must be contiguous, got strides \(2,\)",
    ),
    "scale factors that TMA cannot take": (
        prefill(kv=(KV[0], torch.zeros(41)[1:])),
        r"argument kv\[1\]: must start at a multiple of 16 bytes, got address",
    ),
    "weights of BF16": (prefill(weights=W.bfloat16()), "argument weights: must have dtype"),
    "weights of other tokens": (
        prefill(weights=W[:5]),
        r"argument weights: must have shape \(tokens, heads\) = \(6, 16\)",
    ),
    "weights' columns": (prefill(weights=torch.zeros(16, 6).T), "weights: must have contiguous"),
    "ranges of int64": (
        prefill(cu_seq_len_k_start=KS.long()),
        "argument cu_seq_len_k_start: must have dtype torch.int32, got torch.int64",
    ),
    "too few ranges": (prefill(cu_seq_len_k_end=KE[:2]), "argument cu_seq_len_k_end: must have sh"),
    "logits of FP16": (
        prefill(logits_dtype=torch.float16),
        "argument logits_dtype: must be torch.float32 or torch.bfloat16, got torch.float16",
    ),
    "clean_logits": (prefill(clean_logits="yes"), "argument clean_logits: must be a bool, or an i"),
    "negative width": (prefill(clean_logits=-1), "argument max_seqlen_k: must be an int, not neg"),
    "schedule": (prefill(schedule_meta=META), "argument schedule_meta: must be None"),
    "schedule, in the newer order": (
        lambda: fp8_fp4_mqa_logits(Q, KV, W, KS, KE, 40, META),  # type: ignore[arg-type]
        "argument schedule_meta: must be None: .*, got Tensor",
    ),
    "paged queries": (paged(q=Q), r"argument q: must have 4 dimension\(s\), got shape \(6, 16"),
    "sequences apart": (
        paged(q=torch.zeros(3, 4, 16, 32).to(FP8)[:, :2]),
        "argument q: must have its tokens at one stride, got strides",
    ),
    "cache of FP8": (paged(kv_cache=CACHE.view(FP8)), "argument kv_cache: must have dtype torch.u"),
    "no pages": (paged(kv_cache=CACHE[:0]), "argument kv_cache: must have pages"),
    "page of 48 keys": (
        paged(kv_cache=torch.zeros(5, 48, 1, 36, dtype=torch.uint8)),
        r"argument kv_cache: must have pages of \(16, 32, 64\) keys, got 48",
    ),
    "row of a page": (
        paged(kv_cache=torch.zeros(5, 64, 1, 40, dtype=torch.uint8)),
        r"argument kv_cache: must have shape \(pages, page_keys, 1, head_dim \+ 4 = 36\)",
    ),
    "pages at 8 bytes": (
        paged(
            kv_cache=torch.zeros(20000, dtype=torch.uint8).as_strided(
                (5, 64, 1, 36), (64 * 36 + 8, 36, 36, 1)
            )
        ),
        "argument kv_cache: pages must begin at multiples of 16 bytes",
    ),  # fmt: skip
    "lengths of others": (
        paged(context_lens=LENS[:2]),
        r"argument context_lens: must have shape \(sequences\) or .* = \(3, 2\), got shape \(2, 2",
    ),
    "lengths of three dimensions": (
        paged(context_lens=LENS[None]),
        "argument context_lens: must have 1 or 2 dimensions",
    ),
    "table of others": (paged(block_table=TABLE[:2]), "argument block_table: must have shape"),
    "table of int64": (paged(block_table=TABLE.long()), "argument block_table: must have dtype"),
    "table's columns": (paged(block_table=TABLE.T.contiguous().T), "block_table: must have contig"),
    "schedule's shape": (
        paged(schedule_meta=META[:1]),
        r"argument schedule_meta: must be a contiguous \[num_sms \+ 1, 2\]",
    ),
    "no width": (paged(max_context_len=2.0), "argument max_context_len: must be an int"),
    "indices": (paged(indices=KS), "argument indices: must be None, got Tensor"),
    "indices, in the newer order": (
        lambda: fp8_fp4_paged_mqa_logits(PQ, CACHE, W, LENS, TABLE, META, 9, KS),  # type: ignore[arg-type]
        "argument indices: must be None, got Tensor",
    ),
    "indices, in the older order": (
        lambda: fp8_paged_mqa_logits(PQ, CACHE, W, LENS, TABLE, META, 9, False, KS),  # type: ignore[arg-type]
        "argument indices: must be None, got Tensor",
    ),
    "metadata of int64": (metadata(LENS.long()), "argument context_lens: must have dtype"),
    "metadata of a column": (metadata(LENS[:, 0]), "argument context_lens: must be contiguous"),
    "metadata of pages of 48": (metadata(block_kv=48), "argument block_kv: must be one of"),
    "metadata for nobody": (metadata(num_sms=0), "argument num_sms: must be a positive int, got 0"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_call_is_refused(name: str) -> None:
    call, message = REFUSALS[name]
    with forbid_compilation(), pytest.raises(ArgumentError, match=message):
        call()
