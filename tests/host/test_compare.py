"""Checkouts beside each other: each measured by its own worker, and compared with the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.__main__ import main
from benchmarks.compare import Options, names_of, render
from benchmarks.problems import Problem
from tests.host.pretended_children import write_modules

# The checkout's times are in a file of its own, and one of them cannot compute the second row.
WORKER = """
import os
from pathlib import Path
from deep_gemm.tuning.children import serve

def hello():
    return {"gpu": "NVIDIA H100", "uuid": "GPU-0", "num_sms": 132}

def prepare(name):
    if name in Path("wrong").read_text():
        return {"max_error": {}, "errors": {"ours": "wrong result"}}
    return {"max_error": {"ours": 0.01}, "errors": {}}

def measure(names, repeats):
    us = float(Path("us").read_text())
    return {"us": {name: {"ours": [us, 9 * us, us]} for name in names}}

def release():
    return {}

serve({f.__name__: f for f in (hello, prepare, measure, release)})
"""

FIRST, SECOND = Problem(16, 64, 128), Problem(16, 64, 256)


def checkout(
    folder: Path, us: float, monkeypatch: pytest.MonkeyPatch, wrong: tuple[Problem, ...] = ()
) -> Path:
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / "__init__.py").touch()
    write_modules(folder / "benchmarks", {"worker": WORKER}, monkeypatch)
    (folder / "us").write_text(str(us))
    (folder / "wrong").write_text(" ".join(problem.name for problem in wrong))
    return folder


def test_each_is_measured_in_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [
        checkout(tmp_path / "before", 10.0, monkeypatch),
        checkout(tmp_path / "after", 8.0, monkeypatch, wrong=(SECOND,)),
    ]
    path = compare.run(Options(tmp_path, folders, (FIRST, SECOND), passes=2, repeats=3))
    document = json.loads(path.read_text())
    first, second = document["rows"]
    assert first["us"] == {"before": 10.0, "after": 8.0}
    assert second["us"] == {"before": 10.0}
    assert document["commits"] == {"before": "unknown", "after": "unknown"}
    text = render(document)
    assert "| row | before, us | after |" in text
    assert "| 16x64x128 ours | 10.0 | 0.800 |" in text
    assert "| 16x64x256 ours | 10.0 | - |" in text
    assert "| geometric mean | | 0.800 |" in text
    assert "after: 16x64x256: wrong result" in text


def test_names_are_as_short_as_they_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [checkout(tmp_path / name, 1.0, monkeypatch) for name in ("a", "b/a", "c")]
    assert names_of(folders) == [str(tmp_path / "a"), str(tmp_path / "b" / "a"), "c"]
    with pytest.raises(ValueError, match="must be named once"):
        names_of([folders[0], folders[0]])
    with pytest.raises(ValueError, match="a checkout has benchmarks/worker.py"):
        names_of([tmp_path])


def test_a_worker_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkout(tmp_path / "broken", 1.0, monkeypatch)
    (folder / "benchmarks" / "worker.py").write_text("raise SystemExit(5)")
    with pytest.raises(RuntimeError, match="broken: could not start: ended with exit code 5"):
        compare.run(Options(tmp_path, [folder], (FIRST,)))


def test_without_a_gpu_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["compare", str(tmp_path)]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
