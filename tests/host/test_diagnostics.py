"""What knobs make a process tell of its kernels, and the code that it writes."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deep_gemm import knobs
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.errors import ArgumentError, CompilationError
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, cache_key, forget_builds
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.nvcc import Nvcc
from deep_gemm.runtime import launch
from tests.fake_driver import FakeDriver
from tests.host.fake_compiler import CUBIN, CountingCompiler, kernel_source


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingCompiler]:
    """An empty cache, no knob set, and no tool for SASS."""
    compiler = CountingCompiler(tmp_path / "compiled")
    for knob in knobs.ALL:
        monkeypatch.delenv(knob.name, raising=False)
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("sys.path", [str(tmp_path / "site")])
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    forget_builds()
    yield compiler
    forget_builds()


def said(capsys: pytest.CaptureFixture[str]) -> str:
    out, err = capsys.readouterr()
    assert not out
    return err


def dumps(compiler: CountingCompiler, folder: Path) -> dict[str, str]:
    """What was written for kernel_a, by file name."""
    key = cache_key(kernel_source("a"), compiler)
    found = (folder / "kernels/dump/kernel_a" / key).glob("*")
    return {path.name: path.read_text() for path in found}


def test_nothing_is_said_or_written_unasked(
    compiler: CountingCompiler, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    build(kernel_source("a"))
    assert said(capsys) == ""
    assert not (tmp_path / "kernels/dump").exists()


@pytest.mark.parametrize("knob", ["DG_JIT_PRINT_COMPILER_COMMAND", "DG_JIT_DEBUG"])
def test_a_compile_s_command(
    compiler: CountingCompiler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    knob: str,
) -> None:
    monkeypatch.setenv(knob, "1")
    build(kernel_source("a"))
    assert said(capsys).startswith("deep_gemm: FAKE 1.0: 90a kernel_a.cu\n")


@pytest.mark.parametrize("knob", ["DG_JIT_PTXAS_VERBOSE", "DG_JIT_DEBUG"])
def test_what_ptxas_says(
    compiler: CountingCompiler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    knob: str,
) -> None:
    """Of a compiled kernel its log and report, of one from disk the report, each of them once."""
    monkeypatch.setenv(knob, "1")
    build(kernel_source("a"))
    build(kernel_source("a"))
    text = said(capsys)
    assert text.count("Compiling entry function 'a'") == 1
    report = "kernel kernel_a: 8 registers, 0 bytes spilled, 0 bytes of static shared memory; "
    key = cache_key(kernel_source("a"), compiler)
    assert text.count(f"{report}FAKE 1.0, compiled in 0.50 s, key {key}") == 1
    forget_builds()
    build(kernel_source("a"))
    assert said(capsys) == f"deep_gemm: {report}FAKE 1.0, from disk, key {key}\n"


def test_spills_are_an_error_if_forbidden(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a kernel from disk, too, and again at the next call."""
    spills = "0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads\nUsed 8 registers"
    whole = compiler.translate

    def translate(source: Any, headers: Any) -> Any:
        result = whole(source, headers)
        return result._replace(log=result.log.replace("Used 8 registers", spills))

    monkeypatch.setattr(compiler, "translate", translate)
    assert build(kernel_source("a")).spill_bytes == 20
    forget_builds()
    monkeypatch.setenv("DG_JIT_PTXAS_CHECK", "1")
    for _ in range(2):
        with pytest.raises(CompilationError, match="kernel_a spills 20 bytes"):
            build(kernel_source("a"))
    assert compiler.compiled() == ["a"]


@pytest.mark.parametrize("knob", ["DG_JIT_DUMP_PTX", "DG_JIT_DUMP_ASM"])
@pytest.mark.filterwarnings("ignore:no SASS")
def test_ptx_is_dumped(
    compiler: CountingCompiler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    knob: str,
) -> None:
    build(kernel_source("a"))
    forget_builds()
    monkeypatch.setenv(knob, "1")
    build(kernel_source("a"))
    assert dumps(compiler, tmp_path) == {"kernel.ptx": ".entry"}
    assert re.fullmatch(r"deep_gemm: wrote \S+/dump/kernel_a/\S+/kernel\.ptx\n", said(capsys))


def fake_tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


# By what a shell has without a PATH: names itself and its arguments, if the last is a file.
READ = 'for last; do :; done; [ -s "$last" ] && echo "${0##*/} $# $1"'


@pytest.mark.parametrize("knob", ["DG_JIT_DUMP_SASS", "DG_JIT_DUMP_ASM"])
@pytest.mark.parametrize(
    ("place", "tool", "option"),
    [
        ("bin", "nvdisasm", "-c"),
        ("bin", "cuobjdump", "-sass"),
        ("toolkit/bin", "nvdisasm", "-c"),
        ("site/nvidia/cu13/bin", "nvdisasm", "-c"),
    ],
)
def test_sass_is_dumped_by_what_there_is(
    compiler: CountingCompiler,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    knob: str,
    place: str,
    tool: str,
    option: str,
) -> None:
    fake_tool(tmp_path / place, tool, READ)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    monkeypatch.setenv(knob, "1")
    build(kernel_source("a"))
    assert dumps(compiler, tmp_path)["kernel.sass"] == f"{tool} 2 {option}\n"


def test_without_a_tool_for_sass_that_is_said(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DG_JIT_DUMP_ASM", "1")
    with pytest.warns(RuntimeWarning, match=r"no SASS .*pip install nvidia-cuda-nvdisasm"):
        assert build(kernel_source("a")).cubin == CUBIN
    assert list(dumps(compiler, tmp_path)) == ["kernel.ptx"]


def test_a_tool_that_fails_is_told_with_its_words(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_tool(tmp_path / "bin", "nvdisasm", "echo not a cubin >&2; exit 3")
    monkeypatch.setenv("DG_JIT_DUMP_SASS", "1")
    with pytest.warns(RuntimeWarning, match="nvdisasm failed: not a cubin"):
        build(kernel_source("a"))
    assert dumps(compiler, tmp_path) == {}


def test_a_dump_that_cannot_be_written_is_a_warning(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build(kernel_source("a"))
    forget_builds()
    (tmp_path / "kernels/dump").touch()
    monkeypatch.setenv("DG_JIT_DUMP_PTX", "1")
    with pytest.warns(RuntimeWarning, match="was not written"):
        build(kernel_source("a"))


def test_without_a_cache_each_process_compiles(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build(kernel_source("a"))
    monkeypatch.setenv("DG_JIT_DISABLE_CACHE", "1")
    forget_builds()
    for entry in "aab":
        assert not build(kernel_source(entry)).from_cache
    assert compiler.compiled() == ["a", "a", "b"]
    assert not list(tmp_path.glob("kernels/cache/kernel_b/*/kernel.cubin"))


@pytest.mark.parametrize("knob", ["DG_JIT_PRINT_LOAD_TIME", "DG_JIT_DEBUG"])
def test_the_time_of_a_load(
    compiler: CountingCompiler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    knob: str,
) -> None:
    kernel = build(kernel_source("a"))
    driver = FakeDriver()
    monkeypatch.setattr(driver, "load_kernel", lambda cubin, entry: 5, raising=False)
    monkeypatch.setattr(launch, "driver", lambda: driver)
    launch._loaded.cache_clear()
    monkeypatch.setenv(knob, "1")
    assert launch._loaded(kernel) == 5
    launch._loaded.cache_clear()
    assert re.fullmatch(
        r"deep_gemm: kernel kernel_a: loaded by the driver in \d+\.\d\d ms\n", said(capsys)
    )


@pytest.mark.parametrize("name", ["DG_JIT_CPP_STANDARD", "DG_JIT_OVERRIDE_CPP_STANDARD"])
def test_the_standard_is_20(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "17")
    with pytest.raises(ArgumentError, match=f"{name}: must be 20, .* got '17'"):
        select_compiler()
    monkeypatch.setenv(name, "20")
    assert knobs.jit_cpp_standard.get() == 20


def test_the_older_name_counts_where_the_present_one_is_unset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DG_NSYS_PROFILING", "1")
    assert knobs.use_nvidia_tools.get()
    monkeypatch.setenv("DG_USE_NVIDIA_TOOLS", "0")
    assert not knobs.use_nvidia_tools.get()
    monkeypatch.setenv("DG_USE_NVIDIA_TOOLS", "")
    monkeypatch.setenv("DG_NSYS_PROFILING", "yes")
    with pytest.raises(ArgumentError, match="DG_NSYS_PROFILING"):
        knobs.use_nvidia_tools.get()


def test_nvcc_s_command_is_what_is_run(tmp_path: Path) -> None:
    version = '--version) echo "release 13.0, V13.0.88";;'
    script = f'case "$1" in {version} *) echo "$0 $@" >&2; exit 1;; esac'
    fake_tool(tmp_path, "nvcc with a space", script)
    nvcc = Nvcc(tmp_path / "nvcc with a space", ("", ""))
    ran = nvcc.translate(kernel_source("a"), {}).log.strip()
    assert nvcc.command(kernel_source("a")).replace("'", "") == ran


def test_a_failure_shows_the_configuration(compiler: CountingCompiler) -> None:
    compiler.failure = "refused"
    config = select(GemmProblem(64, 256, 512)).config
    with pytest.raises(CompilationError, match=re.escape(f"config: {config!r}")):
        build(generate(config, "90a"))
