"""A forked child: no lock that a thread of its parent held stays locked in it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from deep_gemm import settings
from deep_gemm.call_cache import CallCache
from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, forget_builds
from deep_gemm.jit.compiler import Compiler, Translation
from deep_gemm.jit.forks import Gate, gate
from deep_gemm.jit.source import KernelSource

SECONDS = 30


class Waiting(Compiler):
    """Compiles when it may; says when it has begun."""

    name, version, fingerprint = "FAKE", "1.0", "f"

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()
        self.num_compiles = 0

    def options(self, arch: str) -> tuple[str, ...]:
        return (arch,)

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        self.num_compiles += 1
        self.begun.set()
        assert self.may_go_on.wait(SECONDS)
        log = f"Compiling entry function '{source.entry}' for\nUsed 8 registers, used 0 barriers\n"
        return Translation(b"\x7fELF", ".entry", log, "", 0.5)


def kernel_source(entry: str) -> KernelSource:
    return KernelSource(f"kernel_{entry}", f"void {entry}();\n", entry, "90a")


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Waiting]:
    compiler = Waiting()
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    forget_builds()
    yield compiler
    forget_builds()


def forked(work: Callable[[], object]) -> int:
    """The process id of a child that does this, and that no hang outlives."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        signal.alarm(SECONDS)
        work()
        status = 0
    finally:
        os._exit(status)


def check_success(child: int) -> None:
    _, status = os.waitpid(child, 0)
    assert status == 0, f"signal {status & 127}, exit status {status >> 8}"


def test_a_child_builds_what_a_thread_of_its_parent_is_building(compiler: Waiting) -> None:
    """It waits for the file lock, as any process would, and finds the kernel on disk."""
    thread = threading.Thread(target=build, args=(kernel_source("a"),))
    thread.start()
    assert compiler.begun.wait(SECONDS)

    def work() -> None:
        compiler.num_compiles = 0
        assert build(kernel_source("a")).from_cache
        assert compiler.num_compiles == 0

    child = forked(work)
    compiler.may_go_on.set()
    thread.join()
    check_success(child)


def test_a_child_builds_while_its_parent_never_ends(compiler: Waiting) -> None:
    """Another kernel, and one that the parent had built before."""
    compiler.may_go_on.set()
    build(kernel_source("a"))
    compiler.may_go_on.clear()
    compiler.begun.clear()
    thread = threading.Thread(target=build, args=(kernel_source("b"),))
    thread.start()
    assert compiler.begun.wait(SECONDS)

    def work() -> None:
        compiler.may_go_on.set()
        assert not build(kernel_source("a")).from_cache, "it is still in memory"
        assert not build(kernel_source("c")).from_cache

    check_success(forked(work))
    compiler.may_go_on.set()
    thread.join()


@pytest.mark.parametrize(
    ("lock", "work"),
    [
        (lambda: settings._lock, lambda: settings.set_pdl(settings.get_pdl())),
        (lambda: build_module._builds.lock, lambda: build(kernel_source("a"))),
        (lambda: calls._lock, lambda: calls.remember("key", 1)),
    ],
    ids=["settings", "builds", "calls"],
)
def test_locks_are_new_in_a_child(
    lock: Callable[[], threading.Lock], work: Callable[[], object], compiler: Waiting
) -> None:
    compiler.may_go_on.set()
    with lock():
        child = forked(work)
    check_success(child)


calls: CallCache[int] = CallCache()


def test_a_child_begins_without_plans() -> None:
    calls.remember("known", 1)

    def work() -> None:
        assert calls.get("known") is None

    check_success(forked(work))
    assert calls.get("known") == 1


def test_a_fork_waits_for_compiles_inside_the_process() -> None:
    """Theirs are locks that nobody can renew."""
    inside, ended = threading.Event(), threading.Event()

    def compile_() -> None:
        with gate.compiling():
            inside.set()
            time.sleep(0.2)
            ended.set()

    def work() -> None:
        assert ended.is_set()
        with gate.compiling():
            pass

    thread = threading.Thread(target=compile_)
    thread.start()
    assert inside.wait(SECONDS)
    check_success(forked(work))
    thread.join()
    with gate.compiling():
        pass


def test_a_fork_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deep_gemm.jit.forks.FORK_WAITS_SECONDS", 0.05)
    mine = Gate.__new__(Gate)
    mine._renew()
    with mine.compiling():
        mine._shut()
        mine._open()
    assert mine._num_inside == 0
