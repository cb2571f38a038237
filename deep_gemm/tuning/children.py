"""Child processes that answer JSON requests, one line each. A child that is late is killed.

A kernel may hang and take its process along, so whatever touches the GPU runs in a child, and the
parent, which holds the results, never waits without a limit.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from deep_gemm import knobs

Message = dict[str, Any]
Handler = Callable[..., "Message | Iterator[Message]"]

_CLOSE_SECONDS = 10


class ChildDied(Exception):
    """The child is gone: it ended, or it was killed because it did not answer in time."""


class Child:
    """A Python module that runs `serve`, in a process of its own. Its stderr is ours."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Starts it.

        Args:
            arguments: a module's name and its command line.
            env: variables to set besides ours.
            folder: to start in, where modules are looked for first; by default ours.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=knobs.environment(env or {}),
            cwd=folder,
            text=True,
        )
        self._requests = cast("IO[str]", self._process.stdin)
        self._answers = cast("IO[str]", self._process.stdout)
        self._replies: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, command: str, timeout: float, **arguments: object) -> Message:
        """Sends a request and waits for its one reply.

        Raises:
            ChildDied: there was no reply within `timeout` seconds, or there never will be.
        """
        self.send(command, **arguments)
        return self.receive(timeout)

    def stream(self, command: str, timeout: float, **arguments: object) -> Iterator[Message]:
        """Sends a request and yields its replies, at most `timeout` seconds apart.

        If the handler raises, its error is the last of them.

        Raises:
            ChildDied: as in `ask`.
        """
        self.send(command, **arguments)
        while not (reply := self.receive(timeout)).get("done"):
            yield reply
        if "error" in reply:
            yield reply

    def send(self, command: str, **arguments: object) -> None:
        """Sends a request without waiting."""
        try:
            print(json.dumps([command, arguments]), file=self._requests, flush=True)
        except OSError:
            raise ChildDied(self._how_it_ended()) from None

    def receive(self, timeout: float) -> Message:
        """The next reply."""
        try:
            line = self._replies.get(timeout=timeout)
        except queue.Empty:
            self.kill()
            raise ChildDied(f"no answer within {timeout:.0f} s, killed") from None
        if line is None:
            raise ChildDied(self._how_it_ended())
        reply: Message = json.loads(line)
        return reply

    def close(self) -> None:
        """Lets it end by itself, for a while."""
        try:
            self._requests.close()
            self._process.wait(_CLOSE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        """Ends it at once; one that waits for its driver is left behind."""
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_SECONDS)

    def _read(self) -> None:
        for line in self._answers:
            self._replies.put(line)
        self._replies.put(None)

    def _how_it_ended(self) -> str:
        try:
            return f"ended with exit code {self._process.wait(_CLOSE_SECONDS)}"
        except subprocess.TimeoutExpired:
            self.kill()
            return "closed its output, killed"


def serve(handlers: Mapping[str, Handler], is_healthy: Callable[[], bool] = lambda: True) -> None:
    """The child's side: answers requests until the parent closes the pipe.

    A handler gets the request's arguments and returns the reply, or yields several. If it raises,
    the reply is {"error": text}, with "fatal" set if `is_healthy` then says that the process can do
    no more: after a fault on the GPU every later call fails too.
    """
    # Libraries print to stdout as they like: only replies may reach the pipe.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        command, arguments = json.loads(line)
        for reply in _answers(handlers, command, arguments, is_healthy):
            print(json.dumps(reply), file=replies, flush=True)


def _answers(
    handlers: Mapping[str, Handler],
    command: str,
    arguments: Message,
    is_healthy: Callable[[], bool],
) -> Iterator[Message]:
    try:
        result = handlers[command](**arguments)
        if isinstance(result, dict):
            yield result
        else:
            yield from result
            yield {"done": True}
    except Exception as error:
        traceback.print_exc()
        yield {"error": describe(error), "fatal": not is_healthy(), "done": True}


def describe(error: BaseException, limit: int = 500) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:limit]


def log(text: str) -> None:
    """Tells the user how far we are."""
    print(text, file=sys.stderr, flush=True)
