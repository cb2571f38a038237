"""`python -m deep_gemm demo` with a compiler: in the emulator, and with a GPU that is a fake."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from deep_gemm.cli import demo, emulation, main
from deep_gemm.cli.gpu import Gpu
from deep_gemm.cli.measure import Accuracy
from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.config.sm90 import candidates
from deep_gemm.errors import MissingDependencyError

ROOT = Path(__file__).parents[2]

RIGHT = Accuracy(max_error=0.012, max_error_bound=0.025, diff=2e-6)
WRONG = Accuracy(max_error=0.5, max_error_bound=0.025, diff=2e-6)


def run(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh process that sees no GPU, with its output in pipes."""
    return subprocess.run(
        [sys.executable, "-m", "deep_gemm", "demo", *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "DG_JIT_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )


def row(text: str, label: str) -> str:
    """What stands beside a label."""
    lines = [line for line in text.splitlines() if line.startswith(f"{label} ")]
    assert len(lines) == 1, text
    return lines[0].removeprefix(label).strip()


def test_without_a_gpu_it_compiles_and_emulates(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    for result in (first, second):
        assert (result.returncode, result.stderr) == (0, "")
        assert row(result.stdout, "problem") == "D[4096, 7168] = A[4096, 2048] @ B[7168, 2048].T"
        config = select(GemmProblem(4096, 7168, 2048)).config
        assert row(result.stdout, "config") == config.name
        assert re.match(r"\d+ per thread", row(result.stdout, "registers"))
        assert row(result.stdout, "spills") == "0 bytes"
        assert f"{config.smem_bytes:,} of 232,448 bytes" in row(result.stdout, "shared memory")
        assert "bound by" in row(result.stdout, "cost model")
        said = [line for line in result.stdout.splitlines() if line.startswith("No GPU was found")]
        assert len(said) == 1 and "emulation" in said[0]
        assert row(result.stdout, "kernel") == emulation.CONFIG.name
        assert row(result.stdout, "work") == "8 blocks of 6 k blocks by one cluster"
        assert row(result.stdout, "max error").endswith("against FP64")
        assert re.match(r"\d+\.\d s: ", row(result.stdout, "time"))
        assert result.stdout.splitlines()[-1] == "The result is right."
        assert "TFLOPS" not in result.stdout
        assert "\x1b" not in result.stdout
    assert row(first.stdout, "compile time").endswith("(not cached before)")
    assert "cached: read in" in row(second.stdout, "compile time")
    names = {path.parents[1].name for path in tmp_path.glob("cache/*/*/kernel.cubin")}
    assert names == {config.name, emulation.CONFIG.name}


def test_the_emulated_problem_leaves_nothing_of_the_kernel_out() -> None:
    config, problem = emulation.CONFIG, emulation.PROBLEM
    assert config in candidates(GemmProblem(4096, 7168, 2048))
    rows, columns = config.cluster_grid(problem.m, problem.n)
    assert config.cluster_size == problem.num_sms == 2 and min(rows, columns) > 1
    assert problem.k > config.num_stages * BLOCK_K
    blocks = (config.block_m, config.block_n, BLOCK_K)
    sizes = (problem.m, problem.n, problem.k)
    assert all(size % block for size, block in zip(sizes, blocks, strict=True))


def test_a_wrong_emulation_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A kernel that writes nothing: the output is left as it was, NaN."""

    def no_gpu() -> Gpu:
        raise MissingDependencyError("there is none")

    monkeypatch.setattr(demo, "choose_gpu", no_gpu)
    idle = SimpleNamespace(launch=lambda *addresses: None)
    monkeypatch.setattr(emulation, "plan_dense", lambda *_: idle)
    assert main.main(["demo"]) == 1
    text = capsys.readouterr().out
    assert "No GPU was found that can run it (there is none)" in text
    assert text.splitlines()[-1].startswith("WRONG RESULT: ")
    assert "The result is right" not in text


def test_sizes_are_those_asked_for(tmp_path: Path) -> None:
    result = run(tmp_path, "--m", "1", "--n", "576", "--k", "7168")
    assert result.returncode == 0
    assert row(result.stdout, "problem") == "D[1, 576] = A[1, 7168] @ B[576, 7168].T"


def test_an_unwritable_cache_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file")
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("warning: kernel cache ")


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that the demo asks of a GPU, but for the measurement."""
    gpu = Gpu(1, "NVIDIA H100 80GB HBM3", (9, 0), 132, 80 * 2**30)
    monkeypatch.setattr(demo, "choose_gpu", lambda: gpu)
    monkeypatch.setattr(demo, "driver", lambda: SimpleNamespace(version=lambda: (13, 0)))
    monkeypatch.setattr(torch.cuda, "device", lambda index: nullcontext(index))


@pytest.mark.usefixtures("with_gpu")
def test_with_a_gpu_it_reports_error_and_speed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(problem: GemmProblem, device: torch.device, seed: int, _: object) -> object:
        gpu = "NVIDIA H100 80GB HBM3"
        assert problem == GemmProblem(4096, 7168, 2048, splits_k=True, gpu=gpu)
        assert (device, seed) == (torch.device("cuda", 1), 7)
        return RIGHT, [94.0, 90.0, 100.0]

    monkeypatch.setattr(demo, "measure", measure)
    assert main.main(["demo", "--seed", "7"]) == 0
    text = capsys.readouterr().out
    assert row(text, "GPU").startswith("NVIDIA H100 80GB HBM3, SM90, 132 SMs, 80.0 GiB")
    assert row(text, "max error").startswith("1.20e-02 of the RMS of D (bound 2.50e-02)")
    assert row(text, "time") == "94.0 us, median of 3 with the L2 flushed (90.0 .. 100.0)"
    assert row(text, "throughput") == "1279 TFLOPS, 873 GB/s"
    assert row(text, "floor") == "75.2 us: 120.3 GFLOP at 1600 TFLOPS"
    assert row(text, "share of floor").startswith("80%")
    assert text.splitlines()[-1] == "The result is right."


@pytest.mark.usefixtures("with_gpu")
def test_a_wrong_result_exits_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "measure", lambda *_: (WRONG, [94.0]))
    assert main.main(["demo"]) == 1
    text = capsys.readouterr().out
    assert text.splitlines()[-1] == (
        "WRONG RESULT: the max error is 0.5, beyond its bound of 0.025"
    )
    assert "The result is right" not in text
