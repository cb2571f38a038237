"""Cubins are code: what others could have put into the cache is passed over, with a warning."""

from __future__ import annotations

import os
import subprocess
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deep_gemm.jit import trust
from deep_gemm.jit.cache import KernelCache
from tests.host.test_cache import DIGEST, KERNEL, entry, put

BELOW = {
    "directory": "",
    "cache": "cache",
    "name": f"cache/{KERNEL.name}",
    "entry": f"cache/{KERNEL.name}/{DIGEST}",
    "cubin": f"cache/{KERNEL.name}/{DIGEST}/kernel.cubin",
    "meta": f"cache/{KERNEL.name}/{DIGEST}/meta.json",
}
places = pytest.mark.parametrize("below", BELOW.values(), ids=BELOW.keys())


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """One under which a careless program makes everything writable by all."""
    before = os.umask(0)
    warnings.simplefilter("error", RuntimeWarning)
    yield
    os.umask(before)


@pytest.fixture(params=[False, True], ids=["written", "layer"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> KernelCache:
    """A cache with one kernel, as the directory that is written and as a layer."""
    written = KernelCache(tmp_path / "kernels")
    put(written)
    return KernelCache(tmp_path / "kernels", is_read_only=True) if request.param else written


def expect_passed_over(cache: KernelCache, reason: str, place: str = "") -> None:
    before = snapshot(cache.directory)
    with pytest.warns(RuntimeWarning, match=reason) as caught:
        assert cache.get(KERNEL.name, DIGEST) is None
        assert cache.get(KERNEL.name, DIGEST) is None
    assert len(caught) == 1
    assert str(cache.directory / place) in str(caught[0].message)
    assert snapshot(cache.directory) == before


def snapshot(directory: Path) -> list[tuple[Path, int]]:
    return sorted((path, path.lstat().st_mtime_ns) for path in directory.rglob("*"))


@places
@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777], ids=oct)
def test_writable_by_others(cache: KernelCache, below: str, mode: int) -> None:
    (cache.directory / below).chmod(mode)
    expect_passed_over(cache, "writable by others.*chmod -R go-w", below)


@places
def test_mended_as_the_warning_says(cache: KernelCache, below: str) -> None:
    (cache.directory / below).chmod(0o777)
    with pytest.warns(RuntimeWarning):
        assert cache.get(KERNEL.name, DIGEST) is None
    subprocess.run(["chmod", "-R", "go-w", cache.directory], check=True)
    assert cache.get(KERNEL.name, DIGEST) is not None


@places
def test_of_another_user(cache: KernelCache, below: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root gives it away; another user can't, and becomes another one."""
    other = os.getuid() + 1
    if os.getuid() == 0:
        os.chown(cache.directory / below, other, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: other)
    expect_passed_over(cache, "belongs to user")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can own what root owns")
def test_of_root_is_good_for_all(cache: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cache.get(KERNEL.name, DIGEST) is not None


@pytest.mark.parametrize("below", ["", "cache", f"cache/{KERNEL.name}"])
def test_the_sticky_bit_lets_others_add_only(cache: KernelCache, below: str) -> None:
    (cache.directory / below).chmod(0o1777)
    assert cache.get(KERNEL.name, DIGEST) is not None


@pytest.mark.parametrize("name", list(BELOW.values())[4:], ids=list(BELOW)[4:])
def test_the_sticky_bit_says_nothing_of_a_file(cache: KernelCache, name: str) -> None:
    (cache.directory / name).chmod(0o1777)
    expect_passed_over(cache, "writable by others")


@pytest.mark.parametrize("below", list(BELOW.values())[1:], ids=list(BELOW)[1:])
def test_symbolic_links_below_the_directory(cache: KernelCache, below: str, tmp_path: Path) -> None:
    place = cache.directory / below
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    expect_passed_over(cache, "cannot be used|passed over")


def test_the_directory_itself_may_be_a_link(cache: KernelCache, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(cache.directory)
    assert KernelCache(tmp_path / "link").get(KERNEL.name, DIGEST) is not None


def test_what_is_made_is_for_its_owner_to_write(tmp_path: Path) -> None:
    cache = KernelCache(tmp_path / "a/b")
    with cache.exclusive(DIGEST):
        put(cache)
    modes = {path: path.stat().st_mode & 0o7777 for path in (tmp_path / "a/b").rglob("*")}
    expected = {path: trust.FOLDER_MODE if path.is_dir() else trust.FILE_MODE for path in modes}
    assert modes == expected
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == trust.FOLDER_MODE


def store(cache: KernelCache) -> None:
    with cache.exclusive(DIGEST):
        cache.put(KERNEL, DIGEST, "the source")


@pytest.mark.parametrize("below", ["", "cache", f"cache/{KERNEL.name}", "tmp"])
def test_nothing_is_stored_where_others_write(tmp_path: Path, below: str) -> None:
    (tmp_path / below).mkdir(parents=True, exist_ok=True)
    (tmp_path / below).chmod(0o777)
    cache = KernelCache(tmp_path)
    with pytest.warns(RuntimeWarning, match="writable by others") as caught:
        store(cache)
        store(cache)
    assert len(caught) == 1
    assert not entry(cache).exists()
    if not below:
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("below", ["cache", "tmp", "lock"])
def test_nothing_is_stored_behind_a_link(tmp_path: Path, below: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "kernels").mkdir(0o700)
    (tmp_path / "kernels" / below).symlink_to(tmp_path / "victim")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store(KernelCache(tmp_path / "kernels"))
    assert not list((tmp_path / "victim").iterdir())


def exchange(cache: KernelCache) -> Callable[[], None]:
    """Puts a file of others in the place of the cubin."""

    def act() -> None:
        cubin = entry(cache) / "kernel.cubin"
        cubin.unlink()
        cubin.write_bytes(KERNEL.cubin)
        cubin.chmod(0o666)

    return act


def test_the_look_is_at_what_is_read(cache: KernelCache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exchanged at the last moment, after the folders were looked at."""
    act, real = exchange(cache), os.open

    def late(path: str, flags: int, *arguments: int, **options: int) -> int:
        if path == "kernel.cubin":
            act()
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", late)
    with pytest.warns(RuntimeWarning, match="writable by others"):
        assert cache.get(KERNEL.name, DIGEST) is None
