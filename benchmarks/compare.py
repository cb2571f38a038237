"""Checkouts of this library beside each other, in one run: `python -m benchmarks compare`.

What a change is worth is seen only beside the version before it, on the same GPU in the same
minutes. `git worktree add FOLDER REVISION` makes a checkout of any revision; a change to be tried
is an edit in a copy. Each checkout is measured by its own worker, in a process of its own, in turn.
"""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from benchmarks import results
from benchmarks.monitor import Monitor, describe_run
from benchmarks.problems import AnyProblem
from benchmarks.session import Session
from deep_gemm.config.tuned_file import slug
from deep_gemm.tuning.children import Message, log

WORKER = "benchmarks.worker"

METHOD = (
    "kernel time by the CUDA profiler, the GPU idle for 4 ms and L2 flushed before each call,"
    " checkouts in turn (one process each), median over passes of each pass's median; what is"
    " compared is `ours` of each"
)

Key = tuple[str, str]
"""A row's name and a variant of it: ours, or ours with another layout."""


@dataclass(frozen=True)
class Options:
    """What to compare.

    Attributes:
        out: folder of the result file.
        folders: the checkouts; the first is what the others are compared with.
        problems: rows of the dense and of the grouped tables.
        passes: over all rows of a table.
        repeats: calls of each row in a pass.
        budget: seconds after which no further pass is begun.
    """

    out: Path
    folders: Sequence[Path]
    problems: Sequence[AnyProblem]
    passes: int = 5
    repeats: int = 7
    budget: float = 200.0


def names_of(folders: Sequence[Path]) -> list[str]:
    """A short name for each: that of the folder, or its path where that is not enough.

    Raises:
        ValueError: one is no checkout, or named twice.
    """
    paths = [folder.resolve() for folder in folders]
    for path in paths:
        if not (path / "benchmarks" / "worker.py").is_file():
            raise ValueError(f"a checkout has benchmarks/worker.py, got {path}")
        if paths.count(path) > 1:
            raise ValueError(f"a checkout must be named once, got {path} twice")
    short = [path.name for path in paths]
    return [path.name if short.count(path.name) == 1 else str(path) for path in paths]


def measure_table(
    sessions: Sequence[Session], problems: Sequence[AnyProblem], options: Options, deadline: float
) -> dict[Key, dict[str, float]]:
    """Microseconds by row, variant and checkout, of rows that fit into the memory together."""
    names = [problem.name for problem in problems]
    for session in sessions:
        for name in names:
            session.prepare(name)
    us: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for count in range(options.passes):
        if time.monotonic() > deadline:
            log(f"out of time: {count} of {options.passes} passes")
            break
        for session in sessions:
            for name, variants in session.measure(names, options.repeats).items():
                for variant, times in variants.items():
                    us[name, variant][session.name].append(statistics.median(times))
    for session in sessions:
        session.release()
    return {
        key: {name: statistics.median(passes) for name, passes in of.items()}
        for key, of in us.items()
    }


def run(options: Options) -> Path:
    """Compares, and writes the result file, anew after each table.

    Raises:
        RuntimeError: a checkout's worker could not be started.
        ValueError: as in `names_of`.
    """
    names = names_of(options.folders)
    deadline = time.monotonic() + options.budget
    tables = [list(rows) for _, rows in groupby(options.problems, lambda row: row.table)]
    with started_sessions(names, options.folders) as sessions:
        gpu = sessions[0].hello
        date = results.utc_date()
        path = results.new_file(options.out, f"compare-{slug(gpu['gpu'])}-{date}", ".json")
        found: dict[Key, dict[str, float]] = {}
        monitor = Monitor()
        monitor.start(gpu["uuid"])
        with monitor.sampling() as samples:
            for table in tables:
                found.update(measure_table(sessions, table, options, deadline))
                state = describe_run(gpu["gpu"], gpu["uuid"], samples)
                results.write(path, {"date": date, **state, **report(options, sessions, found)})
    return path


@contextmanager
def started_sessions(names: Sequence[str], folders: Sequence[Path]) -> Iterator[list[Session]]:
    """A worker of each checkout, each with a kernel cache of its own.

    Raises:
        RuntimeError: one could not be started.
    """
    sessions: list[Session] = []
    with tempfile.TemporaryDirectory(prefix="deep_gemm_", ignore_cleanup_errors=True) as caches:
        try:
            for name, folder in zip(names, folders, strict=True):
                cache = {"DG_JIT_CACHE_DIR": str(Path(caches) / str(len(sessions)))}
                session = Session(name, (WORKER, "ours"), env=cache, folder=folder.resolve())
                sessions.append(session)
                session.start()
                if session.dead is not None:
                    raise RuntimeError(f"{session.name}: {session.dead}")
            yield sessions
        finally:
            for session in sessions:
                session.close()


def report(
    options: Options, sessions: Sequence[Session], found: Mapping[Key, dict[str, float]]
) -> Message:
    """What a result file says of the checkouts, and the rows that there are."""
    names = [session.name for session in sessions]
    commits = map(results.describe_commit, options.folders)
    return {
        "method": f"{METHOD}; {options.repeats} calls a pass",
        "checkouts": names,
        "commits": dict(zip(names, commits, strict=True)),
        "errors": {
            f"{session.name}: {row}": text
            for session in sessions
            for (row, _), text in session.errors.items()
        },
        "rows": [
            {"table": "compare", "problem": row, "variant": variant, "us": us}
            for (row, variant), us in found.items()
        ],
    }


def render(document: Message) -> str:
    """The table as Markdown: the first checkout's time, what the others take of it, and their
    geometric means."""
    base, *others = document["checkouts"]
    lines = [
        f"| row | {base}, us | {' | '.join(others)} |",
        f"| --- | {'---: | ' * (len(others) + 1)}".rstrip(),
    ]
    ratios: dict[str, list[float]] = {name: [] for name in others}
    for row in document["rows"]:
        us = row["us"]
        if base not in us:
            continue
        cells = []
        for name in others:
            if name in us:
                ratios[name].append(us[name] / us[base])
            cells.append(f"{us[name] / us[base]:.3f}" if name in us else "-")
        name = f"{row['problem']} {row['variant']}"
        lines.append(f"| {name} | {us[base]:.1f} | {' | '.join(cells)} |")
    means = [
        f"{math.exp(statistics.fmean(map(math.log, of))):.3f}" if of else "-"
        for of in ratios.values()
    ]
    lines.append(f"| geometric mean | | {' | '.join(means)} |")
    lines += [f"\n{what}: {text}" for what, text in document["errors"].items()]
    return "\n".join(lines)
