"""Functions run in a process of their own, so that a kernel that hangs fails a test and no more."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

SECONDS = 60
"""Compilation included; a function that takes longer is taken to hang."""


def serve(connection: Connection) -> None:
    """Runs what the connection brings, and answers with the traceback, or None."""
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            function(*arguments)
            connection.send(None)
        except BaseException:
            connection.send(traceback.format_exc())


class Isolated:
    """The process; it is started when first needed, and again after one that hung or failed.

    A CUDA error spoils all later calls of its process, too.
    """

    def __init__(self) -> None:
        self._process: multiprocessing.process.BaseProcess | None = None

    def run(
        self, function: Callable[..., None], *arguments: object, seconds: float = SECONDS
    ) -> None:
        """Runs a function of a module there.

        Raises:
            AssertionError: it failed, died or did not end.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send((function, arguments))
            if not self._connection.poll(seconds):
                raise AssertionError(f"no end after {seconds} s: the kernel hangs")
            failure = self._connection.recv()
        except BaseException as error:
            self.stop()
            if isinstance(error, (EOFError, OSError)):
                raise AssertionError("the process died") from error
            raise
        if failure is not None:
            self.stop()
            raise AssertionError(failure)

    def stop(self) -> None:
        """Ends the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
