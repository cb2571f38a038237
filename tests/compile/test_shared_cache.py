"""Fresh processes with the real compiler on one empty cache, after one was killed compiling."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.upkeep import fault_of, stored

ROOT = Path(__file__).parents[2]
NUM_PROCESSES = 3
TIMEOUT = 120

# Starts to build when told to, so that the slow import of torch does not tell the processes apart.
PROGRAM = """
import sys
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate

print("ready", flush=True)
sys.stdin.readline()
for config in (GemmConfig(64, 32, 3, 1), GemmConfig(64, 16, 3, 1)):
    kernel = build(generate(config, "90a"))
    print("found" if kernel.from_cache else "compiled", kernel.name, len(kernel.cubin), flush=True)
"""


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "DG_JIT_CACHE_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_each_kernel_is_compiled_once(tmp_path: Path) -> None:
    victim, *processes = [start(tmp_path / "kernels") for _ in range(1 + NUM_PROCESSES)]
    for process in (victim, *processes):
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    assert victim.stdin is not None
    victim.stdin.write("\n")
    victim.stdin.flush()
    deadline = time.monotonic() + TIMEOUT
    while not list((tmp_path / "kernels/lock").glob("*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    victim.kill()
    assert victim.communicate()[0] == "", "it was killed too late to be compiling"
    lines = []
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in processes:
        lines += process.communicate(timeout=TIMEOUT)[0].splitlines()
        assert process.returncode == 0
    words = [line.split() for line in lines]
    compiled = sorted(name for how, name, _ in words if how == "compiled")
    assert len(words) == 2 * NUM_PROCESSES
    assert compiled == sorted({name for _, name, _ in words})
    cache = KernelCache(tmp_path / "kernels")
    entries = stored(cache)
    assert len(entries) == 2 and not any(fault_of(cache, entry) for entry in entries)
