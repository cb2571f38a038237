"""The orders of arguments in which engines ask for MQA logits: all give the same logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.mqa_reference import mqa_logits_reference, pages_of, visible_logits
from tests.emulator.arch import each_arch
from tests.mqa import Shape

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

FP32 = torch.float32
WIDTH = 37

SHAPE = Shape(16, 32)
Q, WEIGHTS = SHAPE.queries(6, "cpu", 0)
KV = SHAPE.keys(60, "cpu", 0)
STARTS = torch.tensor([0, 3, 10, 30, 0, 59], dtype=torch.int32)
ENDS = torch.tensor([20, 60, 11, 30, 1, 60], dtype=torch.int32)
FIVE = Q, KV, WEIGHTS, STARTS, ENDS
REFERENCE = mqa_logits_reference(Q, KV, WEIGHTS)[0]

MATRIX: dict[str, tuple[Callable[[], torch.Tensor], int | None, bool]] = {
    "vLLM 0.33, of 2.8": (
        lambda: deep_gemm.fp8_fp4_mqa_logits((Q, None), *FIVE[1:], WIDTH),
        WIDTH,
        False,
    ),
    "2.8, no columns": (lambda: deep_gemm.fp8_fp4_mqa_logits(*FIVE, 0, None), 0, False),
    "2.8, by name": (lambda: deep_gemm.fp8_fp4_mqa_logits(*FIVE, max_seqlen_k=WIDTH), WIDTH, False),
    "SGLang 0.5.23, of 2.6": (
        lambda: deep_gemm.fp8_fp4_mqa_logits((Q, None), *FIVE[1:], False, WIDTH, logits_dtype=FP32),
        WIDTH,
        False,
    ),
    "SGLang": (lambda: deep_gemm.fp8_mqa_logits(*FIVE, clean_logits=False), None, False),
    "rtp-llm": (lambda: deep_gemm.fp8_mqa_logits(*FIVE, True, 0), None, True),
    "2.1": (lambda: deep_gemm.fp8_mqa_logits(*FIVE), None, True),
    "lmdeploy": (
        lambda: deep_gemm.fp8_fp4_mqa_logits(
            q=(Q, None),
            kv=KV,
            weights=WEIGHTS,
            cu_seq_len_k_start=STARTS,
            cu_seq_len_k_end=ENDS,
            clean_logits=False,
            max_seqlen_k=WIDTH,
            logits_dtype=FP32,
        ),
        WIDTH,
        False,
    ),
}


@pytest.fixture(autouse=True)
def two_multiprocessors() -> Iterator[None]:
    with deep_gemm.override(num_sms=2):
        yield


@pytest.mark.parametrize("name", MATRIX)
def test_keys_in_a_matrix(name: str) -> None:
    call, width, cleaned = MATRIX[name]
    out = call()
    wanted = visible_logits(REFERENCE, STARTS, ENDS, width).float()
    assert out.shape == wanted.shape and out.stride(0) * 4 % 1024 == 0
    is_seen = wanted != -torch.inf
    assert (out[is_seen] == wanted[is_seen]).all()
    if cleaned:
        assert (out == wanted).all()


def test_keys_in_pages() -> None:
    lens = torch.tensor([[59, 60]], dtype=torch.int32)
    cache, table = pages_of(KV, 64), torch.zeros(1, 3, dtype=torch.int32)
    shares = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, deep_gemm.get_num_sms() // 2)
    seven = Q[None, :2], cache, WEIGHTS[:2], lens, table, shares, 60
    outs = [
        deep_gemm.fp8_paged_mqa_logits(*seven),
        deep_gemm.fp8_paged_mqa_logits(*seven, clean_logits=False),
        deep_gemm.fp8_paged_mqa_logits(*seven, False, None),  # type: ignore[arg-type]
        deep_gemm.fp8_fp4_paged_mqa_logits((Q[None, :2], None), *seven[1:], indices=None),
        deep_gemm.fp8_fp4_paged_mqa_logits(*seven, None),
        deep_gemm.fp8_fp4_paged_mqa_logits(*seven, False, logits_dtype=FP32),
    ]
    wanted = REFERENCE[:2].float()
    for out in outs:
        assert (out[0, :59] == wanted[0, :59]).all() and (out[1] == wanted[1]).all()
    assert_bitwise_equal(shares, deep_gemm.get_paged_mqa_logits_metadata(lens[:, 1], 16, 1))
