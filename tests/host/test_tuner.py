"""A whole run of the tuner but for GPU and compiler: both are pretended."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compiling
from benchmarks.__main__ import main as benchmarks
from deep_gemm.cli import main
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.sm90 import candidates
from deep_gemm.config.tuned_file import read
from deep_gemm.tuning import measurements, session, tuner
from deep_gemm.tuning.compiling import Built
from deep_gemm.tuning.tuner import Options, Summary, Tuner, tried
from tests.host.pretended_children import write_modules

GPU = "NVIDIA H100 80GB HBM3"
FILE = "tune-h100-80gb-hbm3.jsonl"
PROBLEM = GemmProblem(16, 256, 1024)
OTHER = GemmProblem(16, 256, 2048)

# What happens goes by the block's width; all times by whether K is split, then by the width.
WORKER = """
import os, sys, time
from deep_gemm.tuning.children import serve

passed = []
state = {"healthy": True}

def hello():
    return {"gpu": "NVIDIA H100 80GB HBM3", "arch": "90a", "num_sms": 132}

def check(problem, configs):
    passed.clear()
    with open(os.environ["SEEN"], "a") as seen:
        print(problem["k"], *(config["block_n"] for config in configs), file=seen)
    for config in configs:
        width = config["block_n"]
        if str(width) == os.environ.get("DIES"):
            os._exit(3)
        if str(width) == os.environ.get("HANGS"):
            time.sleep(60)
        if str(width) == os.environ.get("FAULTS"):
            state["healthy"] = False
            raise RuntimeError("illegal instruction")
        if str(width) == os.environ.get("WRONG"):
            yield {"error": "AssertionError: max_error 3"}
            continue
        passed.append(config)
        yield {"max_error": 0.01}

def measure(chosen, repeats):
    if "UNMEASURED" in os.environ:
        raise RuntimeError("the profiler has seen nothing")
    return {"us": [[time_of(passed[index]) + call / 8 for call in range(repeats)]
                   for index in chosen]}

def time_of(config):
    return (50.0 if config.get("cluster_k", 1) > 1 else 100.0) + config["block_n"]

serve({f.__name__: f for f in (hello, check, measure)}, lambda: state["healthy"])
"""


class Silent:
    """A report that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.reached: list[tuple[str, int, int]] = []
        self._stage = ("", 0)

    def begin(self, text: str, total: int) -> None:
        self._stage = text, total

    def reach(self, done: int) -> None:
        self.reached.append((*self._stage, done))

    def say(self, line: str) -> None:
        self.lines.append(line)


Run = Callable[..., tuple[Summary, Silent]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the tuner for some problems, with a worker of our own and nothing compiled."""
    write_modules(tmp_path, {"a_worker": WORKER}, monkeypatch)
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    monkeypatch.setenv("DG_TUNED_DIR", str(tmp_path / "own"))
    monkeypatch.setattr(session, "WORKER", "a_worker")
    monkeypatch.setattr(session, "CHECK_SECONDS", 2)
    monkeypatch.setattr(tuner, "digest_of_kernels", lambda arch: "abc")

    def compile_kernels(configs: Iterable[GemmConfig], arch: str, jobs: int) -> Iterator[Built]:
        assert (arch, jobs) == ("90a", 2)
        for config in configs:
            is_bad = str(config.block_n) == os.environ.get("UNCOMPILED")
            yield Built(config, 0.1, None if is_bad else PretendedKernel(), "no" * is_bad)

    monkeypatch.setattr(tuner, "compile_kernels", compile_kernels)

    def start(*problems: GemmProblem, **options: Any) -> tuple[Summary, Silent]:
        report = Silent()
        given = {"problems": problems, "out": tmp_path / "out", "jobs": 2, "repeats": 2}
        return Tuner(Options(**{**given, **options}), report).run(), report

    return start


class PretendedKernel:
    """As much of a kernel as a run looks at."""

    from_cache = False
    seconds = 0.25


def lines(summary: Summary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in summary.path.read_text().splitlines()]


def widths(summary: Summary, problem: GemmProblem = PROBLEM) -> set[int]:
    """Of the blocks that have a time."""
    rows = measurements.read([summary.path])
    return {one.config.block_n for one in rows if one.us is not None and one.problem == problem}


def test_every_candidate_is_measured_and_written_down(run: Run) -> None:
    summary, report = run(PROBLEM, OTHER, PROBLEM, version="v7")
    both = [tried(problem, 0) for problem in (PROBLEM, OTHER)]
    assert (summary.num_measured, summary.num_failed) == (sum(map(len, both)), 0)
    found = measurements.read([summary.path])
    assert [one.config for one in found] == [config for costs in both for config in costs]
    first = lines(summary)[0]
    assert summary.path.name == FILE
    assert (first["gpu"], first["version"], first["kernels"]) == (GPU, "v7", "abc")
    assert first["problem"] == {"m": 16, "n": 256, "k": 1024}
    assert first["us_min"] <= first["us"] <= first["us_max"]
    assert first["estimate_us"] == pytest.approx(both[0][found[0].config], abs=0.001)
    assert "error" not in first
    # The fastest, those near it, and what the model chose are timed more often than the others.
    fastest = min(found, key=lambda one: one.us or 0)
    assert fastest.config.cluster_k > 1
    calls = {one.config: one.num_calls for one in found if one.problem == PROBLEM}
    assert calls[fastest.config] == calls[cheapest(PROBLEM)] == 2 + 2 * tuner.FINAL_ROUNDS
    assert set(calls.values()) == {2, 2 + 2 * tuner.FINAL_ROUNDS}
    assert report.reached[-1] == ("measuring", len(found), len(found))
    best = f"best {fastest.us:.2f} us {fastest.config.name}"
    assert any(best in line for line in report.lines)


def test_split_k_is_always_tried_and_the_best_are_counted_apart() -> None:
    costs = list(tried(PROBLEM, 3))
    assert [config.cluster_k > 1 for config in costs] == [False] * 3 + [True] * 3
    assert costs[0] == cheapest(PROBLEM)
    assert set(tried(PROBLEM, 0)) == set(candidates(replace(PROBLEM, splits_k=True)))


def test_what_was_measured_is_not_measured_again(run: Run) -> None:
    first, _ = run(PROBLEM, top=2)
    assert (first.num_measured, first.num_known) == (4, 0)
    again, _ = run(PROBLEM, top=2)
    assert (again.num_measured, again.num_known) == (0, 4)
    assert lines(again) == lines(first)
    more, _ = run(PROBLEM, OTHER, top=3)
    assert (more.num_measured, more.num_known) == (8, 4)
    assert len({one.key for one in measurements.read([more.path])}) == 12


def test_other_kernels_are_measured_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(PROBLEM, top=2)
    monkeypatch.setattr(tuner, "digest_of_kernels", lambda arch: "def")
    again, _ = run(PROBLEM, top=2)
    assert (again.num_measured, again.num_known) == (4, 0)


def test_half_a_line_costs_that_line(run: Run) -> None:
    first, _ = run(PROBLEM, top=2)
    text = first.path.read_text()
    first.path.write_text(text[:-40])
    with pytest.warns(RuntimeWarning, match="1 lines are no measurements, the first is line 4"):
        again, _ = run(PROBLEM, top=2)
    assert (again.num_measured, again.num_known) == (1, 3)
    with pytest.warns(RuntimeWarning, match="line 4"):
        assert len(measurements.read([again.path])) == 4


@pytest.mark.parametrize("way", ["DIES", "HANGS", "FAULTS"])
def test_what_kills_the_process_is_banned(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    monkeypatch.setenv(way, "48")
    summary, report = run(PROBLEM, OTHER)
    killers, further = (
        [config for config in tried(problem, 0) if config.block_n == 48]
        for problem in (PROBLEM, OTHER)
    )
    further = [config for config in further if config not in killers]
    assert 48 not in widths(summary) | widths(summary, OTHER)
    assert {32, 64} <= widths(summary) & widths(summary, OTHER)
    errors = [row for row in lines(summary) if "error" in row]
    # Each killed a process once, for the first problem that has it.
    assert [row["problem"]["k"] for row in errors] == [1024] * len(killers) + [2048] * len(further)
    how = {"DIES": "exit code 3", "HANGS": "no answer within 2 s", "FAULTS": "illegal instruction"}
    assert all(how[way] in row["error"] and "us" not in row for row in errors)
    assert len([line for line in report.lines if line.startswith("WRONG: dense 16 x")]) > 0
    seen = (tmp_path / "seen").read_text().splitlines()
    assert len(seen) == len(killers) + len(further) + 2
    assert " 48 " not in f"{seen[-1]} "
    assert summary.num_failed == 2 * len(killers) + len(further)


def test_a_wrong_result_has_no_time(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WRONG", "48")
    summary, report = run(PROBLEM)
    assert 48 not in widths(summary)
    wrong = [row for row in lines(summary) if row.get("error")]
    assert {row["error"] for row in wrong} == {"AssertionError: max_error 3"}
    assert summary.num_failed == len(wrong) > 0
    # It has been tried, and is not tried again.
    again, _ = run(PROBLEM)
    assert (again.num_measured, again.num_failed) == (0, 0)


def test_a_process_that_always_dies_ends_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MAX_RESTARTS", 0)
    monkeypatch.setenv("DIES", "48")
    with pytest.raises(RuntimeError, match=r"died 1 times; of .*16x48"):
        run(PROBLEM)


def test_what_was_not_timed_stays_to_be_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNMEASURED", "1")
    summary, report = run(PROBLEM, top=2)
    assert (summary.num_measured, summary.num_failed) == (0, 4)
    assert not summary.path.exists() or summary.path.read_text() == ""
    assert "NOT MEASURED: dense 16 x 256 x 1024: RuntimeError: the profiler" in report.lines[-1]
    monkeypatch.delenv("UNMEASURED")
    assert run(PROBLEM, top=2)[0].num_measured == 4


def test_what_was_not_compiled_is_not_tried(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNCOMPILED", "48")
    summary, report = run(PROBLEM)
    assert 48 not in widths(summary)
    assert 32 in widths(summary)
    assert summary.num_failed == sum(config.block_n == 48 for config in tried(PROBLEM, 0))
    assert sum(line.startswith("NOT COMPILED") for line in report.lines) == summary.num_failed


def test_out_of_time_it_says_so_and_goes_on_later(run: Run) -> None:
    summary, _ = run(PROBLEM, OTHER, top=2, budget=0.0)
    assert (summary.num_measured, summary.num_left) == (0, 2)
    assert "out of time before 2 problems" in summary.text
    later, _ = run(PROBLEM, OTHER, top=2)
    assert (later.num_measured, later.num_left) == (8, 0)


def test_the_command_line_measures_and_makes_a_table(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, tables = tmp_path / "out", tmp_path / "tables"
    sizes = ["--m", "16", "--n", "256", "--k", "1024,2048"]
    command = ["tune", *sizes, "--out", str(out), "--jobs", "2", "--top", "3"]
    assert main.main([*command, "--write", str(tables)]) == 0
    text = capsys.readouterr().out
    assert "12 measured, 0 known before, 0 failed" in text
    assert "2 problems written, 2 in all" in text
    first, second = read(tables / "h100-80gb-hbm3.json", GPU)
    assert (first.problem, second.problem) == (PROBLEM, OTHER)
    fastest = min(tried(PROBLEM, 3), key=lambda c: (c.cluster_k > 1, c.block_n))
    assert first.best.config.block_n == fastest.block_n
    assert first.split is not None
    assert first.split.config.cluster_k > 1
    assert first.model is not None
    assert first.model.config == cheapest(PROBLEM)
    # Another problem joins what is there; the same measurements give the same file.
    text = (tables / "h100-80gb-hbm3.json").read_text()
    assert main.main(["tune", "--out", str(out), "--write", str(tables)]) == 0
    assert (tables / "h100-80gb-hbm3.json").read_text() == text
    more = ["tune", "--m", "16", "--nk", "512x1024", "--out", str(tmp_path / "new"), "--jobs", "2"]
    assert main.main([*more, "--write", str(tables)]) == 0
    assert len(read(tables / "h100-80gb-hbm3.json", GPU)) == 3
    assert [path.name for path in tables.iterdir()] == ["h100-80gb-hbm3.json"]
    # By default in the user's own folder, where selection looks for it.
    assert main.main([*command[:5], "--k", "1024", "--jobs", "2", "--top", "1", "--write"]) == 0
    own = tmp_path / "own"
    assert sorted(path.name for path in own.iterdir()) == ["h100-80gb-hbm3.json", FILE]


def test_the_benchmarks_sweep_is_a_run_of_the_tuner(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr(compiling, "all_cores", lambda: 2)
    sweep = ["sweep", "--rows", "16x256x1024", "--out", str(tmp_path), "--commit", "abc"]
    assert benchmarks(sweep) == 0
    rows = measurements.read([tmp_path / FILE])
    assert {(one.version, one.problem) for one in rows} == {("abc", PROBLEM)}
    assert len(rows) == len(tried(PROBLEM, 0))
    # It goes on from there, and says so with its exit code if something is wrong.
    monkeypatch.setenv("WRONG", "48")
    assert benchmarks(sweep) == 0
    assert benchmarks(["sweep", "--rows", "16x256x2048", *sweep[3:]]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--m, --n and --k: must name a problem"),
        (["--m", "16"], "--m: must come with --n and --k"),
        (["--n", "16", "--k", "128"], "--m: must come with"),
        (["--m", "16", "--n", "16", "--k", "100"], "k must be a multiple of 16, got 100"),
        (["--m", "16", "--n", "12", "--k", "128"], "n must be a multiple of 8, got 12"),
        (["--kind", "wgrad", "--m", "1", "--nk", "6x128"], "n must be a multiple of 4, got 6"),
        (["--problems", "none.jsonl"], "none.jsonl cannot be read"),
        (["--write"], "must hold measurements"),
    ],
)
def test_arguments_that_make_no_run_are_refused(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DG_TUNED_DIR", str(tmp_path))
    assert main.main(["tune", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--m", "0"], ["--m", "5-3"], ["--nk", "16"], ["--m", "x"]])
def test_sizes_that_are_none_are_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(["tune", *arguments])
    assert f"argument {arguments[0]}" in capsys.readouterr().err
