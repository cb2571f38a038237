"""tools/gpu_jobs.py, gpu_stages.py and remote.py: limits, logs, results, on this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

import gpu_jobs
import gpu_stages
import pytest
import remote
from gpu_stages import Outcome, Stage

FAKE_SSH = """
import subprocess, sys
host, script = sys.argv[1:]
assert host == "user@gpu"
sys.exit(subprocess.run(["sh", "-c", script]).returncode)
"""


def python(text: str, name: str = "job", seconds: float = 30, title: str = "title") -> Stage:
    return Stage(name, f"{name} {title}", (sys.executable, "-c", text), seconds)


def beside(text: str, title: str) -> Stage:
    return replace(python(text, title=title), is_alone=False)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie whose parent has not asked for it yet does not run.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_stage_shows_the_end_of_its_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "job.log"
    texts = [f"for i in range(30): print('line', {number}, i)" for number in range(2)]
    outcomes = gpu_stages.run_all(map(python, texts), tmp_path, 100)
    assert [outcome.exit_code for outcome in outcomes] == [0, 0]
    shown = capsys.readouterr().out.splitlines()
    assert shown.count("line 1 29") == 1
    assert "line 1 14" not in shown
    assert len(log.read_text().splitlines()) == 60


def test_a_stage_that_hangs_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_stages, "GRACE_SECONDS", 0.3)
    text = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time\\n"
    "signal.signal(signal.SIGINT, signal.SIG_IGN)\\ntime.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
    log = tmp_path / "job.log"
    start = time.monotonic()
    (outcome,) = gpu_stages.run_all([python(text, seconds=1.5)], tmp_path, 100)
    assert time.monotonic() - start < 20
    assert (outcome.timed_out, outcome.exit_code, outcome.text) == (True, None, "TIMED OUT")
    pid = int(log.read_text())
    for _ in range(50):
        if not is_running(pid):
            break
        time.sleep(0.1)
    assert not is_running(pid)


def test_stages_get_what_time_is_left(tmp_path: Path) -> None:
    stage = gpu_jobs.benchmark("bench", "dense", ("--out", "x"), 480, 10)
    command, limit = gpu_stages.fit(stage, 1000)
    assert (command[-2:], limit) == (("--budget", "480"), 540)
    command, limit = gpu_stages.fit(stage, 200)
    assert (command[-2:], limit) == (("--budget", "140"), 200)
    assert gpu_stages.run_all([python("print(1)")], tmp_path, 0) == [
        Outcome("job title", None, 0.0)
    ]
    assert not (tmp_path / "job.log").exists()


MEETS = """
import pathlib, time
here = pathlib.Path(r"FOLDER")
(here / "NAME").touch()
print("NAME begins", flush=True)
for _ in range(200):
    if len(list(here.iterdir())) == 2:
        break
    time.sleep(0.05)
else:
    raise SystemExit("nobody came")
print("NAME ends")
"""


def test_stages_run_side_by_side_and_keep_their_lines_together(tmp_path: Path) -> None:
    """Each of the first two waits for the other; the third finds them gone."""
    meeting, out = tmp_path / "meeting", tmp_path / "out"
    meeting.mkdir()
    out.mkdir()
    text = MEETS.replace("FOLDER", str(meeting))
    stages = [beside(text.replace("NAME", name), name) for name in ("a", "b")]
    log = out / "job.log"
    last = python(f"print(len(open(r'{log}').readlines()), 'lines before')", title="last")
    outcomes = gpu_stages.run_all([*stages, last], out, 100, jobs=2)
    assert [outcome.exit_code for outcome in outcomes] == [0, 0, 0]
    lines = log.read_text().splitlines()
    pairs = {tuple(lines[:2]), tuple(lines[2:4])}
    assert pairs == {("a begins", "a ends"), ("b begins", "b ends")}
    assert lines[4] == "4 lines before"
    assert sorted(path.name for path in out.iterdir()) == ["job.log", "summary.json"]


def test_no_more_stages_run_at_a_time_than_asked_for(tmp_path: Path) -> None:
    text = """
import os, pathlib, time
mine = pathlib.Path(r"FOLDER", str(os.getpid()))
mine.touch()
assert len(list(mine.parent.iterdir())) <= 2
time.sleep(0.3)
mine.unlink()
""".replace("FOLDER", str(tmp_path / "running"))
    (tmp_path / "running").mkdir()
    stages = [beside(text, str(number)) for number in range(5)]
    outcomes = gpu_stages.run_all(stages, tmp_path, 100, jobs=2)
    assert [outcome.text for outcome in outcomes] == ["ok"] * 5, (tmp_path / "job.log").read_text()


def test_one_that_hangs_ends_at_its_own_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_stages, "GRACE_SECONDS", 0.3)
    hangs = replace(beside("import time; time.sleep(60)", "hangs"), seconds=1)
    outcomes = gpu_stages.run_all([hangs, beside("print(1)", "b")], tmp_path, 100, jobs=2)
    assert [(outcome.stage, outcome.text) for outcome in outcomes] == [
        ("job b", "ok"),
        ("job hangs", "TIMED OUT"),
    ]


def test_all_stages_end_with_us(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_stages, "GRACE_SECONDS", 0.3)
    text = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    sleep = time.sleep

    def sleep_until_stopped(seconds: float) -> None:
        sleep(seconds)
        if sum(bool(path.read_text()) for path in tmp_path.glob("*.part.log")) == 2:
            monkeypatch.setattr(time, "sleep", sleep)
            sys.exit(143)

    monkeypatch.setattr(time, "sleep", sleep_until_stopped)
    with pytest.raises(SystemExit):
        gpu_stages.run_all([beside(text, "a"), beside(text, "b")], tmp_path, 100, jobs=2)
    lines = (tmp_path / "job.log").read_text().splitlines()
    pids = [int(line) for line in lines if line.isdigit()]
    assert len(pids) == 2, lines
    assert not any(map(is_running, pids))


def test_one_failure_fails_the_whole_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = [python("raise SystemExit(3)", "a"), python("print('still here')", "b")]
    monkeypatch.setattr(gpu_jobs, "job_stages", lambda *_: stages)
    assert gpu_jobs.main(["all", "--out", str(tmp_path)]) == 1
    output = capsys.readouterr().out
    assert "still here" in output
    assert "FAILED (3)" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [outcome["exit_code"] for outcome in summary] == [3, 0]
    stages.pop(0)
    assert gpu_jobs.main(["all", "--out", str(tmp_path)]) == 0


def test_all_means_every_job_once(tmp_path: Path) -> None:
    arguments = gpu_jobs.parse(["sweep", "all", "--out", "x", "--commit", "abc"])
    stages = gpu_jobs.job_stages(arguments, tmp_path)
    assert list(dict.fromkeys(stage.name for stage in stages)) == [
        "tests",
        "bench",
        "bench-grouped",
        "sweep",
    ]
    tests = [stage for stage in stages if stage.name == "tests"]
    assert all(Path(stage.command[-1]).is_file() for stage in tests)
    alone = [Path(stage.command[-1]).stem for stage in tests if stage.is_alone]
    assert tuple(alone) == gpu_jobs.ALONE
    assert [stage.is_alone for stage in tests] == sorted(stage.is_alone for stage in tests)
    for stage in stages[len(tests) :]:
        assert stage.command[4:8] == ("--out", str(tmp_path), "--commit", "abc")
        assert stage.command[-2] == "--budget"


def test_files_run_at_a_time_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(gpu_jobs, "run_all", lambda *all: asked.append(all[3]) or [])
    for extra in ([], ["--jobs", "3"]):
        assert gpu_jobs.main(["tests", "--out", str(tmp_path), *extra]) == 0
    assert asked == [1, 3]


def test_each_benchmark_gets_rows_of_its_own(tmp_path: Path) -> None:
    rows = ["--rows", "16x*x*", "--grouped-rows", "masked", "wgrad-*"]
    arguments = gpu_jobs.parse(["bench", "bench-grouped", "--out", "x", "--grouped", "99", *rows])
    dense, grouped = gpu_jobs.job_stages(arguments, tmp_path)
    assert (dense.command[3], dense.command[6:8]) == ("dense", ("--rows", "16x*x*"))
    assert (grouped.command[3], grouped.command[6:9]) == (
        "grouped",
        ("--rows", "masked", "wgrad-*"),
    )
    assert (grouped.command[-1], grouped.seconds) == ("99.0", 99 + gpu_stages.MARGIN_SECONDS)


def test_the_reference_is_installed_apart(tmp_path: Path) -> None:
    for name in ("sgl_deep_gemm-0.1.1-py3.whl", "apache_tvm_ffi-0.1.9.whl", "rich-15.whl"):
        (tmp_path / name).touch()
    peer, site = gpu_jobs.setup_stages(tmp_path)
    assert [Path(name).name for name in peer.command if name.endswith(".whl")] == [
        "apache_tvm_ffi-0.1.9.whl",
        "sgl_deep_gemm-0.1.1-py3.whl",
    ]
    assert str(gpu_jobs.PEER) in peer.command
    assert site.command[-2:] == (str(gpu_jobs.SITE), str(tmp_path / "rich-15.whl"))
    assert gpu_jobs.setup_stages(None) == []


@pytest.fixture
def ssh(tmp_path: Path) -> str:
    path = tmp_path / "ssh.py"
    path.write_text(FAKE_SSH)
    return f"{sys.executable} {path}"


def test_a_remote_command_brings_its_results_back(
    tmp_path: Path, ssh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("TMPDIR", str(there))
    wheels, out = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    (wheels / "a-1.whl").write_text("wheel")
    command = "ls tools .whl >$OUT/seen && mkdir $OUT/deep && echo 1 >$OUT/deep/x; exit 5"
    options = ["user@gpu", "--out", str(out), "--wheels", str(wheels), "--ssh", ssh]
    assert remote.main([*options, "--", command]) == 5
    assert {"remote.py", "a-1.whl"} <= set((out / "seen").read_text().split())
    assert (out / "deep" / "x").read_text() == "1\n"
    assert list(there.iterdir()) == [], "the folder there is removed"


def test_a_remote_job_runs_its_stages(
    tmp_path: Path, ssh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    options = ["user@gpu", "--out", str(tmp_path / "out"), "--ssh", ssh]
    # No time for any stage: it says so, and is brought back.
    assert remote.main([*options, "--python", sys.executable, "sweep", "--limit", "0"]) == 1
    (outcome,) = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (outcome["stage"], outcome["exit_code"]) == ("sweep sweep", None)


def test_a_remote_run_needs_a_job_or_a_command(ssh: str) -> None:
    for extra in ([], ["tests", "--", "ls"]):
        with pytest.raises(SystemExit):
            remote.main(["user@gpu", "--out", "x", "--ssh", ssh, *extra])
