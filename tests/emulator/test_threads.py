"""Threads and forks: the same calls as ever, from anywhere in a process."""

from __future__ import annotations

import multiprocessing
import threading
from pathlib import Path

import pytest
import torch

from deep_gemm import gemm, grouped_gemm
from deep_gemm.call_cache import CallCache
from deep_gemm.jit.build import forget_builds
from tests.concurrent import check_threads, dense, masked
from tests.emulator.arch import each_arch

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

SECONDS = 60


def test_eight_threads_with_different_problems() -> None:
    check_threads("cpu", num_calls=1)


def test_a_forked_child_compiles_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a thread of its parent does the same, after the parent has used everything."""
    dense("cpu")(0)
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(gemm, "_calls", CallCache())
    monkeypatch.setattr(grouped_gemm, "_calls", CallCache())
    forget_builds()
    thread = threading.Thread(target=masked("cpu"), args=(3,))
    thread.start()
    child = multiprocessing.get_context("fork").Process(target=both)
    child.start()
    child.join(SECONDS)
    hangs = child.is_alive()
    child.kill()
    thread.join()
    forget_builds()
    assert not hangs and child.exitcode == 0


def both() -> None:
    # PyTorch's own products, in the reference, hang in a child of a process with OpenMP threads.
    torch.set_num_threads(1)
    dense("cpu")(1)
    masked("cpu")(2)
