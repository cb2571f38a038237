"""A process that forks in the middle of a compile: parent and child both compile on."""

from __future__ import annotations

import multiprocessing
import threading
import time

import pytest

from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.source import KernelSource

SECONDS = 60

SMALL = KernelSource("small", 'extern "C" __global__ void small() {}\n', "small", "90a")


def compile_small() -> None:
    select_compiler().compile(SMALL)


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06])
def test_parent_and_child_compile(delay: float) -> None:
    source = generate(select(GemmProblem(64, 7168, 2048)).config, "90a")
    compiled = []
    thread = threading.Thread(target=lambda: compiled.append(select_compiler().compile(source)))
    thread.start()
    time.sleep(delay)
    child = multiprocessing.get_context("fork").Process(target=compile_small)
    child.start()
    child.join(SECONDS)
    hangs = child.is_alive()
    child.kill()
    thread.join()
    assert not hangs, "the child waits for a lock of its parent's thread"
    assert child.exitcode == 0
    assert compiled[0].cubin
