"""The kernel cache on disk: whole entries or none, and never a failure because of it."""

from __future__ import annotations

import errno
import json
import multiprocessing
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from deep_gemm.jit import cache as cache_module
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.compiler import CompiledKernel

DIGEST = "ab" * 32
KERNEL = CompiledKernel(
    name="tiny_128x128",
    entry="tiny",
    arch="90a",
    cubin=b"\x7fELF" + bytes(range(256)) * 64,
    ptx=".visible .entry tiny\n" * 500,
    registers=168,
    spill_bytes=8,
    static_smem_bytes=1024,
    compiler="NVRTC 13.0.88",
    seconds=0.25,
    from_cache=False,
)
FILES = ["kernel.cu", "kernel.cubin", "kernel.ptx", "meta.json"]
NUM_PROCESSES = 4

Fill = Callable[[KernelCache], None]


def put(cache: KernelCache) -> None:
    cache.put(KERNEL, DIGEST, "the source")


def entry(cache: KernelCache) -> Path:
    return cache.directory / "cache" / KERNEL.name / DIGEST


def leftovers(cache: KernelCache) -> list[Path]:
    return list((cache.directory / "tmp").iterdir())


@pytest.fixture
def cache(tmp_path: Path) -> KernelCache:
    return KernelCache(tmp_path / "not/yet/there")


@pytest.fixture(autouse=True)
def no_warnings() -> None:
    """A warning that a test does not expect is an error."""
    warnings.simplefilter("error", RuntimeWarning)


def test_what_is_put_is_got(cache: KernelCache) -> None:
    put(cache)
    assert cache.get(KERNEL.name, DIGEST) == KERNEL._replace(from_cache=True)
    assert sorted(path.name for path in entry(cache).iterdir()) == FILES
    assert (entry(cache) / "kernel.cu").read_text() == "the source"
    assert not leftovers(cache)


def test_a_miss_is_silent_and_writes_nothing(cache: KernelCache) -> None:
    assert cache.get(KERNEL.name, DIGEST) is None
    assert not cache.directory.exists()


def test_an_entry_is_of_one_digest_and_one_name(cache: KernelCache) -> None:
    put(cache)
    assert cache.get(KERNEL.name, "cd" * 32) is None
    assert cache.get("other", DIGEST) is None


def test_the_loser_of_a_race_leaves_the_winners_entry(cache: KernelCache) -> None:
    put(cache)
    cache.put(KERNEL._replace(seconds=9.0), DIGEST, "the same source")
    kernel = cache.get(KERNEL.name, DIGEST)
    assert kernel is not None and kernel.seconds == KERNEL.seconds
    assert not leftovers(cache)


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def move_to_other_digest(folder: Path) -> None:
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, "digest": "cd" * 32}))


DAMAGE = {
    "truncated-cubin": truncate("kernel.cubin"),
    "empty-cubin": overwrite("kernel.cubin", b""),
    "truncated-ptx": truncate("kernel.ptx"),
    "foreign-ptx": overwrite("kernel.ptx", b"\xff\xfe"),
    "no-cubin": remove("kernel.cubin"),
    "no-ptx": remove("kernel.ptx"),
    "no-meta": remove("meta.json"),
    "truncated-meta": truncate("meta.json"),
    "binary-meta": overwrite("meta.json", b"\x80\x81\x00"),
    "empty-meta": overwrite("meta.json", b""),
    "null-meta": overwrite("meta.json", b"null"),
    "list-meta": overwrite("meta.json", b"[]"),
    "hollow-meta": overwrite("meta.json", b"{}"),
    "other-digest": move_to_other_digest,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_broken_entry_warns_once_and_is_rebuilt(
    cache: KernelCache, damage: Callable[[Path], None]
) -> None:
    put(cache)
    damage(entry(cache))
    with pytest.warns(RuntimeWarning, match="broken entry") as caught:
        assert cache.get(KERNEL.name, DIGEST) is None
    assert len(caught) == 1
    assert str(entry(cache)) in str(caught[0].message)
    assert not entry(cache).exists()
    assert not leftovers(cache)
    assert cache.get(KERNEL.name, DIGEST) is None
    put(cache)
    assert cache.get(KERNEL.name, DIGEST) == KERNEL._replace(from_cache=True)


def test_the_source_is_for_people_and_may_go(cache: KernelCache) -> None:
    put(cache)
    (entry(cache) / "kernel.cu").unlink()
    assert cache.get(KERNEL.name, DIGEST) is not None


def put_and_get_often(cache: KernelCache, wait: Callable[[], object]) -> None:
    for round_ in range(10):
        digest = f"{round_:064x}"
        wait()
        cache.put(KERNEL, digest, "the source")
        assert cache.get(KERNEL.name, digest) == KERNEL._replace(from_cache=True)


def test_threads_may_put_the_same_entry(cache: KernelCache) -> None:
    barrier = threading.Barrier(8, timeout=60)
    done = []

    def work() -> None:
        put_and_get_often(cache, barrier.wait)
        done.append(True)

    threads = [threading.Thread(target=work) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == barrier.parties
    assert not leftovers(cache)


def run_processes(work: Callable[[], None]) -> None:
    """Run `work` in several forked processes; each must end well."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work) for _ in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * NUM_PROCESSES


def test_processes_may_put_the_same_entry(cache: KernelCache) -> None:
    barrier = multiprocessing.get_context("fork").Barrier(NUM_PROCESSES, timeout=60)
    run_processes(lambda: put_and_get_often(cache, barrier.wait))
    assert not leftovers(cache)


def test_processes_may_meet_a_broken_entry(cache: KernelCache) -> None:
    """Each finds it broken or rebuilt, and none removes what another has just rebuilt for good."""
    put(cache)
    (entry(cache) / "kernel.cubin").write_bytes(b"")
    barrier = multiprocessing.get_context("fork").Barrier(NUM_PROCESSES, timeout=60)

    def work() -> None:
        warnings.simplefilter("ignore")
        barrier.wait()
        while cache.get(KERNEL.name, DIGEST) is None:
            put(cache)

    run_processes(work)
    assert cache.get(KERNEL.name, DIGEST) == KERNEL._replace(from_cache=True)
    assert not leftovers(cache)


def use_thrice(cache: KernelCache) -> None:
    for _ in range(3):
        assert cache.get(KERNEL.name, DIGEST) is None
        with cache.exclusive(DIGEST):
            put(cache)


def expect_one_unusable_warning(cache: KernelCache) -> None:
    with pytest.warns(RuntimeWarning) as caught:
        use_thrice(cache)
    (warning,) = caught
    assert str(cache.directory) in str(warning.message)
    assert "DG_JIT_CACHE_DIR" in str(warning.message)


def test_a_file_in_place_of_the_directory_warns_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expect_one_unusable_warning(KernelCache(tmp_path / "file"))


def test_a_file_above_the_directory_warns_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    expect_one_unusable_warning(KernelCache(tmp_path / "file" / "below"))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ESTALE])
def test_a_directory_that_takes_no_rename_warns_once(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def rename(self: Path, target: Path) -> Path:
        raise OSError(code, "no")

    monkeypatch.setattr(Path, "rename", rename)
    expect_one_unusable_warning(cache)
    assert not leftovers(cache)


def test_a_full_disk_warns_once_and_leaves_nothing(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", fsync)
    expect_one_unusable_warning(cache)
    assert not leftovers(cache)


def test_an_unreadable_entry_warns_once(
    cache: KernelCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(cache)

    def stale(folder: int, path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(cache_module, "read_file", stale)
    expect_one_unusable_warning(cache)
    monkeypatch.undo()
    assert cache.get(KERNEL.name, DIGEST) is not None


def test_a_relative_directory_stays_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cache = KernelCache(Path("kernels"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    put(cache)
    assert (tmp_path / "kernels/cache" / KERNEL.name).is_dir()
