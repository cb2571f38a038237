"""The bits of a row of D, whatever other rows there are, where that is asked for."""

from __future__ import annotations

import pytest
import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.random_operands import RandomOperands

MS = (1, 2, 16, 17, 64, 65, 128, 129, 257, 512, 1000)


@pytest.mark.parametrize(("n", "k"), [(576, 7168), (2112, 7168), (7168, 2048), (128, 16384)])
def test_a_row_has_the_same_bits_in_every_batch(n: int, k: int) -> None:
    source = RandomOperands(n + k, torch.device("cuda"))
    (a, sfa), b = source.by_token(max(MS), k), source.by_block(n, k)
    rows = []
    with deep_gemm.override(batch_invariant=True):
        for m in MS:
            d = torch.full((m, n), torch.nan, dtype=torch.bfloat16, device="cuda")
            deep_gemm.fp8_gemm_nt((a[:m], sfa[:m]), b, d)
            rows.append(d)
    for m, d in zip(MS, rows, strict=True):
        assert_bitwise_equal(d, rows[-1][:m])
