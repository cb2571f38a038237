"""`python -m deep_gemm` on a machine that can do everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deep_gemm", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("sizes", [(4096, 7168, 2048), (1, 576, 7168), (65, 136, 272)])
def test_demo(sizes: tuple[int, int, int]) -> None:
    arguments = [f"--{name}={size}" for name, size in zip("mnk", sizes, strict=True)]
    result = run("demo", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.splitlines()[-1] == "The result is right."
    for label in ("max error", "calc_diff", "time", "throughput", "floor", "share of floor"):
        assert f"\n{label} " in result.stdout


def test_doctor() -> None:
    result = run("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "SM90" in result.stdout and "missing" not in result.stdout
