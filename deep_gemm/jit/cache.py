"""Compiled kernels on disk, shared by processes, and by machines if the folder is.

    <directory>/cache/<name>/<digest>/{kernel.cu, kernel.cubin, kernel.ptx, meta.json}
    <directory>/tmp/     entries being written or thrown away
    <directory>/lock/    one lock file per digest

An entry appears whole, by a rename, and never changes. The cache only saves time: whatever is wrong
with it ends in a warning and a compile.
"""

from __future__ import annotations

import errno
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from deep_gemm.jit import lock
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.jit.entry import FILES, BrokenEntryError, decode, encode
from deep_gemm.jit.trust import make_folder, open_folder, read_file, write_file

PUBLISH_ATTEMPTS = 8
"""How often an entry's folder may vanish before that is an error."""


def _absolute(directory: Path) -> Path:
    """The directory without `~`; a user without a home, as in containers, gets a temporary one."""
    try:
        return directory.expanduser().absolute()
    except RuntimeError:
        return Path(tempfile.gettempdir(), directory.name)


class KernelCache:
    """The kernel cache in one directory, which need not exist yet.

    Attributes:
        directory: where it is, as an absolute path.
        is_read_only: nothing in it is ever written, removed or touched.
    """

    def __init__(self, directory: Path, *, is_read_only: bool = False) -> None:
        self.directory = _absolute(directory)
        self.is_read_only = is_read_only
        self._has_warned = False

    def get(self, name: str, digest: str) -> CompiledKernel | None:
        """The kernel stored under `digest`; None if there is none or it cannot be used.

        A broken entry is removed with a warning. A kernel that is found counts as used now.
        """
        try:
            # Through one open folder: an entry replaced while it is read stays one entry.
            with open_folder(self.directory, "cache", name, digest) as folder:
                return self._read(folder, name, digest)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn_unusable(error)
            return None

    def check(self, name: str, digest: str) -> None:
        """Read an entry as `get` does, and leave it as it is.

        Raises:
            BrokenEntryError: it is not what was written.
            OSError: it cannot be read, or others can change it.
        """
        with open_folder(self.directory, "cache", name, digest) as folder:
            self._decode(folder, name, digest)

    def _decode(self, folder: int, name: str, digest: str) -> CompiledKernel:
        path = self.path_of(name, digest)
        return decode(lambda file_name: read_file(folder, path / file_name), name, digest)

    def _read(self, folder: int, name: str, digest: str) -> CompiledKernel | None:
        try:
            kernel = self._decode(folder, name, digest)
        except BrokenEntryError as error:
            # Pruned while it was read, it only looks broken.
            if _is_at(folder, self.path_of(name, digest)):
                self._discard(name, digest, error)
            return None
        if not self.is_read_only:
            with suppress(OSError):
                os.utime(folder)
        return kernel

    def put(self, kernel: CompiledKernel, digest: str, source_text: str) -> None:
        """Store a kernel. Does nothing if another process stored it first."""
        try:
            self.store(kernel.name, digest, encode(kernel, digest, source_text))
        except OSError as error:
            self._warn_unusable(error)

    def store(self, name: str, digest: str, files: Mapping[str, bytes]) -> None:
        """Store the files of an entry, unless there is one.

        Raises:
            OSError: they cannot be stored.
        """
        entry, staging = self.path_of(name, digest), self.temporary()
        try:
            make_folder(self.directory, "tmp", staging.name)
            for file_name, content in files.items():
                write_file(staging / file_name, content)
            self._publish(staging, name, digest)
        except OSError as error:
            remove_files(staging)
            # NFS may repeat a rename that was done, and then find nothing to rename.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY) and not _exists(entry):
                raise

    def _publish(self, staging: Path, name: str, digest: str) -> None:
        for attempt in range(PUBLISH_ATTEMPTS):
            try:
                make_folder(self.directory, "cache", name)
                staging.rename(self.path_of(name, digest))
                return
            except FileNotFoundError:
                # With a kernel's last entry its folder is removed, by another process just now.
                if attempt == PUBLISH_ATTEMPTS - 1 or not _exists(staging):
                    raise

    def remove(self, name: str, digest: str) -> None:
        """Remove an entry. What the cache did not write into it is kept below `tmp`.

        Raises:
            FileNotFoundError: there is none.
            OSError: it cannot be removed.
        """
        # Renamed first, so that nobody meets half an entry.
        grave = self.temporary()
        make_folder(self.directory, "tmp")
        self.path_of(name, digest).rename(grave)
        remove_files(grave)

    @contextmanager
    def exclusive(self, digest: str) -> Iterator[None]:
        """Keep other processes from compiling the same kernel meanwhile, where locks work."""
        # A lock per kernel, since kernels that share one wait for each other: of 16 compiled at
        # a time, two would meet at one of 256 locks in two cases of five.
        with ExitStack() as stack:
            with suppress(OSError):
                make_folder(self.directory, "lock")
                stack.enter_context(lock.exclusive(self.directory / "lock" / digest))
            yield

    def path_of(self, name: str, digest: str) -> Path:
        """Where an entry is."""
        return self.directory / "cache" / name / digest

    def temporary(self) -> Path:
        """A place that nobody else uses, for an entry on its way in or out."""
        return self.directory / "tmp" / os.urandom(12).hex()

    def _discard(self, name: str, digest: str, reason: BrokenEntryError) -> None:
        what = f"the broken entry {self.path_of(name, digest)} ({reason})"
        if self.is_read_only:
            _warn(f"kernel cache: passed over {what}, which lies in a read-only layer")
            return
        try:
            self.remove(name, digest)
        except FileNotFoundError:
            return
        _warn(f"kernel cache: removed {what}; it will be rebuilt")

    def _warn_unusable(self, error: OSError) -> None:
        if self._has_warned:
            return
        self._has_warned = True
        if self.is_read_only:
            _warn(f"kernel cache: passed over the layer {self.directory} ({error})")
            return
        _warn(
            f"kernel cache {self.directory} cannot be used ({error}); kernels are kept in memory "
            "only. Set DG_JIT_CACHE_DIR to a directory that you alone can write to."
        )


def remove_files(entry: Path) -> None:
    """Remove what the cache wrote into an entry, and its folder if that is all; errors are none."""
    for file_name in FILES:
        with suppress(OSError):
            (entry / file_name).unlink()
    with suppress(OSError):
        entry.rmdir()


def _is_at(folder: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(folder), path.lstat())
    except OSError:
        return False


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
