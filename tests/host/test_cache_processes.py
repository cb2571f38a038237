"""Many processes on one cache directory, of which some are killed or hang at any moment."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType

import pytest

from deep_gemm.jit import build as build_module
from deep_gemm.jit import lock
from deep_gemm.jit.build import build, cache_key, forbid_compilation, forget_builds
from deep_gemm.jit.source import KernelSource
from tests.host.fake_compiler import CUBIN, CountingCompiler, kernel_source

NUM_PROCESSES = 16
TIMEOUT = 60

# What a build does on disk, and around it.
JIT = Path(build_module.__file__).parent
TRACED = {str(JIT / f"{name}.py") for name in ("build", "cache", "layers", "lock", "trust")}
MAX_VISITS = 2

FORK = multiprocessing.get_context("fork")


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
    forget_builds()
    # Of the library; that Python warns of forks is not our matter.
    warnings.simplefilter("error", RuntimeWarning)
    yield compiler
    forget_builds()


def start(work: Callable[[], object], number: int) -> list[multiprocessing.process.BaseProcess]:
    processes = [FORK.Process(target=work) for _ in range(number)]
    for process in processes:
        process.start()
    return list(processes)


def exit_codes(processes: list[multiprocessing.process.BaseProcess]) -> list[int | None]:
    for process in processes:
        process.join(TIMEOUT)
        # Python waits at its exit for those that are left, for ever.
        if process.is_alive():
            process.kill()
    return [process.exitcode for process in processes]


def test_sixteen_processes_compile_each_kernel_once(compiler: CountingCompiler) -> None:
    """Each begins with another kernel, so that they wait for one another in every order."""
    compiler.seconds = 0.005
    barrier = FORK.Barrier(NUM_PROCESSES, timeout=TIMEOUT)
    number = FORK.Value("i", 0)
    entries = "abcdefgh"

    def work() -> None:
        with number.get_lock():
            number.value += 1
            shift = number.value % len(entries)
        barrier.wait()
        for entry in entries[shift:] + entries[:shift]:
            kernel = build(kernel_source(entry))
            assert (kernel.entry, kernel.cubin) == (entry, CUBIN)

    assert exit_codes(start(work, NUM_PROCESSES)) == [0] * NUM_PROCESSES
    assert sorted(compiler.compiled()) == list(entries)


def test_different_kernels_do_not_wait_for_each_other(compiler: CountingCompiler) -> None:
    """Not even two whose digests begin with the same digits, which once shared a lock."""
    compiler.meeting = FORK.Barrier(2, timeout=TIMEOUT)
    first: dict[str, KernelSource] = {}
    for number in count():
        source = kernel_source(f"e{number}")
        other = first.setdefault(cache_key(source, compiler)[:2], source)
        if other is not source:
            break
    processes = start(lambda: build(source), 1) + start(lambda: build(other), 1)
    assert exit_codes(processes) == [0, 0]


def test_a_holder_that_hangs_is_robbed_once(
    compiler: CountingCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of those that wait compiles for all; the holder, once it goes on, comes too late."""
    monkeypatch.setattr(lock, "LOCK_SECONDS", 1.0)
    compiler.meeting = meeting = FORK.Barrier(2, timeout=TIMEOUT)
    (holder,) = start(lambda: build(kernel_source("a")), 1)
    while not compiler.compiled():
        time.sleep(0.01)
    os.kill(holder.pid or 0, signal.SIGSTOP)
    compiler.meeting, compiler.seconds = None, 0.3
    codes = exit_codes(start(lambda: build(kernel_source("a")), 6))
    os.kill(holder.pid or 0, signal.SIGCONT)
    meeting.wait()
    assert codes == [0] * 6
    assert compiler.compiled() == ["a", "a"]
    assert exit_codes([holder]) == [0]


def die_at(event: int) -> Callable[[FrameType, str, object], object]:
    """A trace function that kills the process at the given one of the lines that it runs.

    Of a line that runs often, the first two times count: the file before the cubin, and the cubin.
    """
    left = event
    visits: Counter[tuple[str, int]] = Counter()

    def trace(frame: FrameType, kind: str, _: object) -> object:
        nonlocal left
        place = frame.f_code.co_filename, frame.f_lineno
        if place[0] not in TRACED:
            return None
        visits[place] += kind == "line"
        if kind == "line" and visits[place] <= MAX_VISITS:
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
        return trace

    return trace


def build_and_die(event: int) -> bool:
    """Build in a forked process that is killed at one of its lines; whether it got that far."""
    pid = os.fork()
    if not pid:
        sys.settrace(die_at(event))  # type: ignore[arg-type]
        build(kernel_source("a"))
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status)


def test_a_process_may_be_killed_at_any_line(compiler: CountingCompiler, directory: Path) -> None:
    """Before the lock, while compiling, between files, around the rename: the next one goes on."""
    moments = {"before": 0, "compiling": 0, "writing": 0, "stored": 0}
    event = 0
    while build_and_die(event):
        is_stored = any(directory.glob("cache/*/*"))
        is_staged = any(directory.glob("tmp/*/*"))
        num_compiles = len(compiler.compiled())
        moment = "stored" if is_stored else "writing" if is_staged else "compiling"
        moments[moment if num_compiles else "before"] += 1
        forget_builds()
        assert build(kernel_source("a")).cubin == CUBIN
        assert len(compiler.compiled()) == num_compiles + (not is_stored)
        forget_builds()
        with forbid_compilation():
            build(kernel_source("a"))
        wipe(directory, compiler)
        event += 1
    assert min(moments.values()) >= 4, f"a moment was hardly met: {moments}"


def wipe(directory: Path, compiler: CountingCompiler) -> None:
    for path in sorted(directory.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    compiler.log.unlink()
    forget_builds()


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "refused"])
def test_a_write_may_end_in_the_middle(
    compiler: CountingCompiler, directory: Path, is_killed: bool
) -> None:
    """The system cuts the write of the cubin, and kills the process or says that the file is full.

    In the second case the process has its kernel, and one warning.
    """

    def work() -> None:
        warnings.simplefilter("always")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
        if is_killed:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        with warnings.catch_warnings(record=True) as caught:
            kernel = build(kernel_source("a"))
        assert kernel.cubin == CUBIN
        assert len(caught) == 1 and "cannot be used" in str(caught[0].message)

    assert exit_codes(start(work, 1)) == [-signal.SIGXFSZ if is_killed else 0]
    sizes = [path.stat().st_size for path in directory.glob("tmp/*/kernel.cubin")]
    assert sizes == ([5000] if is_killed else [])
    assert not build(kernel_source("a")).from_cache
    forget_builds()
    assert build(kernel_source("a")).from_cache
