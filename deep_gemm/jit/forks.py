"""Compiles inside this process, and forks of it, keep out of each other's way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FORK_WAITS_SECONDS = 30.0
"""Longer than any compile; then a fork goes on, and its child had better not compile."""


class Gate:
    """What compiles pass through, and what a fork shuts.

    NVRTC has locks of its own. One that is held while the process forks stays locked in the child
    for ever, and the child's first compile hangs: seen with 13.0 in most forks during the first
    tenth of a second of a compile. So a fork waits for the compiles that are under way.
    """

    def __init__(self) -> None:
        self._renew()
        os.register_at_fork(
            before=self._shut, after_in_parent=self._open, after_in_child=self._renew
        )

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """No fork begins inside."""
        with self._changed:
            self._num_inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_inside -= 1
                self._changed.notify_all()

    def _shut(self) -> None:
        self._changed.acquire()
        self._changed.wait_for(lambda: self._num_inside == 0, FORK_WAITS_SECONDS)

    def _open(self) -> None:
        self._changed.release()

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._num_inside = 0


gate = Gate()
"""Of this process."""
