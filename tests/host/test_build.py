"""`build`: memory, then disk, then one compile; in threads, in processes, with a broken disk."""

from __future__ import annotations

import multiprocessing
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deep_gemm.errors import CompilationError
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, forbid_compilation, forget_builds
from tests.host.fake_compiler import CUBIN, CountingCompiler, kernel_source

TIMEOUT = 60


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def compiler(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CountingCompiler]:
    compiler = CountingCompiler(tmp_path / "compiled")
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    forget_builds()
    warnings.simplefilter("error", RuntimeWarning)
    yield compiler
    forget_builds()


def test_memory_then_disk_then_compile(compiler: CountingCompiler) -> None:
    kernel = build(kernel_source("a"))
    assert not kernel.from_cache
    with forbid_compilation():
        assert build(kernel_source("a")) is kernel
        forget_builds()
        assert build(kernel_source("a")).from_cache
    assert compiler.compiled() == ["a"]


def test_forbidden_compilation_names_the_kernel(compiler: CountingCompiler) -> None:
    with forbid_compilation(), forbid_compilation():
        pass
    with (
        forbid_compilation(),
        pytest.raises(CompilationError, match="kernel_a .*compiling is forbidden"),
    ):
        build(kernel_source("a"))
    assert compiler.compiled() == []
    build(kernel_source("a"))


def test_the_directory_is_read_at_the_first_build(
    compiler: CountingCompiler, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "late"))
    build(kernel_source("a"))
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "too_late"))
    build(kernel_source("b"))
    assert len(list((tmp_path / "late/cache").iterdir())) == 2
    assert not directory.exists()
    assert not (tmp_path / "too_late").exists()


def test_threads_that_want_one_kernel_compile_it_once(compiler: CountingCompiler) -> None:
    with ThreadPoolExecutor(8) as pool:
        kernels = list(pool.map(lambda _: build(kernel_source("a")), range(64)))
    assert len({id(kernel) for kernel in kernels}) == 1
    assert compiler.compiled() == ["a"]


def test_different_kernels_compile_side_by_side(compiler: CountingCompiler) -> None:
    compiler.meeting = threading.Barrier(2, timeout=TIMEOUT)
    with ThreadPoolExecutor(2) as pool:
        kernels = list(pool.map(build, [kernel_source("a"), kernel_source("b")]))
    assert [kernel.entry for kernel in kernels] == ["a", "b"]


def test_processes_that_want_one_kernel_compile_it_once(compiler: CountingCompiler) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4, timeout=TIMEOUT)

    def work() -> None:
        for entry in "abcde":
            barrier.wait()
            build(kernel_source(entry))

    processes = [context.Process(target=work) for _ in range(barrier.parties)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(TIMEOUT)
    assert [process.exitcode for process in processes] == [0] * barrier.parties
    assert compiler.compiled() == list("abcde")


def test_a_failure_is_not_remembered(compiler: CountingCompiler) -> None:
    compiler.failure = "refused"
    with pytest.raises(CompilationError, match="refused"):
        build(kernel_source("a"))
    compiler.failure = ""
    assert not build(kernel_source("a")).from_cache
    assert compiler.compiled() == ["a", "a"]


def test_a_broken_entry_is_rebuilt(compiler: CountingCompiler, directory: Path) -> None:
    build(kernel_source("a"))
    forget_builds()
    (cubin,) = directory.glob("cache/kernel_a/*/kernel.cubin")
    cubin.write_bytes(b"")
    with pytest.warns(RuntimeWarning, match="broken entry") as caught:
        assert not build(kernel_source("a")).from_cache
    assert len(caught) == 1
    forget_builds()
    with forbid_compilation():
        assert build(kernel_source("a")).cubin == CUBIN


def test_without_a_directory_it_goes_on_in_memory(
    compiler: CountingCompiler, directory: Path
) -> None:
    directory.touch()
    with pytest.warns(RuntimeWarning, match="cannot be used") as caught:
        kernels = [build(kernel_source(entry)) for entry in "aba"]
    assert len(caught) == 1
    assert kernels[0] is kernels[2]
    assert compiler.compiled() == ["a", "b"]


def test_a_changed_compiler_compiles_anew(compiler: CountingCompiler) -> None:
    build(kernel_source("a"))
    compiler.fingerprint = "g"
    build(kernel_source("a"))
    assert compiler.compiled() == ["a", "a"]
