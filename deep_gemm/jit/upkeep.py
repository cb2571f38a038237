"""What a cache directory holds, and how less of it is kept. Safe while others read and write it.

Only here does the cache look at the clock of the wall, and only to order entries by their last use:
a clock that jumps costs a compile at worst.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deep_gemm.jit.cache import KernelCache, remove_files
from deep_gemm.jit.entry import DIGEST, BrokenEntryError

# An entry takes milliseconds to write, so what is older was left by a process that died.
STAGING_SECONDS = 3600.0
# Clocks of hosts that share a directory do not differ by more.
SKEW_SECONDS = 86400.0

_STAGING = re.compile(r"[0-9a-f]{24}")
_LOCK = re.compile(r"[0-9a-f]{2}|[0-9a-f]{64}(\.1)?")


@dataclass(frozen=True, slots=True)
class Stored:
    """An entry as it lies on disk.

    Attributes:
        name: of the kernel.
        digest: its cache key.
        num_bytes: of its files together.
        used: when it was written or last found, in seconds since 1970.
    """

    name: str
    digest: str
    num_bytes: int
    used: float


def stored(cache: KernelCache) -> list[Stored]:
    """The entries of a cache directory, the one used longest ago first.

    Raises:
        OSError: the directory cannot be read.
    """
    now = time.time()
    found = []
    for kernel in _folders(cache.directory / "cache"):
        for entry in _folders(Path(kernel.path)):
            if not DIGEST.fullmatch(entry.name):
                continue
            with suppress(FileNotFoundError), os.scandir(entry.path) as files:
                num_bytes = sum(file.stat(follow_symlinks=False).st_size for file in files)
                used = entry.stat(follow_symlinks=False).st_mtime
                found.append(Stored(kernel.name, entry.name, num_bytes, used))
    # A time to come is of a clock that was put right since. Such entries go first: else they would
    # stay, and every new one would have to go for them.
    return sorted(found, key=lambda entry: (entry.used <= now + SKEW_SECONDS, entry.used))


def prune(cache: KernelCache, max_bytes: int, keep: str = "") -> list[Stored]:
    """Remove what was used longest ago until the entries have at most `max_bytes` together.

    Args:
        cache: the directory.
        max_bytes: of all files of all entries.
        keep: a digest that stays in any case.

    Returns:
        What was removed, by this call or by another process meanwhile.

    Raises:
        OSError: the directory cannot be read, or an entry not be removed.
    """
    _remove_abandoned(cache)
    entries = stored(cache)
    too_many = sum(entry.num_bytes for entry in entries) - max_bytes
    removed: list[Stored] = []
    for entry in entries:
        if too_many <= 0:
            break
        if entry.digest != keep:
            _remove(cache, entry)
            too_many -= entry.num_bytes
            removed.append(entry)
    return removed


def prune_after_put(cache: KernelCache, max_bytes: int, digest: str) -> None:
    """`prune` for one that has just stored an entry and wants to go on, whatever happens here."""
    with suppress(OSError):
        prune(cache, max_bytes, keep=digest)


def clear(cache: KernelCache) -> list[Stored]:
    """Remove all that the cache has written, and nothing else.

    Returns:
        The entries that were removed.

    Raises:
        OSError: the directory cannot be read, or an entry not be removed.
    """
    entries = stored(cache)
    for entry in entries:
        _remove(cache, entry)
    for folder in _folders(cache.directory / "tmp"):
        if _STAGING.fullmatch(folder.name):
            remove_files(Path(folder.path))
    with suppress(FileNotFoundError):
        for file in (cache.directory / "lock").iterdir():
            if _LOCK.fullmatch(file.name):
                file.unlink(missing_ok=True)
    for name in ("cache", "tmp", "lock"):
        with suppress(OSError):
            (cache.directory / name).rmdir()
    return entries


def fault_of(cache: KernelCache, entry: Stored) -> str:
    """What is wrong with an entry, read as `KernelCache.get` would; empty if nothing is."""
    try:
        cache.check(entry.name, entry.digest)
    except (BrokenEntryError, OSError) as error:
        return str(error)
    return ""


def _remove(cache: KernelCache, entry: Stored) -> None:
    with suppress(FileNotFoundError):
        cache.remove(entry.name, entry.digest)
    # At worst a process that waits behind the old file and one behind a new one both compile.
    for suffix in ("", ".1"):
        with suppress(OSError):
            (cache.directory / "lock" / f"{entry.digest}{suffix}").unlink()
    with suppress(OSError):
        (cache.directory / "cache" / entry.name).rmdir()


def _remove_abandoned(cache: KernelCache) -> None:
    for folder in _folders(cache.directory / "tmp"):
        with suppress(OSError):
            age = time.time() - folder.stat(follow_symlinks=False).st_mtime
            if _STAGING.fullmatch(folder.name) and age > STAGING_SECONDS:
                remove_files(Path(folder.path))


def _folders(place: Path) -> Iterator[os.DirEntry[str]]:
    """The folders in a folder; symbolic links to such are none."""
    try:
        with os.scandir(place) as entries:
            yield from [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
