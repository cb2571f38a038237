"""Commands under limits, each in a process group of its own, one by one or side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# What a benchmark needs after its budget, to finish the step it is at and to write.
MARGIN_SECONDS = 60
GRACE_SECONDS = 10
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the job; stages of one name share a log.
        title: what it is, in the summary; each has another.
        command: its arguments.
        seconds: until it is killed.
        num_lines: how much of the end of its output is shown.
        is_alone: nothing may run beside it.
    """

    name: str
    title: str
    command: tuple[str, ...]
    seconds: float
    num_lines: int = 15
    is_alone: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a stage went; `exit_code` is None if it was killed or never begun."""

    stage: str
    exit_code: int | None
    seconds: float
    timed_out: bool = False

    @property
    def text(self) -> str:
        if self.timed_out:
            return "TIMED OUT"
        if self.exit_code is None:
            return "no time left"
        return "ok" if self.exit_code == 0 else f"FAILED ({self.exit_code})"


def run_all(
    stages: Iterable[Stage],
    out: Path,
    seconds: float,
    jobs: int = 1,
    env: Mapping[str, str] | None = None,
) -> list[Outcome]:
    """Runs stages, which begin in their order.

    Args:
        stages: what to run.
        out: folder of their logs, and of summary.json, which has all that have ended.
        seconds: for all of them; those that could not begin until then have no exit code.
        jobs: how many of those that need not be alone run at a time.
        env: their environment; by default ours.

    Returns:
        How they went, in the order in which they ended.
    """
    deadline = time.monotonic() + seconds
    waiting = deque(stages)
    running: list[Running] = []
    outcomes: list[Outcome] = []
    try:
        while waiting or running:
            while waiting and may_begin(waiting[0], running, jobs):
                stage, left = waiting.popleft(), deadline - time.monotonic()
                if left > 0:
                    running.append(Running(stage, out, left, env))
                else:
                    outcomes.append(Outcome(stage.title, None, 0.0))
            over = [one for one in running if one.is_over]
            outcomes += [one.finish() for one in over]
            running = [one for one in running if one not in over]
            summary = [asdict(outcome) for outcome in outcomes]
            (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
            if running:
                time.sleep(POLL_SECONDS)
    finally:
        for one in running:
            one.stop()
    return outcomes


def may_begin(stage: Stage, running: Sequence[Running], jobs: int) -> bool:
    if not running:
        return True
    is_any_alone = stage.is_alone or any(one.stage.is_alone for one in running)
    return len(running) < jobs and not is_any_alone


class Running:
    """A stage that has begun. It writes a log of its own, which joins that of its job at the end:
    lines of stages side by side do not mix."""

    def __init__(
        self, stage: Stage, out: Path, seconds_left: float, env: Mapping[str, str] | None
    ) -> None:
        self.stage = stage
        self._job_log = out / f"{stage.name}.log"
        self._log = out / f"{stage.title.replace(' ', '-')}.part.log"
        command, limit = fit(stage, seconds_left)
        print(f"== {stage.title}: {' '.join(command)}", flush=True)
        self._begin = time.monotonic()
        self._end = self._begin + limit
        with self._log.open("wb") as file:
            self._process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=env,
                preexec_fn=os.setpgrp,
            )

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or must."""
        return self._process.poll() is not None or time.monotonic() >= self._end

    def finish(self) -> Outcome:
        """Ends what is left of it, and shows the end of what it wrote."""
        exit_code = self._process.poll()
        lines = self.stop().decode(errors="replace").splitlines()
        seconds = round(time.monotonic() - self._begin, 1)
        print(f"-- {self.stage.title}:", *lines[-self.stage.num_lines :], sep="\n", flush=True)
        return Outcome(self.stage.title, exit_code, seconds, timed_out=exit_code is None)

    def stop(self) -> bytes:
        """Ends what is left of it, and puts its log behind the job's.

        Returns:
            What it wrote; nothing if that has been done before.
        """
        stop_group(self._process)
        if not self._log.exists():
            return b""
        text = self._log.read_bytes()
        with self._job_log.open("ab") as file:
            file.write(text)
        self._log.unlink()
        return text


def fit(stage: Stage, seconds_left: float) -> tuple[tuple[str, ...], float]:
    """The stage's command and limit in the time that is left."""
    limit = min(stage.seconds, seconds_left)
    command = stage.command
    if "--budget" in command:
        budget = max(1.0, limit - MARGIN_SECONDS)
        command = (*command[:-1], f"{budget:.0f}")
    return command, limit


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """Ends what is left of the stage: asks first, so that pytest can still say what it saw."""
    if process.poll() is None:
        signal_group(process, signal.SIGINT)
        wait(process)
    signal_group(process, signal.SIGKILL)
    wait(process)


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def wait(process: subprocess.Popen[bytes]) -> None:
    """Not for ever: a process that waits for its driver cannot even be killed."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
