"""`precompile` with a real compiler: in an empty cache, and as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deep_gemm import ProblemRange, precompile
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import kernels_of
from deep_gemm.jit.build import build, forbid_compilation, forget_builds
from deep_gemm.jit.codegen import generate

FEW = ProblemRange(GemmProblem(1, 2112, 1024), 256)


def test_what_is_asked_for_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    forget_builds()
    configs = kernels_of([FEW])
    done = precompile([FEW], jobs=2)
    assert 2 <= done.num_kernels == done.num_compiled == len(configs)
    forget_builds()
    with forbid_compilation():
        assert all(build(generate(config, "90a")).from_cache for config in configs)
    assert len(list(tmp_path.glob("cache/*/*"))) == len(configs)
    monkeypatch.undo()
    forget_builds()


def test_a_process_compiles_what_the_next_finds(tmp_path: Path) -> None:
    (tmp_path / "problems.jsonl").write_text('{"m": [1, 256], "n": 2112, "k": 1024}\n')
    command = [sys.executable, "-m", "deep_gemm", "precompile"]
    command += ["--problems", str(tmp_path / "problems.jsonl")]
    environment = {**os.environ, "DG_JIT_CACHE_DIR": str(tmp_path / "kernels")}
    said = [
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    number = len(kernels_of([FEW]))
    for result, compiled in zip(said, (number, 0), strict=True):
        words = f"{number} kernels are ready: {compiled} compiled, {number - compiled} from "
        assert result.stdout.startswith(words) and result.stderr == ""
        assert re.search(r"from the cache, \d+\.\d s\n$", result.stdout)
