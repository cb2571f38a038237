"""Every step of the tuner with real kernels, in the emulator; only the times mean nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deep_gemm.cli import main
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.tuned_file import read
from deep_gemm.jit.build import forget_builds
from deep_gemm.tuning import measurements
from deep_gemm.tuning.operands import make_operands, selection_of
from deep_gemm.tuning.problems import KINDS

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

NUM_SMS = 132


def test_the_command_line_measures_in_the_emulator(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = tmp_path / "problems.jsonl"
    # K has two groups of scale factors, so that it may be split.
    problems.write_text('{"m": [1, 8], "n": 24, "k": 640}\n')
    command = [
        "tune",
        "--problems",
        str(problems),
        "--m",
        "5",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    command += ["--top", "1", "--repeats", "1", "--jobs", "2"]
    assert main.main([*command, "--compile-only"]) == 0
    assert "2 kernels, " in capsys.readouterr().out
    forget_builds()
    assert main.main([*command, "--write", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "2 kernels, 0 compiled, 0 missing" in text, "the cache has them"
    assert "2 measured, 0 known before, 0 failed" in text
    found = measurements.read([tmp_path / "tune-the-emulator.jsonl"])
    assert [one.config.cluster_k for one in found] == [1, 2]
    for one in found:
        assert one.num_calls >= 1
        assert one.us is not None
        assert one.max_error is not None
        assert 0 < one.max_error < 0.03
    (entry,) = read(tmp_path / "the-emulator.json", "the emulator")
    assert entry.best.config == cheapest(GemmProblem(5, 24, 640))
    assert main.main(command) == 0
    assert "0 measured, 2 known before" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["wgrad", "contiguous", "masked", "k-grouped"])
def test_every_kind_of_operands_is_computed_right(kind: str) -> None:
    groups = 1 if kind == "wgrad" else 2
    sizes = {"m": 24, "n": 24, "k": 256, "num_groups": groups, "num_sms": NUM_SMS}
    problem = replace(KINDS[kind], **sizes)
    x = make_operands(problem, 0, torch.device("cpu"))
    error = x.check(x.launcher(x.plan(selection_of(problem, cheapest(problem)))))
    assert 0 < error < (0.001 if problem.d_bytes == 4 else 0.03)


def test_a_plan_serves_both_sets_of_operands() -> None:
    problem = GemmProblem(5, 24, 256)
    sets = [make_operands(problem, index, torch.device("cpu")) for index in (0, 1)]
    plan = sets[0].plan(selection_of(problem, GemmConfig(16, 16, 4, 1)))
    assert all(0 < x.check(x.launcher(plan)) < 0.03 for x in sets)
    assert not sets[0].d.equal(sets[1].d)
