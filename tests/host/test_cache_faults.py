"""Every call of the cache to the system fails in turn; a build never does.

Not one fault after another that somebody thought of: the calls of a build are counted, and then it
is repeated with the first of them failing, with the second, and so on, with each error.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deep_gemm.jit import build as build_module
from deep_gemm.jit.build import build, forget_builds
from deep_gemm.jit.cache import KernelCache
from tests.host.fake_compiler import CUBIN, CountingCompiler, kernel_source

FUNCTIONS = (
    *(("os", name) for name in ("open", "mkdir", "rename", "unlink", "rmdir", "scandir")),
    *(("os", name) for name in ("fstat", "lstat", "stat", "fsync", "utime")),
    ("fcntl", "flock"),
)
MODULES = {"os": os, "fcntl": fcntl}

ERRORS = {
    "full-disk": errno.ENOSPC,
    "read-only": errno.EROFS,
    "stale-handle": errno.ESTALE,
    "invisible": errno.ENOENT,
    "already-there": errno.EEXIST,
}

Hit = Callable[[], None]

FOREVER = 1_000_000


class Faults:
    """Counts the calls to the system that touch the cache, and does something at one of them.

    Attributes:
        num_calls: since `arm`.
        names: of the functions that were called.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = str(directory)
        self.num_calls = 0
        self.names: set[str] = set()
        self._first = self._last = -1
        self._hit: Hit = lambda: None
        # Nothing here asks what a power cut leaves, and waiting for the disk takes long.
        monkeypatch.setattr(os, "fsync", lambda descriptor: None)
        for module, name in FUNCTIONS:
            monkeypatch.setattr(MODULES[module], name, self._wrapped(MODULES[module], name))

    def arm(self, first: int, last: int, hit: Hit) -> None:
        """Count from 0 again, and from the first to the last call do `hit` before each."""
        self.num_calls, self._first, self._last, self._hit = 0, first, last, hit
        self.names.clear()

    def disarm(self) -> None:
        """From now on nothing fails; the count goes on."""
        self._first = self._last = -1

    def _wrapped(self, module: Any, name: str) -> Callable[..., Any]:
        function = getattr(module, name)

        def call(*arguments: Any, **options: Any) -> Any:
            if self._is_ours(arguments[0], options):
                index, self.num_calls = self.num_calls, self.num_calls + 1
                self.names.add(name)
                if self._first <= index <= self._last:
                    hit, self._hit = self._hit, lambda: None
                    try:
                        hit()
                    finally:
                        self._hit = hit
            return function(*arguments, **options)

        return call

    def _is_ours(self, place: object, options: dict[str, Any]) -> bool:
        if isinstance(place, int) or options.get("dir_fd") is not None:
            return True
        return str(place).startswith(self.directory)


def fail_with(code: int) -> Hit:
    def hit() -> None:
        raise OSError(code, os.strerror(code))

    return hit


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("DG_JIT_CACHE_MAX_MB", "1")
    return tmp_path / "kernels"


@pytest.fixture
def compiler(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CountingCompiler]:
    compiler = CountingCompiler(tmp_path / "compiled")
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    yield compiler
    forget_builds()


def nothing(directory: Path) -> None:
    pass


def stored(directory: Path) -> None:
    forget_builds()
    build(kernel_source("a"))


def broken(directory: Path) -> None:
    stored(directory)
    for cubin in directory.glob("cache/*/*/kernel.cubin"):
        cubin.write_bytes(b"")


def too_much(directory: Path) -> None:
    """An older kernel that has to go when the next is stored."""
    forget_builds()
    build(kernel_source("old"))
    (entry,) = directory.glob("cache/kernel_old/*")
    os.truncate(entry / "kernel.cubin", 2_000_000)
    os.utime(entry, (0, 0))


BEFORE = {"cold": nothing, "warm": stored, "broken": broken, "too-much": too_much}


def build_with(faults: Faults, first: int, last: int, hit: Hit) -> list[str]:
    """Build as a new process would, with faults; the warnings that it gave."""
    forget_builds()
    faults.arm(first, last, hit)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kernel = build(kernel_source("a"))
    finally:
        faults.disarm()
    assert kernel.cubin == CUBIN
    assert build(kernel_source("a")) is kernel
    return [str(warning.message) for warning in caught]


def check_recovery() -> None:
    """With the disk well again a new process stores the kernel if need be, and the next has it."""
    with warnings.catch_warnings():
        # What was broken before may only now be found so.
        warnings.simplefilter("ignore")
        forget_builds()
        build(kernel_source("a"))
        forget_builds()
        warnings.simplefilter("error")
        assert build(kernel_source("a")).from_cache


@pytest.mark.parametrize("code", ERRORS.values(), ids=ERRORS.keys())
@pytest.mark.parametrize("prepare", BEFORE.values(), ids=BEFORE.keys())
def test_any_call_may_fail(
    compiler: CountingCompiler,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], None],
    code: int,
) -> None:
    """Once, as for a moment, or from then on, as on a disk that is gone."""
    faults = Faults(directory, monkeypatch)
    for first in range(num_calls_after(prepare, faults, directory)):
        for last in (first, FOREVER):
            shutil.rmtree(directory, ignore_errors=True)
            prepare(directory)
            caught = build_with(faults, first, last, fail_with(code))
            assert len(caught) <= (2 if prepare is broken else 1), (first, last, caught)
            check_recovery()


@pytest.mark.parametrize("prepare", BEFORE.values(), ids=BEFORE.keys())
@pytest.mark.parametrize("is_replaced", [False, True], ids=["gone", "a-file-now"])
def test_the_directory_may_vanish_at_any_call(
    compiler: CountingCompiler,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Path], None],
    is_replaced: bool,
) -> None:
    def vanish() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        if is_replaced:
            directory.touch()

    faults = Faults(directory, monkeypatch)
    for first in range(num_calls_after(prepare, faults, directory)):
        prepare(directory)
        caught = build_with(faults, first, first, vanish)
        assert len(caught) <= (2 if prepare is broken else 1), (first, caught)
        if directory.is_file():
            directory.unlink()
        check_recovery()
        shutil.rmtree(directory)


def num_calls_after(prepare: Callable[[Path], None], faults: Faults, directory: Path) -> int:
    """The calls of a build without a fault, of which there must be as many as are known."""
    prepare(directory)
    build_with(faults, -1, -1, lambda: None)
    expected = {"open", "fstat", "utime"} if prepare is stored else {"mkdir", "rename", "flock"}
    assert expected <= faults.names
    num_calls = faults.num_calls
    shutil.rmtree(directory)
    return num_calls


def test_a_winner_that_stays_invisible_does_no_harm(
    compiler: CountingCompiler, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS: another host stored it, our rename is refused, and a look still finds nothing."""
    build(kernel_source("a"))

    def hidden(self: KernelCache, name: str, digest: str) -> None:
        return None

    warnings.simplefilter("error")
    with monkeypatch.context() as context:
        context.setattr(KernelCache, "get", hidden)
        forget_builds()
        kernel = build(kernel_source("a"))
        assert not kernel.from_cache and build(kernel_source("a")) is kernel
    assert not list((directory / "tmp").iterdir())
    forget_builds()
    assert build(kernel_source("a")).from_cache


def test_a_rename_that_was_done_and_reported_lost(
    compiler: CountingCompiler, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS where the first answer is lost and the call is sent again."""
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        real(self, target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))

    monkeypatch.setattr(Path, "rename", rename)
    warnings.simplefilter("error")
    build(kernel_source("a"))
    forget_builds()
    assert build(kernel_source("a")).from_cache
