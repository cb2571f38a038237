"""What precompiling is for, on any device: afterwards calls find their kernels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    fp8_mqa_logits,
    fp8_paged_mqa_logits,
    get_paged_mqa_logits_metadata,
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
    precompile,
    read_problems,
)
from deep_gemm.call_cache import forget_calls
from deep_gemm.errors import CompilationError
from deep_gemm.jit.build import forbid_compilation, forget_builds
from deep_gemm.record import forget_recorded
from tests.mqa import Pages, Shape, paged_cache

N, K, GROUPS, ROWS = 64, 128, 2, 128
LEAST_KERNELS = 7
"""Of single, m-grouped and k-grouped products, and one for the maps of the latter; of logits for
keys in a matrix and in pages, and one for the shares of the latter."""


def operand(device: str, *shape: int, gran: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Ones and zeros [.., rows, k], with scale factors of one per `gran` rows and 128 of k."""
    data = (torch.arange(torch.Size(shape).numel(), device=device) % 2).view(shape)
    *batch, rows, k = shape
    sf = torch.ones(*batch, -(-rows // gran), k // 128, device=device)
    return data.to(torch.float8_e4m3fn), sf


def call_everything(device: str) -> None:
    """A small call of every kind of product; every element of D is half of K."""

    def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
        return torch.zeros(shape, device=device, dtype=dtype)

    def integers(*values: int) -> torch.Tensor:
        return torch.tensor(values, device=device, dtype=torch.int32)

    weights = operand(device, GROUPS, N, K, gran=128)
    dense = empty(8, N)
    fp8_gemm_nt(operand(device, 8, K), operand(device, N, K, gran=128), dense)
    contiguous = empty(GROUPS * ROWS, N)
    ids = torch.arange(GROUPS, device=device, dtype=torch.int32).repeat_interleave(ROWS)
    m_grouped_fp8_gemm_nt_contiguous(operand(device, GROUPS * ROWS, K), weights, contiguous, ids)
    masked = empty(GROUPS, 8, N)
    x = operand(device, GROUPS, 8, K)
    m_grouped_fp8_gemm_nt_masked(x, weights, masked, integers(8, 8), 8)
    gradients = empty(1, 32, 32, dtype=torch.float32)
    data, sf = operand(device, 32, K)
    flat = (data.view(-1), sf)
    k_grouped_fp8_gemm_nt_contiguous(flat, flat, gradients, [K], integers(K))
    for d in (dense, contiguous, masked, gradients):
        assert (d == K / 2).all()
    q, weights = Shape(8, 32).queries(2, device, 0)
    pages = Pages(((40,), (9,)), 64, 64)
    _, cache, table = paged_cache(Shape(8, 32), pages, device, 0)
    lens = integers(40, 9)
    schedule = get_paged_mqa_logits_metadata(lens, 64, 2)
    paged = fp8_paged_mqa_logits(q[:, None], cache, weights, lens, table, schedule, 64)
    keys = Shape(8, 32).keys(20, device, 0)
    matrix = fp8_mqa_logits(q, keys, weights, integers(0, 3), integers(20, 9))
    assert paged[0, :40].isfinite().all() and matrix[0].isfinite().all()


def check_a_recorded_run(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one run recorded is precompiled into an empty cache; the next compiles nothing."""
    record = tmp_path / "record.jsonl"
    monkeypatch.setenv("DG_JIT_RECORD", str(record))
    forget_recorded()
    forget_calls()
    call_everything(device)
    monkeypatch.delenv("DG_JIT_RECORD")
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "empty"))
    forget_calls()
    forget_builds()
    with forbid_compilation(), pytest.raises(CompilationError):
        call_everything(device)
    done = precompile(read_problems(record))
    assert done.num_kernels == done.num_compiled >= LEAST_KERNELS
    forget_calls()
    forget_builds()
    with forbid_compilation():
        call_everything(device)
    monkeypatch.undo()
    forget_builds()
