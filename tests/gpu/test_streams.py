"""Streams, graphs and threads: a call behaves like any other CUDA kernel of PyTorch's."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from operands import check_exact, integer_operands

from deep_gemm import fp8_gemm_nt

FIRST_CALL = """
import sys
import torch
from operands import check_exact, integer_operands
from deep_gemm import CompilationError, fp8_gemm_nt

a, b = integer_operands(200, 272, 400)
d = torch.zeros(200, 272, device="cuda", dtype=torch.bfloat16)
if sys.argv[1] == "plain":
    fp8_gemm_nt(a, b, d)
    check_exact(d, a, b)
    sys.exit()
graph = torch.cuda.CUDAGraph()
other = torch.zeros(8, device="cuda")
refusal = ""
with torch.cuda.graph(graph):
    other += 1
    try:
        fp8_gemm_nt(a, b, d)
    except CompilationError as error:
        refusal = str(error)
    other *= 2
graph.replay()
assert (other == 2).all(), other
if sys.argv[1] == "refused":
    assert "m=200, n=272, k=400" in refusal and "deep_gemm.precompile" in refusal, refusal
    assert not d.any()
    fp8_gemm_nt(a, b, d)
else:
    assert not refusal, refusal
check_exact(d, a, b)
"""


def output(m: int, n: int) -> torch.Tensor:
    return torch.full((m, n), float("nan"), device="cuda", dtype=torch.bfloat16)


def test_a_call_runs_on_the_current_stream() -> None:
    a, b = integer_operands(512, 512, 512)
    d = output(512, 512)
    fp8_gemm_nt(a, b, d)
    d.fill_(float("nan"))
    source = a[0].clone()
    a[0].copy_(torch.zeros_like(source))
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        a[0].copy_(source)
        fp8_gemm_nt(a, b, d)
    stream.synchronize()
    check_exact(d, (source, a[1]), b)


def test_two_streams_at_once() -> None:
    problems = [integer_operands(700, 528, 1040, seed) for seed in range(8)]
    outputs = [output(700, 528) for _ in problems]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    for _ in range(5):
        for i, ((a, b), d) in enumerate(zip(problems, outputs, strict=True)):
            with torch.cuda.stream(streams[i % 2]):
                fp8_gemm_nt(a, b, d)
    torch.cuda.synchronize()
    for (a, b), d in zip(problems, outputs, strict=True):
        check_exact(d, a, b)


def test_threads_share_a_plan() -> None:
    problems = [integer_operands(300, 272, 400, seed) for seed in range(4)]
    outputs = [output(300, 272) for _ in problems]
    torch.cuda.synchronize()

    def work(i: int) -> None:
        for _ in range(200):
            fp8_gemm_nt(*problems[i], outputs[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.cuda.synchronize()
    for (a, b), d in zip(problems, outputs, strict=True):
        check_exact(d, a, b)


def test_a_graph_replays_with_new_values() -> None:
    a, b = integer_operands(200, 272, 400)
    d = output(200, 272)
    fp8_gemm_nt(a, b, d)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        fp8_gemm_nt(a, b, d)
    (x, sfa), (y, sfb) = integer_operands(200, 272, 400, seed=1)
    for old, new in ((a[0], x), (a[1], sfa), (b[0], y), (b[1], sfb)):
        old.copy_(new)
    d.fill_(float("nan"))
    graph.replay()
    check_exact(d, a, b)


def first_call(request: pytest.FixtureRequest, order: str, cache: Path) -> None:
    """The first call of a process: plain, captured, or refused since it would have to compile."""
    paths = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL, order],
        cwd=request.path.parent,
        env={**os.environ, "PYTHONPATH": paths, "DG_JIT_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_first_call_of_a_process_may_be_under_capture(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Its kernel is read from disk and loaded meanwhile."""
    first_call(request, "plain", tmp_path)
    first_call(request, "captured", tmp_path)


def test_a_captured_call_that_would_compile_is_refused(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Nothing of it is captured, the capture goes on, and so does the process."""
    first_call(request, "refused", tmp_path)
