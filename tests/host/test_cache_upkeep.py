"""What the cache holds, how it is bounded, and that nothing is lost that it did not write."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import time
import warnings
from pathlib import Path

import pytest

from deep_gemm.errors import ArgumentError
from deep_gemm.jit import build as build_module
from deep_gemm.jit import cache as cache_module
from deep_gemm.jit import upkeep
from deep_gemm.jit.build import build, forget_builds
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.entry import FILES
from deep_gemm.jit.upkeep import STAGING_SECONDS, clear, fault_of, prune, stored
from tests.host.fake_compiler import CountingCompiler, kernel_source
from tests.host.test_cache import DAMAGE, KERNEL

TIMEOUT = 60
NUM_ENTRIES = 6
HOUR = 3600.0
YEAR = 365 * 24 * HOUR

Place = tuple[str, str]


def place_of(index: int) -> Place:
    return f"kernel_{index % 2}", f"{index:064x}"


def path_of(cache: KernelCache, index: int) -> Path:
    return cache.path_of(*place_of(index))


def present(cache: KernelCache) -> list[int]:
    return sorted(int(entry.digest, 16) for entry in stored(cache))


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    """Six entries of the same size, used one hour after another."""
    warnings.simplefilter("error", RuntimeWarning)
    cache = KernelCache(tmp_path / "kernels")
    for index in range(NUM_ENTRIES):
        name, digest = place_of(index)
        cache.put(KERNEL._replace(name=name), digest, "the source")
        used = time.time() - (NUM_ENTRIES - index) * HOUR
        os.utime(path_of(cache, index), (used, used))
    return cache


def entry_bytes(cache: KernelCache) -> int:
    return stored(cache)[0].num_bytes


def test_entries_are_listed_by_their_use(cache: KernelCache) -> None:
    entries = stored(cache)
    assert [(entry.name, entry.digest) for entry in entries] == list(map(place_of, range(6)))
    sizes = [sum(file.stat().st_size for file in path_of(cache, 0).iterdir())] * 6
    assert [entry.num_bytes for entry in entries] == sizes


def test_a_cache_that_is_not_there_is_empty(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "nowhere")
    assert (stored(cache), prune(cache, 0), clear(cache)) == ([], [], [])
    assert not list(tmp_path.iterdir())


def test_pruning_takes_what_was_used_longest_ago(cache: KernelCache) -> None:
    removed = prune(cache, 4 * entry_bytes(cache))
    assert [(entry.name, entry.digest) for entry in removed] == [place_of(0), place_of(1)]
    assert present(cache) == [2, 3, 4, 5]
    assert not list((cache.directory / "tmp").iterdir())


@pytest.mark.parametrize("short", [0, 1], ids=["just-fits", "a-byte-too-much"])
def test_the_bound_is_exact(cache: KernelCache, short: int) -> None:
    prune(cache, 6 * entry_bytes(cache) - short)
    assert len(present(cache)) == 6 - short


def test_a_hit_keeps_an_entry(cache: KernelCache) -> None:
    assert cache.get(*place_of(0)) is not None
    prune(cache, 2 * entry_bytes(cache))
    assert present(cache) == [0, 5]


def test_a_hit_in_a_layer_touches_nothing(cache: KernelCache) -> None:
    before = [entry.used for entry in stored(cache)]
    layer = KernelCache(cache.directory, is_read_only=True)
    assert layer.get(*place_of(0)) is not None
    assert [entry.used for entry in stored(cache)] == before


def test_what_is_to_be_kept_is_kept(cache: KernelCache) -> None:
    prune(cache, 1, keep=place_of(0)[1])
    assert present(cache) == [0]


def test_locks_of_removed_entries_go_too(cache: KernelCache) -> None:
    for index in (0, 5):
        with cache.exclusive(place_of(index)[1]):
            pass
    prune(cache, 5 * entry_bytes(cache))
    assert [path.name for path in (cache.directory / "lock").iterdir()] == [place_of(5)[1]]


@pytest.mark.parametrize("jump", [-40 * YEAR, -YEAR, YEAR, 40 * YEAR], ids=lambda j: f"{j:+.0f}s")
def test_a_clock_that_jumps_costs_entries_at_most(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    """Pruned under another time it still bounds the size and keeps what it must."""
    real = time.time
    monkeypatch.setattr(upkeep.time, "time", lambda: real() + jump)
    prune(cache, 3 * entry_bytes(cache), keep=place_of(0)[1])
    left = present(cache)
    assert len(left) == 3 and 0 in left
    assert all(cache.get(*place_of(index)) is not None for index in left)


def test_entries_from_the_future_do_not_stay_for_ever(cache: KernelCache) -> None:
    """Else each new kernel would have to go for those of a time when the clock was wrong."""
    later = time.time() + YEAR
    for index in (0, 1, 2):
        os.utime(path_of(cache, index), (later, later))
    prune(cache, 3 * entry_bytes(cache))
    assert present(cache) == [3, 4, 5]


def test_clocks_of_two_hosts_may_differ(cache: KernelCache) -> None:
    ahead = time.time() + HOUR
    os.utime(path_of(cache, 0), (ahead, ahead))
    prune(cache, entry_bytes(cache))
    assert present(cache) == [0]


def test_what_dead_processes_left_is_removed(cache: KernelCache) -> None:
    tmp = cache.directory / "tmp"
    for name, age in (("ab" * 12, 2 * STAGING_SECONDS), ("cd" * 12, 0), ("mine", 2 * YEAR)):
        (tmp / name).mkdir()
        (tmp / name / "kernel.cubin").touch()
        os.utime(tmp / name, (time.time() - age,) * 2)
    prune(cache, 10 * entry_bytes(cache))
    assert sorted(path.name for path in tmp.iterdir()) == ["cd" * 12, "mine"]
    clear(cache)
    assert [path.name for path in tmp.iterdir()] == ["mine"]


def test_readers_do_not_notice_pruning(cache: KernelCache) -> None:
    """They find an entry whole or not at all, and nobody is warned of a broken one."""
    context = multiprocessing.get_context("fork")
    stop = context.Event()

    def read() -> None:
        while not stop.is_set():
            for index in range(NUM_ENTRIES):
                kernel = cache.get(*place_of(index))
                assert kernel is None or kernel.cubin == KERNEL.cubin

    def write() -> None:
        for round_ in range(60):
            name, digest = place_of(round_ % NUM_ENTRIES)
            cache.put(KERNEL._replace(name=name), digest, "the source")
            prune(cache, entry_bytes_now, keep=digest if round_ % 2 else "")

    entry_bytes_now = entry_bytes(cache)
    readers = [context.Process(target=read) for _ in range(2)]
    writers = [context.Process(target=write) for _ in range(2)]
    for process in (*readers, *writers):
        process.start()
    for process in writers:
        process.join(TIMEOUT)
    stop.set()
    for process in (*writers, *readers):
        process.join(TIMEOUT)
        process.kill()
    assert [process.exitcode for process in (*readers, *writers)] == [0] * 4


def test_a_folder_that_vanishes_before_an_entry_is_put_there(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever prunes a kernel's last entry removes its folder, at any moment."""
    name, digest = "new_kernel", "ab" * 32
    make_folder, num_left = cache_module.make_folder, 3

    def make_and_lose(root: Path, *names: str) -> None:
        nonlocal num_left
        make_folder(root, *names)
        if names == ("cache", name) and num_left:
            num_left -= 1
            root.joinpath(*names).rmdir()

    monkeypatch.setattr(cache_module, "make_folder", make_and_lose)
    cache.put(KERNEL._replace(name=name), digest, "the source")
    assert num_left == 0
    assert cache.get(name, digest) is not None


def test_clearing_removes_all_that_was_written(cache: KernelCache) -> None:
    with cache.exclusive(place_of(0)[1]):
        pass
    (cache.directory / "lock/ab").touch()
    assert len(clear(cache)) == NUM_ENTRIES
    assert not list(cache.directory.iterdir())


def test_clearing_removes_nothing_else(cache: KernelCache, tmp_path: Path) -> None:
    """Beside, between and inside the entries, and behind links."""
    (tmp_path / "far").mkdir()
    others = ["note", "cache/note", "cache/kernel_0/note", "cache/mine/x/kernel.cubin", "lock/note"]
    others += ["tmp/note", "tmp/mine/kernel.cubin", f"cache/mine/{'AB' * 32}/meta.json"]
    for name in others:
        (cache.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (cache.directory / name).write_text(name)
    (path_of(cache, 1) / "note").write_text("inside")
    shutil.copytree(path_of(cache, 0), tmp_path / "far" / place_of(0)[1])
    (cache.directory / "cache/link").symlink_to(tmp_path / "far")
    clear(cache)
    left = {path for path in cache.directory.rglob("*") if path.is_file()}
    inside = {path for path in left if path.read_text() == "inside"}
    assert left - inside == {cache.directory / name for name in others}
    assert len(inside) == 1
    assert sorted(path.name for path in (tmp_path / "far").rglob("kernel.*")) == list(FILES[:3])


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_fault_is_named_and_nothing_is_changed(cache: KernelCache, damage: object) -> None:
    assert callable(damage)
    entry = stored(cache)[0]
    assert fault_of(cache, entry) == ""
    damage(path_of(cache, 0))
    before = sorted(path_of(cache, 0).iterdir())
    assert fault_of(cache, entry) != ""
    assert sorted(path_of(cache, 0).iterdir()) == before


@pytest.mark.parametrize("max_mb", ["1", ""], ids=["1-MB", "unbounded"])
def test_a_build_keeps_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_mb: str
) -> None:
    """What was used last is there; without a bound all is."""
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path / "kernels"))
    monkeypatch.setenv("DG_JIT_CACHE_MAX_MB", max_mb)
    compiler = CountingCompiler(tmp_path / "compiled")
    monkeypatch.setattr(build_module, "select_compiler", lambda: compiler)
    cache = KernelCache(tmp_path / "kernels")
    forget_builds()
    for index, entry in enumerate("abc"):
        build(kernel_source(entry))
        (path,) = cache.directory.glob(f"cache/kernel_{entry}/*")
        os.truncate(path / "kernel.cu", 450_000)
        os.utime(path, (index, index))
    forget_builds()
    assert build(kernel_source("a")).from_cache
    build(kernel_source("d"))
    names = {entry.name[-1] for entry in stored(cache)}
    assert names == ({"a", "c", "d"} if max_mb else set("abcd"))
    forget_builds()


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_a_bound_is_a_positive_number(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_MAX_MB", text)
    forget_builds()
    with pytest.raises(ArgumentError, match="DG_JIT_CACHE_MAX_MB"):
        build(kernel_source("a"))
