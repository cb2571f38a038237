"""Compiled kernels on disk, shared by processes, and by machines if the folder is.

    <directory>/cache/<name>/<digest>/{kernel.cu, kernel.cubin, kernel.ptx, meta.json}
    <directory>/tmp/     entries being written or thrown away
    <directory>/lock/    one lock file per first two digits of a digest

An entry appears whole, by a rename, and never changes. The cache only saves time: whatever is wrong
with it ends in a warning and a compile.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from deep_gemm.jit.compiler import CompiledKernel

# Longer than any compile. Whoever waits in vain compiles for itself.
LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.01
_REPORT = ("entry", "arch", "registers", "spill_bytes", "static_smem_bytes", "compiler", "seconds")


class _BrokenEntry(Exception):
    """The entry is there, but is not what was written."""


def _absolute(directory: Path) -> Path:
    """The directory without `~`; a user without a home, as in containers, gets a temporary one."""
    try:
        return directory.expanduser().absolute()
    except RuntimeError:
        return Path(tempfile.gettempdir(), directory.name)


class KernelCache:
    """The kernel cache in one directory, which need not exist yet."""

    def __init__(self, directory: Path) -> None:
        self.directory = _absolute(directory)
        self._has_warned = False

    def get(self, name: str, digest: str) -> CompiledKernel | None:
        """The kernel stored under `digest`; None if there is none or it cannot be read.

        A broken entry is removed with a warning.
        """
        entry = self._entry(name, digest)
        try:
            # Through one open folder: an entry replaced while it is read stays one entry, and a
            # file that is missing in it is missing for good.
            folder = os.open(entry, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_unusable(error)
            return None
        try:
            return _read_entry(folder, name, digest)
        except _BrokenEntry as error:
            self._discard(entry)
            warnings.warn(
                f"kernel cache: removed the broken entry {entry} ({error}); it will be rebuilt",
                RuntimeWarning,
                stacklevel=2,
            )
        except OSError as error:
            self._warn_unusable(error)
        finally:
            os.close(folder)
        return None

    def put(self, kernel: CompiledKernel, digest: str, source_text: str) -> None:
        """Store a kernel. Does nothing if another process stored it first."""
        entry = self._entry(kernel.name, digest)
        staging = self._temporary()
        try:
            staging.mkdir(parents=True)
            for file_name, content in _files(kernel, digest, source_text).items():
                _write_synced(staging / file_name, content)
            entry.parent.mkdir(parents=True, exist_ok=True)
            staging.rename(entry)
        except OSError as error:
            shutil.rmtree(staging, ignore_errors=True)
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                self._warn_unusable(error)

    @contextmanager
    def exclusive(self, digest: str) -> Iterator[None]:
        """Keep other processes from compiling the same kernel meanwhile, where locks work."""
        # A lock per digest would leave a file per kernel; 256 of them seldom meet by chance.
        path = self.directory / "lock" / digest[:2]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            yield
            return
        try:
            with suppress(OSError):
                _lock(descriptor)
            yield
        finally:
            # Closing alone would not release it while a forked child still has the descriptor.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)

    def _entry(self, name: str, digest: str) -> Path:
        return self.directory / "cache" / name / digest

    def _temporary(self) -> Path:
        return self.directory / "tmp" / os.urandom(12).hex()

    def _discard(self, entry: Path) -> None:
        # Renamed before it is removed, so that nobody meets half an entry.
        grave = self._temporary()
        try:
            grave.parent.mkdir(parents=True, exist_ok=True)
            entry.rename(grave)
        except FileNotFoundError:
            return
        except OSError as error:
            self._warn_unusable(error)
        shutil.rmtree(grave, ignore_errors=True)

    def _warn_unusable(self, error: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"kernel cache {self.directory} cannot be used ({error}); kernels are kept in "
                "memory only. Set DG_JIT_CACHE_DIR to a writable directory.",
                RuntimeWarning,
                stacklevel=3,
            )


def _files(kernel: CompiledKernel, digest: str, source_text: str) -> dict[str, bytes]:
    ptx = kernel.ptx.encode()
    meta: dict[str, Any] = {field: getattr(kernel, field) for field in _REPORT}
    meta["digest"] = digest
    meta["sha256"] = {"kernel.cubin": _sha256(kernel.cubin), "kernel.ptx": _sha256(ptx)}
    return {
        "kernel.cu": source_text.encode(),
        "kernel.cubin": kernel.cubin,
        "kernel.ptx": ptx,
        "meta.json": json.dumps(meta, indent=1).encode(),
    }


def _read_entry(folder: int, name: str, digest: str) -> CompiledKernel:
    try:
        meta = json.loads(_read(folder, "meta.json"))
        if meta["digest"] != digest:
            raise _BrokenEntry(f"meta.json belongs to {meta['digest']!r}")
        files = {}
        for file_name in ("kernel.cubin", "kernel.ptx"):
            files[file_name] = _read(folder, file_name)
            if _sha256(files[file_name]) != meta["sha256"][file_name]:
                raise _BrokenEntry(f"{file_name} does not match its checksum")
        return CompiledKernel(
            name=name,
            cubin=files["kernel.cubin"],
            ptx=files["kernel.ptx"].decode(),
            from_cache=True,
            **{field: meta[field] for field in _REPORT},
        )
    except FileNotFoundError as error:
        raise _BrokenEntry(f"{error.filename} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _BrokenEntry(f"meta.json: {error!r}") from error


def _read(folder: int, file_name: str) -> bytes:
    def opener(path: str, flags: int) -> int:
        return os.open(path, flags, dir_fd=folder)

    with open(file_name, "rb", opener=opener) as file:  # noqa: PTH123 (Path has no dir_fd)
        return file.read()


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
