"""The cache's lock: one compile of a kernel at a time, and never a deadlock."""

from __future__ import annotations

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
