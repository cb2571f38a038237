"""The tuner on a GPU: what it measures is right and plausible, and selection takes its word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deep_gemm.cli import main
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.tuned_file import Entry, Timed, document, file_name, read
from deep_gemm.tuning import measurements
from deep_gemm.tuning.problems import KINDS
from deep_gemm.tuning.tuner import tried

HBM_BYTES_PER_US = 5.0e6
"""More than any SM90 GPU has."""


def tune(folder: Path, *arguments: str) -> list[measurements.Measurement]:
    assert main.main(["tune", *arguments, "--out", str(folder), "--write", str(folder)]) == 0
    (path,) = folder.glob("tune-*.jsonl")
    return measurements.read([path])


def test_a_problem_is_tuned(tmp_path: Path) -> None:
    found = tune(tmp_path, "--m", "16", "--nk", "2112x7168", "--top", "3")
    gpu = torch.cuda.get_device_name()
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    problem = GemmProblem(16, 2112, 7168, num_sms=sms)
    assert [one.config for one in found] == list(tried(problem, 3))
    assert any(one.config.cluster_k > 1 for one in found)
    for one in found:
        assert (one.gpu, one.problem) == (gpu, problem)
        assert one.us is not None
        # With a cold L2 no kernel is faster than its bytes; and none takes a millisecond.
        assert problem.unique_bytes / HBM_BYTES_PER_US < one.us < 1000
        assert one.max_error is not None
        assert one.max_error < 0.05
    (entry,) = read(tmp_path / file_name(gpu), gpu)
    assert entry.problem == problem
    assert entry.best.us == pytest.approx(
        min(o.us or 0 for o in found if o.config.cluster_k == 1), rel=0.011
    )


@pytest.mark.parametrize("kind", ["wgrad", "contiguous", "masked", "k-grouped"])
def test_every_kind_is_tuned(kind: str, tmp_path: Path) -> None:
    groups = [] if kind == "wgrad" else ["--groups", "4"]
    sizes = ["--kind", kind, *groups, "--m", "256", "--nk", "1024x1024", "--top", "3"]
    found = tune(tmp_path, *sizes)
    assert len(found) >= 3
    assert all(one.us is not None for one in found)
    assert {one.problem.grouping for one in found} == {KINDS[kind].grouping}


def test_a_call_takes_what_the_table_has(tmp_path: Path) -> None:
    gpu, (m, n, k) = torch.cuda.get_device_name(), (48, 1024, 1024)
    sms = torch.cuda.get_device_properties(0).multi_processor_count
    problem = GemmProblem(m, n, k, num_sms=sms)
    other = next(config for config in tried(problem, 0) if config != cheapest(problem))
    (tmp_path / file_name(gpu)).write_text(document(gpu, [Entry(problem, Timed(other, 9.0))]))
    code = f"""
import torch, deep_gemm
a = deep_gemm.per_token_cast_to_fp8(torch.randn({m}, {k}, device="cuda"), use_ue8m0=False)
b = deep_gemm.per_block_cast_to_fp8(torch.randn({n}, {k}, device="cuda"), use_ue8m0=False)
deep_gemm.fp8_gemm_nt(a, b, torch.empty({m}, {n}, device="cuda", dtype=torch.bfloat16))
"""
    environment = {**os.environ, "DG_TUNED_DIR": str(tmp_path), "DG_PRINT_CONFIGS": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"chosen {other.name}: 9.0 us as measured on {gpu}" in done.stderr
