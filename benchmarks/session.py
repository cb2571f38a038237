"""A peer's process through a whole run: started again where a problem kills it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deep_gemm.tuning.children import Child, ChildDied, Message, log

HELLO_SECONDS = 90
PREPARE_SECONDS = 30
MEASURE_SECONDS = 90
MAX_RESTARTS = 3


@dataclass
class Session:
    """One peer.

    Attributes:
        name: for messages.
        arguments: of its child process.
        env: variables of its child process.
        folder: where that is started, and looks for modules first; None for ours.
        hello: what the child said of itself.
        ready: problems that can be timed, with the variants that passed.
        max_error: by (problem, variant).
        num_kernels: by (problem, variant), what one call launches.
        errors: why a (problem, variant), or with variant None a whole problem, has no time.
        dead: why the peer is given up, or None.
    """

    name: str
    arguments: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    folder: Path | None = None
    hello: Message = field(default_factory=dict)
    ready: dict[str, list[str]] = field(default_factory=dict)
    max_error: dict[tuple[str, str], float] = field(default_factory=dict)
    num_kernels: dict[tuple[str, str], int] = field(default_factory=dict)
    errors: dict[tuple[str, str | None], str] = field(default_factory=dict)
    dead: str | None = None
    _child: Child | None = None
    _num_starts: int = 0

    def start(self) -> None:
        """Starts the process, and makes it ready again for what was ready before."""
        self._num_starts += 1
        try:
            self._child = Child(*self.arguments, env=self.env, folder=self.folder)
            self.hello = self._child.ask("hello", HELLO_SECONDS)
            if "error" in self.hello:
                raise ChildDied(self.hello["error"])
            for problem in self.ready:
                _unless_broken(self._child.ask("prepare", PREPARE_SECONDS, name=problem))
        except ChildDied as error:
            self.hello = {}
            self._give_up(f"could not start: {error}")

    def prepare(self, problem: str) -> None:
        """Has a problem checked. One that kills the process is left out from then on."""
        if self.dead is not None:
            return
        reply = self.ask("prepare", PREPARE_SECONDS, name=problem)
        if "error" in reply:
            self.errors[problem, None] = reply["error"]
            log(f"{self.name}: {problem}: {reply['error']}")
            return
        for variant, text in reply["errors"].items():
            self.errors[problem, variant] = text
            log(f"{variant}: {problem}: {text}")
        for variant, error in reply["max_error"].items():
            self.max_error[problem, variant] = error
        self.ready[problem] = list(reply["max_error"])

    def measure(self, problems: Sequence[str], repeats: int) -> dict[str, dict[str, list[float]]]:
        """Microseconds by problem and variant; empty if that failed."""
        names = [problem for problem in problems if self.ready.get(problem)]
        if not names:
            return {}
        reply = self.ask("measure", MEASURE_SECONDS, names=names, repeats=repeats)
        if "error" in reply:
            log(f"{self.name}: a pass failed: {reply['error']}")
        for problem, counts in reply.get("num_kernels", {}).items():
            for variant, count in counts.items():
                self.num_kernels[problem, variant] = count
        us: dict[str, dict[str, list[float]]] = reply.get("us", {})
        return us

    def release(self) -> None:
        """Frees the memory of all problems, which cannot be timed any more."""
        self.ready.clear()
        if self.dead is None:
            self.ask("release", PREPARE_SECONDS)

    def ask(self, command: str, timeout: float, **arguments: object) -> Message:
        """A reply; {"error": text} also if the process died, which is then started again."""
        if self.dead is not None or self._child is None:
            return {"error": self.dead or "not started"}
        try:
            return _unless_broken(self._child.ask(command, timeout, **arguments))
        except ChildDied as error:
            self._restart(f"{command}: {error}")
            return {"error": f"{command}: {error}"}

    def close(self) -> None:
        """Ends the process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _restart(self, reason: str) -> None:
        log(f"{self.name}: {reason}")
        if self._num_starts > MAX_RESTARTS:
            self._give_up(f"gave up after {self._num_starts} starts, the last: {reason}")
            return
        self._kill()
        self.start()

    def _give_up(self, reason: str) -> None:
        log(f"{self.name}: {reason}")
        self.dead = reason
        self._kill()

    def _kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


def _unless_broken(reply: Message) -> Message:
    """The reply, unless it says that its sender's GPU context is lost."""
    if reply.get("fatal"):
        raise ChildDied(reply["error"])
    return reply
