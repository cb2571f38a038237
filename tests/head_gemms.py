"""fp8_gemm_nt_skip_head_mid, whose D has gaps; for any device."""

from __future__ import annotations

import torch

from deep_gemm import fp8_gemm_nt_skip_head_mid
from deep_gemm.testing import fp8_gemm_nt_reference
from tests.grouped_operands import exact_operand

SENTINEL = 0x7FA5
"""The bits of a BF16 NaN that nothing computes."""


def check_heads(
    m: int, k: int, num_heads: int, head_splits: tuple[int, int, int], device: str
) -> None:
    """The product around the gaps, bit for bit, and the gaps and the guards as they were."""
    left, mid, right = head_splits
    n = num_heads * (left + right)
    a = exact_operand((m, k), 1, device)
    b = exact_operand((n, k), 128, device, 1)
    width = n + num_heads * mid
    memory = torch.full((m + 2, width + 16), SENTINEL, dtype=torch.int16, device=device)
    d = memory.view(torch.bfloat16)[1:-1, 8:-8]
    fp8_gemm_nt_skip_head_mid(a, b, d, head_splits)
    product = fp8_gemm_nt_reference(a, b).to(torch.bfloat16)
    wanted = torch.full_like(memory, SENTINEL)
    inside = wanted.view(torch.bfloat16)[1:-1, 8:-8].unflatten(1, (num_heads, left + mid + right))
    heads = product.unflatten(1, (num_heads, left + right))
    inside[:, :, :left] = heads[:, :, :left]
    inside[:, :, left + mid :] = heads[:, :, left:]
    assert torch.equal(memory, wanted)
