"""MqaProblem: whose logits are to be computed. No tensor in it, and enough to choose a kernel."""

from __future__ import annotations

from dataclasses import dataclass

HEAD_DIMS = (32, 64, 128)
"""Bytes of a row of Q and K: widths of a swizzle."""

PAGE_KEYS = (16, 32, 64)
"""Keys of a page: a multiple of TMA's 16 bytes of scale factors, and a divisor of a tile."""

HEADS = range(8, 129, 8)


@dataclass(frozen=True, slots=True)
class MqaProblem:
    """MQA logits of FP8 queries and keys; how many of them there are chooses nothing.

    Attributes:
        heads: of a query token.
        head_dim: elements of a head, and of a key.
        page_keys: keys of a page, or 0 where keys lie in one matrix.
        next_n: query tokens of a sequence, for keys in pages.
        logits_bytes: 4 for FP32, 2 for BF16.
        arch: architecture that the kernel is compiled for.
    """

    heads: int
    head_dim: int
    page_keys: int = 0
    next_n: int = 1
    logits_bytes: int = 4
    arch: str = "90a"
