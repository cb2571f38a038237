"""A call while a CUDA graph is captured: what is compiled runs, what is not is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from deep_gemm import (
    CompilationError,
    fp8_gemm_nt,
    gemm,
    get_mn_major_tma_aligned_tensor,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.call_cache import CallCache
from deep_gemm.jit.build import forget_builds
from deep_gemm.kernels import transpose
from tests.emulator.arch import each_arch
from tests.grouped_calls import check_dense
from tests.grouped_operands import exact_operand

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.fixture(autouse=True)
def new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled, on disk or in memory."""
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    forget_calls(monkeypatch)
    yield
    forget_builds()


def forget_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "_calls", CallCache())
    monkeypatch.setattr(transpose, "_layouts", CallCache())
    forget_builds()


def capture(monkeypatch: pytest.MonkeyPatch, is_capturing: bool = True) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: is_capturing)


def test_what_would_compile_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    a, b = exact_operand((20, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu", 1)
    d = torch.zeros(20, 48, dtype=torch.bfloat16)
    capture(monkeypatch)
    with pytest.raises(CompilationError, match=r"m=20, n=48, k=144.*deep_gemm\.precompile"):
        fp8_gemm_nt(a, b, d)
    assert not d.any(), "a refused call writes nothing"
    assert not list(tmp_path.rglob("*.cubin"))
    groups = (a[0][None], a[1][None]), (b[0][None], b[1][None]), d[None]
    rows = torch.tensor([20], dtype=torch.int32)
    with pytest.raises(CompilationError, match=r"n=48, k=144.*M_GROUPED.*is being captured"):
        m_grouped_fp8_gemm_nt_masked(*groups, rows, 20)
    capture(monkeypatch, False)
    fp8_gemm_nt(a, b, d)
    check_dense(d, a, b)


def test_what_is_in_memory_or_on_disk_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = exact_operand((20, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu", 1)
    d = torch.zeros(20, 48, dtype=torch.bfloat16)
    fp8_gemm_nt(a, b, d)
    capture(monkeypatch)
    for _ in range(2):
        d.zero_()
        fp8_gemm_nt(a, b, d)
        check_dense(d, a, b)
        forget_calls(monkeypatch)


def test_a_kernel_beside_the_product_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the transposition of scale factors."""
    capture(monkeypatch)
    with pytest.raises(CompilationError, match="transpose_32bit, which is not compiled yet"):
        get_mn_major_tma_aligned_tensor(torch.ones(32, 7))
