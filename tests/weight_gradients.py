"""Weight gradients under their names of version 1, checked to the bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm import (
    ceil_div,
    k_grouped_wgrad_gemm_fp8_fp8_fp32_nt,
    wgrad_gemm_fp8_fp8_fp32_nt,
)
from deep_gemm.testing import assert_bitwise_equal, fp8_gemm_nt_reference
from tests.grouped_calls import added, check_dense, finish, output, with_c
from tests.grouped_operands import Operand, exact_operand

STORED = ("rows first", "k first", "k first, strided")
"""How scale factors lie: [rows, k blocks] or [k blocks, rows]."""


def stored(operand: Operand, how: str) -> Operand:
    data, sf = operand
    if how == "rows first":
        return operand
    wide = torch.full((sf.shape[1], sf.shape[0] + 3), float("nan"), device=sf.device)
    wide[:, : sf.shape[0]] = sf.t()
    mine = wide[:, : sf.shape[0]]
    return data, mine if how == "k first, strided" else mine.contiguous()


def check_wgrad(device: str, m: int, n: int, k: int, how: str = "rows first") -> None:
    """The product is added to what was there."""
    a, b = exact_operand((m, k), 1, device), exact_operand((n, k), 1, device, 1)
    out = output(m, n, torch.float32, a[0].device)
    _, before = with_c(out.view, "d")
    wgrad_gemm_fp8_fp8_fp32_nt(stored(a, how), stored(b, how), out.view)
    finish(out)
    check_dense(out.view, a, b, 1, before)


def check_k_grouped_wgrad(device: str, m: int, n: int, ks: Sequence[int]) -> None:
    """Groups lie one behind the other, each with scale factors for its own last, partial block."""
    products = [
        (exact_operand((m, k), 1, device, 2 * g), exact_operand((n, k), 1, device, 2 * g + 1))
        for g, k in enumerate(ks)
    ]
    lhs, rhs = (flat([pair[side] for pair in products]) for side in (0, 1))
    assert lhs[1].shape == (sum(ceil_div(k, 128) for k in ks), m)
    out = output(len(ks) * m, n, torch.float32, lhs[0].device)
    d = out.view.view(len(ks), m, n)
    _, before = with_c(d, "d")
    assert before is not None
    k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(lhs, rhs, d, list(ks))
    finish(out)
    for (a, b), mine, values in zip(products, d, before, strict=True):
        product = fp8_gemm_nt_reference(a, b, gran_n=1)
        assert_bitwise_equal(mine, added(product, values, torch.float32))


def flat(operands: Sequence[Operand]) -> Operand:
    raw = torch.cat([data.view(torch.uint8).flatten() for data, _ in operands])
    sf = torch.cat([sf.t() for _, sf in operands])
    return raw.view(torch.float8_e4m3fn), sf.contiguous()
