"""A lock between processes that saves work and can never stop it.

The system releases it when its holder dies. It may still be held for ever: by a process that hangs,
or on a file system that keeps the locks of hosts that are gone. So it can be stolen: who has waited
for `LOCK_SECONDS` turns to the file `<path>.1`, where one of those that wait is let through and the
others wait again. Who has waited there in vain too goes on without a lock.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deep_gemm.jit.trust import FILE_MODE

# Longer than any compile.
LOCK_SECONDS = 60.0
_POLL_SECONDS = 0.01


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Within this context no other process is in it, where locks work and nobody hangs.

    Args:
        path: of the lock's file, which stays. Removing it could let two in, one behind the old
            file and one behind the new, and a thief's file would be lost.
    """
    descriptor = _acquire(path)
    try:
        yield
    finally:
        if descriptor is not None:
            # Closing alone would not release it while a forked child still has the descriptor.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            os.close(descriptor)


def _acquire(path: Path) -> int | None:
    """A descriptor that holds the lock; None if there is none to be had."""
    for place in (path, path.with_name(f"{path.name}.1")):
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, FILE_MODE)
        except OSError:
            return None
        try:
            if _wait(descriptor):
                return descriptor
        except OSError:
            os.close(descriptor)
            return None
        os.close(descriptor)
    return None


def _wait(descriptor: int) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_POLL_SECONDS)
    return False
