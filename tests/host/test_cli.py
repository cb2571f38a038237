"""`python -m deep_gemm`: its verbs, what they print and how they exit, with nothing installed."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from deep_gemm import __version__
from deep_gemm.cli import doctor, main, output, trace
from deep_gemm.cli.main import VERBS
from deep_gemm.cli.probes import Finding
from deep_gemm.cli.verb import Verb
from deep_gemm.errors import ArgumentError, DeepGemmError

ROOT = Path(__file__).parents[2]

# Neither wheels nor toolkits nor the loader have an NVRTC.
WITHOUT_NVRTC = """
from deep_gemm.cli import probes
from deep_gemm.jit import nvrtc_library
for module in (nvrtc_library, probes):
    module.in_wheels = module.by_loader = lambda: []
    module.in_toolkit = lambda root: []
from deep_gemm.cli.main import main
raise SystemExit(main())
"""


def run(
    *arguments: str, code: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A fresh process that sees no GPU, with its output in pipes."""
    program = ["-m", "deep_gemm"] if code is None else ["-c", code]
    return subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "40", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def line_of(text: str, *words: str) -> str:
    """The only line that has all the words."""
    lines = [line for line in text.splitlines() if all(word in line for word in words)]
    assert len(lines) == 1, text
    return lines[0]


def test_version() -> None:
    result = run("--version")
    assert (result.returncode, result.stdout) == (0, f"deep_gemm {__version__}\n")


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main(["--help"])
    text = capsys.readouterr().out
    assert {"demo", "doctor", "trace"} <= {verb.name for verb in VERBS}
    assert all(verb.name in text and verb.summary in text for verb in VERBS)


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_verb_has_help(verb: Verb, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main.main([verb.name, "--help"])
    assert f"python -m deep_gemm {verb.name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: verb"),
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["demo", "--m", "0"], "argument --m: must be at least 1, got 0"),
        (["demo", "--n", "-8"], "argument --n: must be at least 1, got -8"),
        (["demo", "--k", "many"], "invalid positive_integer value: 'many'"),
        (["doctor", "--cure"], "unrecognized arguments: --cure"),
        (["trace", "128", "128"], "required: K"),
        (["trace", "128", "0", "128"], "argument N: must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_exit_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "40"], "argument a[0]: columns must take a multiple of 16 bytes, got 40 columns"),
        (["--n", "12"], "argument d: columns must take a multiple of 16 bytes, got 12 columns"),
        (["--m", str(2**31)], "m must be at most 2147483647, got 2147483648"),
    ],
)
def test_demo_refuses_sizes_as_the_gemm_would(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["demo", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["8", "8", "40"], "argument a[0]: columns must take a multiple of 16 bytes"),
        (["8", "8", "64", "--config", "big"], "--config must look like 128x128_s5_w2_c2x1, got"),
        (["8", "8", "64", "--config", "128x128_s9_w2_c1x1"], "shared_memory_fits: shared memory"),
        (["8", "8", "64", "--out", "x.gif"], "the suffix must be one of .svg, .png or none, got"),
        (["8", "8", "64", "--out", "nowhere/x"], "--out: the folder nowhere must exist"),
    ],
)
def test_trace_refuses_what_it_cannot_do_before_it_begins(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["trace", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err


def test_where_a_trace_goes(tmp_path: Path) -> None:
    for name, picture in (("x", "x.svg"), ("x.json", "x.svg"), ("x.png", "x.png")):
        expected = (tmp_path / "x.json", tmp_path / picture)
        assert trace.paths_of(tmp_path / name) == expected


def test_demo_without_a_compiler_says_how_to_get_one(tmp_path: Path) -> None:
    result = run("demo", code=WITHOUT_NVRTC, DG_JIT_USE_NVRTC="1", DG_JIT_CACHE_DIR=str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.startswith("error: NVRTC: ")
    assert "pip install nvidia-cuda-nvrtc" in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_without_a_gpu(tmp_path: Path) -> None:
    cache = tmp_path / "cache_with_a_rather_long_name_so_that_its_line_is_beyond_eighty_columns"
    result = run("doctor", DG_JIT_CACHE_DIR=str(cache))
    assert result.returncode == 1
    assert result.stderr == ""
    for subject in ("Python", "deep_gemm", "torch", "NVIDIA driver", "compiler", "headers"):
        assert f"  {subject}  " in result.stdout
    assert line_of(result.stdout, "GPU  ").startswith("missing")
    assert line_of(result.stdout, "  Python  ", sys.executable).startswith("ok")
    assert line_of(result.stdout, "kernel cache", str(cache)).startswith("ok")
    assert "The main job cannot run here" in result.stdout.splitlines()[-1]
    assert "\x1b" not in result.stdout
    assert all(line == line.rstrip() for line in result.stdout.splitlines())
    assert not cache.exists()


def test_doctor_without_nvrtc() -> None:
    result = run("doctor", code=WITHOUT_NVRTC, DG_JIT_USE_NVRTC="1")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    row = lines.index(line_of(result.stdout, "compiler", "libnvrtc"))
    assert lines[row].startswith("missing")
    assert lines[row + 1].strip().startswith("mend: pip install nvidia-cuda-nvrtc")
    assert "compiler" in lines[-1] and "demo" not in lines[-1]


def test_doctor_with_an_nvcc_that_is_not_there() -> None:
    result = run("doctor", DG_JIT_USE_NVRTC="0", DG_JIT_NVCC_COMPILER="/nowhere/nvcc")
    assert (result.returncode, result.stderr) == (1, "")
    row = line_of(result.stdout, "compiler", "/nowhere/nvcc")
    assert row.startswith("missing") and "DG_JIT_NVCC_COMPILER" in row


def test_doctor_with_a_bad_knob() -> None:
    result = run("doctor", DG_JIT_USE_NVRTC="maybe")
    assert (result.returncode, result.stderr) == (1, "")
    assert "DG_JIT_USE_NVRTC: must be 0 or 1, got 'maybe'" in result.stdout


def test_doctor_with_a_file_where_the_cache_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("doctor", DG_JIT_CACHE_DIR=str(tmp_path / "file"))
    assert result.stderr == ""
    assert line_of(result.stdout, "kernel cache", "cannot be used").startswith("warning")
    assert "mend: export DG_JIT_CACHE_DIR=" in result.stdout
    assert "kernel cache" not in result.stdout.splitlines()[-1]


def test_a_reader_who_leaves_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        result = subprocess.run(
            [sys.executable, "-m", "deep_gemm", "doctor"],
            cwd=ROOT,
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (result.returncode, result.stderr) == (1, b"")


@pytest.mark.parametrize("error", [ArgumentError("bad m"), torch.cuda.OutOfMemoryError("too big")])
def test_known_errors_end_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> int:
        warnings.warn("a word of caution", RuntimeWarning, stacklevel=1)
        raise error

    monkeypatch.setattr(main, "VERBS", (Verb("fail", "fails", lambda _: None, fail),))
    assert main.main(["fail"]) == 1
    assert capsys.readouterr().err == f"warning: a word of caution\nerror: {error}\n"


@pytest.mark.parametrize(
    ("raised", "found", "mend"),
    [
        (DeepGemmError("no x; mend it with: pip install x"), "no x", "pip install x"),
        (DeepGemmError("no y at all"), "no y at all", ""),
        (AttributeError("no symbol"), "AttributeError: no symbol", ""),
    ],
)
def test_a_probe_that_raises_is_a_finding(raised: Exception, found: str, mend: str) -> None:
    def probe() -> list[Finding]:
        raise raised

    assert doctor.examine("thing", probe) == [Finding("thing", "missing", found, mend)]


def test_the_verdict_follows_from_what_is_missing() -> None:
    fine = Finding("Python", "ok", "3")
    unwritable = Finding("kernel cache", "warning", "read-only")
    no_gpu, no_compiler = Finding("GPU", "missing", ""), Finding("compiler", "missing", "")
    assert doctor.verdict([fine, unwritable])[1] == 0
    text, code = doctor.verdict([fine, no_gpu])
    assert code == 1 and "GPU" in text and "python -m deep_gemm demo" in text
    text, code = doctor.verdict([no_gpu, no_compiler])
    assert code == 1 and "GPU, compiler" in text and "demo" not in text


def test_doctor_exits_with_0_where_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = [Finding("GPU 0", "ok", "one [H100]"), Finding("cache", "warning", "full", "rm")]
    monkeypatch.setattr(doctor, "PROBES", (("all", lambda: findings),))
    assert main.main(["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "ok       GPU 0  one [H100]",
        "warning  cache  full",
        "                mend: rm",
        "The main job can run here. Try: python -m deep_gemm demo",
    ]


def test_tables_fold_on_a_terminal_and_lose_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fact = "/" + "very_long_path" * 20
    output.print_table([("label", fact)])
    assert capsys.readouterr().out == f"label  {fact}\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    output.print_table([("label", fact)])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 80
    assert "".join(lines).removeprefix("label").replace(" ", "") == fact
