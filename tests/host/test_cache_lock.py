"""The cache's lock: one compile of a kernel at a time, and never a deadlock."""

from __future__ import annotations

import errno
import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from deep_gemm.jit import lock
from deep_gemm.jit.cache import KernelCache

DIGEST = "ab" * 32


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    return KernelCache(tmp_path)


def test_one_holder_at_a_time(cache: KernelCache) -> None:
    inside, most = [0], [0]

    def work() -> None:
        with cache.exclusive(DIGEST):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.01)
            inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_a_holder_that_never_lets_go_is_not_waited_for(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.05)
    with cache.exclusive(DIGEST):
        start = time.monotonic()
        with cache.exclusive(DIGEST):
            assert 0.05 <= time.monotonic() - start < 10


def test_the_lock_does_not_hide_the_bodys_error(cache: KernelCache) -> None:
    with pytest.raises(KeyError), cache.exclusive(DIGEST):
        raise KeyError
    with cache.exclusive(DIGEST):
        pass


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EIO, errno.ESTALE, errno.EINVAL]
)
def test_where_locks_do_not_work_it_goes_on_at_once(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    before = list(Path("/proc/self/fd").iterdir())
    start = time.monotonic()
    with cache.exclusive(DIGEST), cache.exclusive(DIGEST):
        assert time.monotonic() - start < 10
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_who_waits_in_vain_twice_goes_on_without(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holder, thief, and a third: the thief hangs too."""
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.05)
    with cache.exclusive(DIGEST), cache.exclusive(DIGEST):
        start = time.monotonic()
        with cache.exclusive(DIGEST):
            assert 0.1 <= time.monotonic() - start < 10


def test_the_clock_of_the_wall_does_not_matter(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden() -> float:
        raise AssertionError("the lock looked at the clock of the wall")

    monkeypatch.setattr("time.time", forbidden)
    monkeypatch.setattr(lock, "LOCK_SECONDS", 0.05)
    with cache.exclusive(DIGEST), cache.exclusive(DIGEST):
        pass


def test_a_forked_child_does_not_keep_the_lock(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has inherited the descriptor; a data loader's worker may live for days."""
    monkeypatch.setattr(lock, "LOCK_SECONDS", 30.0)
    with cache.exclusive(DIGEST):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    start = time.monotonic()
    with cache.exclusive(DIGEST):
        seconds = time.monotonic() - start
    child.kill()
    child.join()
    assert seconds < 10
