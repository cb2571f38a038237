"""What every compiler shares: reading ptxas' report, refusing slow code, saying what failed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest

from deep_gemm.errors import CompilationError
from deep_gemm.jit.compiler import Compiler, PtxasReport, Translation
from deep_gemm.jit.source import KernelSource

SOURCE = KernelSource("tiny", "line one\nline two\n", "tiny", "90a")
PTX = "//\n// Cuda compilation tools, release 13.0, V13.0.88\n//\n"

NVRTC_LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'tiny' for 'sm_90a'
ptxas info    : Function properties for tiny
ptxas         .     640 bytes stack frame, 288 bytes spill stores, 292 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 640 bytes cumulative stack size, 128 bytes smem
ptxas info    : Compile time = 95.597 ms
ptxas info    : Function properties for _Z1fPf
ptxas         .     0 bytes stack frame, 372 bytes spill stores, 440 bytes spill loads
"""
NVCC_LOG = """\
ptxas info    : Compiling entry function 'other' for 'sm_90a'
ptxas info    : Function properties for other
    0 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 0 barriers, 4096 bytes smem
ptxas info    : Compiling entry function 'tiny' for 'sm_90a'
ptxas info    : Function properties for tiny
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 9 barriers
"""


class LoggingCompiler(Compiler):
    name, version, fingerprint = "FAKE", "13.0", "f"

    def __init__(self, log: str, failure: str = "") -> None:
        self.result = Translation(b"\x7fELF", PTX, log, failure, 0.5)

    def options(self, arch: str) -> tuple[str, ...]:
        return (f"--arch={arch}", "--fast")

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        return self.result


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_the_report_counts_spills_of_called_functions() -> None:
    assert PtxasReport.parse(NVRTC_LOG, "tiny") == PtxasReport(32, 288 + 292 + 372 + 440, 128)


def test_the_report_is_of_the_asked_kernel_only() -> None:
    assert PtxasReport.parse(NVCC_LOG, "tiny") == PtxasReport(168, 0, 0)
    assert PtxasReport.parse(NVCC_LOG, "other") == PtxasReport(255, 16, 4096)


def test_compiled_kernel_says_who_made_it_and_how_long_it_took() -> None:
    kernel = LoggingCompiler(NVCC_LOG).compile(SOURCE)
    assert (kernel.compiler, kernel.seconds, kernel.from_cache) == ("FAKE 13.0.88", 0.5, False)
    assert (kernel.name, kernel.entry, kernel.arch) == ("tiny", "tiny", "90a")


def test_a_failure_names_everything_and_leaves_the_numbered_source() -> None:
    with pytest.raises(CompilationError) as caught:
        LoggingCompiler("tiny.cu(2): error: no such line", "NVRTC_ERROR").compile(SOURCE)
    text = str(caught.value)
    for part in ("tiny", "FAKE 13.0", "NVRTC_ERROR", "--arch=90a --fast", "error: no such line"):
        assert part in text
    match = re.search(r"numbered source: (.*)", text)
    assert match is not None
    assert Path(match[1]).read_text() == "    1 | line one\n    2 | line two\n"


def test_a_failure_is_told_even_if_the_source_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(CompilationError, match=r"numbered source: not written(.|\n)*the log"):
        LoggingCompiler("the log", "failed").compile(SOURCE)


def test_a_missing_entry_is_a_failure() -> None:
    with pytest.raises(CompilationError, match="made no kernel 'tiny'"):
        LoggingCompiler(NVCC_LOG.replace("'tiny'", "'else'")).compile(SOURCE)


@pytest.mark.parametrize(
    "line",
    [
        "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored; unable to ...",
        "ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are ...",
        "ptxas warning : something else",
    ],
)
def test_slow_code_is_a_failure(line: str) -> None:
    with pytest.raises(CompilationError, match="ptxas made slow code"):
        LoggingCompiler(f"{line}\n{NVCC_LOG}").compile(SOURCE)


@pytest.mark.parametrize(
    "line", ['tiny.cu(4): warning #177-D: variable "v" was ...', "ptxas info : (C7519) injected"]
)
def test_other_remarks_are_a_warning(line: str) -> None:
    with pytest.warns(RuntimeWarning, match=re.escape(line)):
        LoggingCompiler(f"{line}\n{NVCC_LOG}").compile(SOURCE)


def test_a_clean_compile_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoggingCompiler(NVCC_LOG).compile(SOURCE)
