"""Benchmark processes that answer, fail, hang and die: whatever happens, results are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import compiling, dense, grouped, run, session
from benchmarks.__main__ import main
from benchmarks.problems import Problem, choose_grouped
from benchmarks.run import Options
from benchmarks.session import Session
from tests.host.pretended_children import write_modules

# Problems by what happens to them; the sizes are small, so that selection is quick.
GOOD, HANGS, DIES, FAULTS, WRONG = ("16x64x128", "16x64x256", "16x64x384", "16x64x512", "16x64x640")

DENSE_WORKER = """
import os, sys, time
from deep_gemm.tuning.children import serve

peer = sys.argv[1]
state = {"healthy": True}

def hello():
    return {"gpu": "NVIDIA H100", "uuid": "GPU-0", "num_sms": 132, "versions": {peer: "1"}}

def warm(names):
    return {"errors": {}}

def prepare(name):
    print("library noise on stdout", flush=True)
    if peer == "ours" and name == "16x64x256":
        time.sleep(60)
    if peer == "ours" and name == "16x64x384":
        os._exit(3)
    if peer == "ours" and name == "16x64x512":
        state["healthy"] = False
        raise RuntimeError("illegal address")
    if name == "16x64x640":
        return {"max_error": {}, "errors": {peer: "wrong result"}}
    return {"max_error": {peer: 0.01}, "errors": {}}

def measure(names, repeats):
    if peer == "reference":
        os._exit(4)
    us = 10.0 if peer == "ours" else 20.0
    return {"us": {name: {peer: [us] * repeats} for name in names}}

def host(name, repeats):
    return {"us": {peer: 9.0}}

serve({f.__name__: f for f in (hello, warm, prepare, measure, host)}, lambda: state["healthy"])
"""

GROUPED_WORKER = """
import os, sys, time
from deep_gemm.tuning.children import serve

peer = sys.argv[1]
held = []

def hello():
    return {"gpu": "NVIDIA H100", "uuid": "GPU-0", "num_sms": 132, "versions": {peer: "1"}}

def warm(names):
    if any("masked-2" in name for name in names):
        os._exit(3)
    return {"errors": {name: "refused" for name in names}}

def prepare(name):
    held.append(name)
    if peer == "ours" and "masked-2" in name:
        os._exit(3)
    if peer == "reference" and "k_grouped" in name:
        return {"max_error": {}, "errors": {peer: "AttributeError: no k_grouped"}}
    return {"max_error": {peer: 0.01}, "errors": {}}

def release():
    held.clear()
    return {}

def measure(names, repeats):
    assert held == names and len({name.split("-")[0] for name in held}) == 1, held
    us = 10.0 if peer == "ours" else 20.0
    return {
        "us": {name: {peer: [us] * repeats} for name in names},
        "num_kernels": {name: {peer: 2 if peer == "ours" else 1} for name in names},
    }

def sustain(name, variant, seconds):
    return {"us": 12.0}

serve({f.__name__: f for f in (hello, warm, prepare, release, measure, sustain)})
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretended workers, importable by name."""
    texts = {"a_dense": DENSE_WORKER, "a_grouped": GROUPED_WORKER}
    write_modules(tmp_path, texts, monkeypatch)
    monkeypatch.setattr(run, "WORKER", "a_dense")
    monkeypatch.setattr(session, "PREPARE_SECONDS", 5)


@pytest.mark.usefixtures("modules")
def test_a_session_leaves_out_what_kills_it() -> None:
    ours = Session("ours", ["a_dense", "ours"])
    ours.start()
    for name in (GOOD, DIES, FAULTS, WRONG):
        ours.prepare(name)
    assert ours.dead is None
    assert ours.ready == {GOOD: ["ours"], WRONG: []}
    assert "exit code 3" in ours.errors[DIES, None]
    assert "illegal address" in ours.errors[FAULTS, None]
    assert ours.errors[WRONG, "ours"] == "wrong result"
    assert ours.measure([GOOD, DIES, WRONG], 2) == {GOOD: {"ours": [10.0, 10.0]}}
    ours.close()


@pytest.mark.usefixtures("modules")
def test_a_session_gives_up_in_the_end() -> None:
    ours = Session("ours", ["a_dense", "ours"])
    ours.start()
    for _ in range(session.MAX_RESTARTS + 1):
        ours.prepare(DIES)
    assert ours.dead is not None
    assert "exit code 3" in ours.dead
    assert ours.measure([GOOD], 2) == {}


@pytest.mark.usefixtures("modules")
def test_a_session_without_its_module_is_dead_at_once() -> None:
    ours = Session("ours", ["no_such_module"])
    ours.start()
    assert ours.dead is not None
    assert ours.hello == {}


def dense_result(tmp_path: Path, **options: Any) -> dict[str, Any]:
    problems = tuple(map(Problem.parse, (GOOD, HANGS, WRONG)))
    defaults: dict[str, Any] = {"passes": 2, "repeats": 3, "sustained_seconds": 0}
    path = dense.measure(dense.Options(tmp_path, problems, commit="abc", **{**defaults, **options}))
    result: dict[str, Any] = json.loads(path.read_text())
    return result


@pytest.mark.usefixtures("modules")
def test_a_dense_run_keeps_what_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = {"config": "k", "compile_s": 0.2, "compiler": "NVRTC 13"}
    monkeypatch.setattr(compiling, "compile_kernels", lambda *_: [kernel])
    monkeypatch.setattr(dense, "HOST", (Problem.parse(GOOD),))
    result = dense_result(tmp_path, peer_path=tmp_path)
    good, hangs, wrong, host, compiled = result["rows"]
    assert (good["ours_us"], good["cublaslt_us"], good["reference_us"]) == (10.0, 20.0, None)
    assert (good["max_error"], good["config"][:4]) == (0.01, "sm90")
    assert hangs["ours_us"] is None
    assert hangs["cublaslt_us"] == 20.0
    assert "no answer within 5 s" in hangs["errors"]["ours"]
    assert wrong["errors"]["ours"] == "wrong result"
    # The peer that dies in every pass is started again each time, in vain.
    assert host["reference_us"] == 9.0
    assert compiled == {"table": "compile", **kernel}
    assert result["versions"] == {
        **{"ours": "1", "reference": "1", "cublaslt": "1"},
        "nvrtc": "13",
    }
    assert (result["commit"], result["gpu"]) == ("abc", "NVIDIA H100")


@pytest.mark.usefixtures("modules")
def test_a_dense_run_out_of_time_still_writes_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "compile_kernels", lambda *_: [])
    result = dense_result(tmp_path, budget=0.0, peers=("ours",), host_calls=0)
    assert [row["ours_us"] for row in result["rows"]] == [None] * 3


@pytest.mark.usefixtures("modules")
def test_a_dense_run_without_any_peer_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WORKER", "no_such_module")
    with pytest.raises(RuntimeError, match="no peer is left: could not start"):
        dense_result(tmp_path, peers=("ours",))


def grouped_result(out: Path, **options: Any) -> list[dict[str, Any]]:
    names = ["contiguous-4x33792x6144x7168", "masked-1x801*", "masked-2*", "k_grouped-4*"]
    rows = choose_grouped(names)
    path = grouped.measure(Options(out, rows, peer_path=out, passes=2, repeats=3, **options))
    assert path.name.startswith("grouped-h100")
    found: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
    return found


@pytest.mark.usefixtures("modules")
def test_a_grouped_run_goes_from_table_to_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WORKER", "a_grouped")
    *rows, sustained = grouped_result(tmp_path)
    contiguous, masked, killed, k_grouped = rows
    assert (contiguous["table"], contiguous["groups"], contiguous["m"]) == ("contiguous", 4, 33792)
    assert (contiguous["floor_us"], contiguous["max_error"]) == (1860.258, 0.01)
    for row in (contiguous, masked):
        assert (row["ours_us"], row["reference_us"], row["ours_psum_us"]) == (10.0, 20.0, None)
        assert row["num_kernels"] == {"ours": 2, "reference": 1}
    # What one row does to the process, or to one peer, is in that row.
    assert (killed["ours_us"], killed["reference_us"]) == (None, 20.0)
    assert "exit code 3" in killed["errors"]["ours"]
    assert (k_grouped["ours_us"], k_grouped["reference_us"]) == (10.0, None)
    assert k_grouped["errors"] == {"reference": "AttributeError: no k_grouped"}
    assert (sustained["of"], sustained["ours_us"]) == ("contiguous", 12.0)
    # Two passes, and no shortage of time.
    assert contiguous["spread"] == {"ours": 0.0, "reference": 0.0}
    assert "errors" not in masked


@pytest.mark.usefixtures("modules")
def test_a_grouped_run_out_of_time_says_which_rows_it_has_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "WORKER", "a_grouped")
    first, *rest = grouped_result(tmp_path, budget=0.0)
    assert (first["ours_us"], first["max_error"]) == (None, 0.01)
    texts = {text for row in rest for text in row["errors"].values()}
    assert texts == {run.OUT_OF_TIME}


@pytest.mark.usefixtures("modules")
def test_the_command_line_shows_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "WORKER", "a_grouped")
    monkeypatch.setattr(run, "why_no_reference", lambda _: None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    options = ["--out", str(tmp_path), "--passes", "1", "--commit", "abc", "--sustained", "0"]
    assert main(["grouped", "--rows", "masked-1x*", *options]) == 0
    assert "| masked | 1 | 801 | 4096 | 7168 | 10.0 | 20.0 | 2 / 1 |" in capsys.readouterr().out
    # A row of ours without a time is a failure, of the reference it is not.
    assert main(["grouped", "--rows", "k_grouped-4x*", *options]) == 0
    assert main(["grouped", "--rows", "masked-2x*", *options]) == 1


def test_why_the_reference_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "names no folder" in (run.why_no_reference(None) or "")
    assert "has no deep_gemm" in (run.why_no_reference(tmp_path) or "")
    (tmp_path / "deep_gemm").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "nvcc" in (run.why_no_reference(tmp_path) or "")
