"""What a GPU machine is asked to do: tests, benchmarks, sweeps. Run it there, from anywhere.

    python tools/gpu_jobs.py all --out results --wheels .whl

Every stage runs in a process group of its own, under a limit of its own: one that hangs is killed
and the next begins. Its output goes to a log in --out, where results appear as they are measured.
The exit code is 0 only if every stage succeeded.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Ignored by git, and kept where a later run may find it.
SCRATCH = ROOT / "build" / "gpu"
PEER = SCRATCH / "peer"
SITE = SCRATCH / "site"
PEER_WHEELS = ("sgl_deep_gemm-", "apache_tvm_ffi-")

JOBS = ("tests", "bench", "bench-grouped", "sweep", "all")
# What a benchmark needs after its budget, to finish the step it is at and to write.
MARGIN_SECONDS = 60
GRACE_SECONDS = 10
HUNG_TEST_SECONDS = 60


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: of the job; stages of one name share a log.
        title: what it is, in the summary.
        command: its arguments.
        seconds: until it is killed.
        num_lines: how much of the end of its output is shown.
    """

    name: str
    title: str
    command: tuple[str, ...]
    seconds: float
    num_lines: int = 15


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


def main(argv: list[str]) -> int:
    arguments = parse(argv)
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    # A stage must not outlive us: being asked to stop is an exception like any other.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    deadline = time.monotonic() + arguments.limit
    outcomes: list[Outcome] = []
    for stage in [*setup_stages(arguments.wheels), *job_stages(arguments, out)]:
        outcomes.append(run(stage, out / f"{stage.name}.log", deadline - time.monotonic()))
        summary = [asdict(outcome) for outcome in outcomes]
        (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print("\n" + "\n".join(f"{o.stage:<30}{o.seconds:>7.0f} s  {o.text}" for o in outcomes))
    return 0 if all(outcome.exit_code == 0 for outcome in outcomes) else 1


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("jobs", nargs="+", choices=JOBS)
    parser.add_argument("--out", type=Path, required=True, help="folder of logs and results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--commit", help="for the result files, where there is no repository")
    parser.add_argument("--limit", type=float, default=3600, help="seconds for all stages")
    parser.add_argument("--bench", type=float, default=480, help="seconds for the dense table")
    parser.add_argument("--grouped", type=float, default=150, help="seconds for the grouped tables")
    parser.add_argument("--sweep", type=float, default=480, help="seconds for the sweep")
    parser.add_argument("--rows", nargs="+", default=[], help="only these: 16x2112x7168, 16x*x*")
    parser.add_argument("--grouped-rows", nargs="+", default=[], help="only these: masked, wgrad-*")
    return parser.parse_args(argv)


def setup_stages(wheels: Path | None) -> list[Stage]:
    """Installs the wheels. The reference goes into a folder apart, since it has our import name."""
    if wheels is None:
        return []
    files = sorted(wheels.resolve().glob("*.whl"))
    peer = [file for file in files if file.name.startswith(PEER_WHEELS)]
    rest = [file for file in files if file not in peer]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    return [
        Stage("setup", f"install {folder.name}", (*pip, *options(folder), *map(str, some)), 120)
        for folder, some in ((PEER, peer), (SITE, rest))
        if some
    ]


def options(folder: Path) -> tuple[str, ...]:
    return ("--no-cache-dir", "--upgrade", "--target", str(folder))


def job_stages(arguments: argparse.Namespace, out: Path) -> list[Stage]:
    """The stages of the asked jobs, each job once."""
    wanted = dict.fromkeys(arguments.jobs)
    if "all" in wanted:
        wanted = dict.fromkeys(JOBS[:-1])
    commit = ("--commit", arguments.commit) if arguments.commit else ()
    rows = ("--rows", *arguments.rows) if arguments.rows else ()
    grouped_rows = ("--rows", *arguments.grouped_rows) if arguments.grouped_rows else ()
    peer = ("--peer-path", str(PEER)) if PEER.is_dir() or arguments.wheels else ()
    shared = ("--out", str(out), *commit)
    stages: list[Stage] = []
    for job in wanted:
        if job == "tests":
            stages += test_stages(sorted((ROOT / "tests" / "gpu").glob("test_*.py")))
        elif job == "bench":
            extra = (*shared, *rows, *peer)
            stages.append(benchmark(job, "dense", extra, arguments.bench, 120))
        elif job == "bench-grouped":
            extra = (*shared, *grouped_rows, *peer)
            stages.append(benchmark(job, "grouped", extra, arguments.grouped, 80))
        else:
            stages.append(benchmark(job, "sweep", (*shared, *rows), arguments.sweep, 60))
    return stages


def test_stages(files: Iterable[Path]) -> list[Stage]:
    """One stage per file: a kernel that hangs takes the process along, but not the other files."""
    pytest = (
        *(sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider"),
        *("-o", f"faulthandler_timeout={HUNG_TEST_SECONDS}"),
    )
    return [Stage("tests", f"tests {file.stem}", (*pytest, str(file)), 240) for file in files]


def benchmark(
    name: str, verb: str, extra: tuple[str, ...], seconds: float, num_lines: int
) -> Stage:
    """`--budget` comes last: `run` may shorten it."""
    command = (sys.executable, "-m", "benchmarks", verb, *extra, "--budget", str(seconds))
    return Stage(name, f"{name} {verb}", command, seconds + MARGIN_SECONDS, num_lines)


def fit(stage: Stage, seconds_left: float) -> tuple[tuple[str, ...], float]:
    """The stage's command and limit in the time that is left."""
    limit = min(stage.seconds, seconds_left)
    command = stage.command
    if "--budget" in command:
        budget = max(1.0, limit - MARGIN_SECONDS)
        command = (*command[:-1], f"{budget:.0f}")
    return command, limit


def run(stage: Stage, log: Path, seconds_left: float) -> Outcome:
    """Runs one stage to its end or its limit, and shows the end of what it wrote."""
    command, limit = fit(stage, seconds_left)
    if limit <= 0:
        return Outcome(stage.title, None, 0.0)
    print(f"== {stage.title}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    timed_out = False
    with log.open("ab") as file:
        begin = file.tell()
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
            preexec_fn=os.setpgrp,
        )
        try:
            exit_code = process.wait(limit)
        except subprocess.TimeoutExpired:
            timed_out, exit_code = True, None
        finally:
            stop_group(process)
    show_end(log, begin, stage.num_lines)
    return Outcome(stage.title, exit_code, round(time.monotonic() - start, 1), timed_out)


def environment() -> dict[str, str]:
    paths = [str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])]
    cache = str(SCRATCH / "cache")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "DG_JIT_CACHE_DIR": cache,
        "DG_TEST_CACHE_DIR": cache,
    }


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


def show_end(log: Path, begin: int, num_lines: int) -> None:
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    print("\n".join(lines[-num_lines:]), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
