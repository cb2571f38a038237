"""In whose hands a folder is. Cubins are code: only this user and root may have written them.

Each folder from the cache's own downwards is looked at through a descriptor, and so is each file,
so nothing can be exchanged between the look and the use. Folders above need no look: who exchanges
one of those cannot make the new one belong to this user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY

# Others may read, as layers of container images are read; whether they do is the umask's to say.
FOLDER_MODE = 0o755
FILE_MODE = 0o644


class UntrustedError(OSError):
    """Somebody else can change what lies there; the text says where, and how to mend it."""


def check(status: os.stat_result, path: Path) -> None:
    """Refuse a file or a folder that others can change.

    In a folder with the sticky bit others can only add, and what they add belongs to them.

    Raises:
        UntrustedError: it belongs to another user than this one and root, or is writable by more
            than its owner.
    """
    if status.st_uid not in (0, os.geteuid()):
        raise UntrustedError(
            f"{path} belongs to user {status.st_uid}, and this process runs as user "
            f"{os.geteuid()}: it could hold another's code"
        )
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not is_sticky:
        raise UntrustedError(
            f"{path} is writable by others, who could put code there; "
            f"if all that is in it is yours, mend it with: chmod -R go-w {path}"
        )


@contextmanager
def open_folder(root: Path, *below: str) -> Iterator[int]:
    """A descriptor of a folder at or below `root`, reached through trusted folders only.

    Raises:
        UntrustedError: see `check`.
        OSError: it is not there or cannot be opened, or is a symbolic link below the root.
    """
    descriptor = os.open(root, _FOLDER)
    try:
        check(os.fstat(descriptor), root)
        for index, part in enumerate(below, 1):
            inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            check(os.fstat(descriptor), root.joinpath(*below[:index]))
        yield descriptor
    finally:
        os.close(descriptor)


def read_file(folder: int, path: Path) -> bytes:
    """A file's content.

    Args:
        folder: the open folder that it is in.
        path: of the file; only its name is used, but for messages.

    Raises:
        UntrustedError: see `check`.
        OSError: it is not there or cannot be read, or is a symbolic link.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)

    with open(path.name, "rb", opener=opener) as file:  # noqa: PTH123 (Path has no dir_fd)
        check(os.fstat(file.fileno()), path)
        return file.read()


def make_folder(root: Path, *below: str) -> None:
    """Make a folder at or below `root`, and those between, for this user alone to write.

    Raises:
        UntrustedError: one is there and others can change it.
        OSError: one cannot be made.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    for index in range(len(below) + 1):
        path = root.joinpath(*below[:index])
        try:
            path.mkdir(FOLDER_MODE)
        except FileExistsError:
            check(path.lstat() if index else path.stat(), path)
            if index and path.is_symlink():
                raise UntrustedError(f"{path} is a symbolic link") from None


def write_file(path: Path, content: bytes) -> None:
    """Write a new file that only this user may change, and wait until it is on the disk.

    Raises:
        OSError: it cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (of a descriptor)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
