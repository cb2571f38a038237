"""The result file: what was measured, where, and with which versions."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.problems import parse
from deep_gemm.config.tuned_file import slug
from deep_gemm.tuning.children import Message

ROOT = Path(__file__).resolve().parents[1]

METHOD = (
    "kernel time by the CUDA profiler, all kernels of a call together, the GPU idle for 4 ms and L2"
    " flushed before each call, operands torch.randn in rotation, peers in turn (one process each),"
    " median over passes of each pass's median; spread is (max - min) / median of the passes; host"
    " time is the median call with a shallow queue; sustained is back to back by CUDA events; the"
    " reference with compiled_dims='nk'"
)


@dataclass
class Report:
    """Everything measured so far; `document` can be written at any time.

    Attributes:
        header: the fields above `rows`.
        us: by (table, problem name) and variant, one median per pass.
        extra: by (table, problem name), further fields of a row.
        others: rows that are complete as they come.
    """

    header: Message = field(default_factory=dict)
    us: dict[tuple[str, str], dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    extra: dict[tuple[str, str], Message] = field(default_factory=lambda: defaultdict(dict))
    others: list[Message] = field(default_factory=list)

    def add(self, table: str, problem: str, medians: Mapping[str, float]) -> None:
        """One pass's microseconds of a problem, by variant."""
        for variant, us in medians.items():
            self.us[table, problem][variant].append(us)

    def document(self) -> Message:
        """The result file's object."""
        keys = dict.fromkeys([*self.extra, *self.us])
        return {**self.header, "rows": [self._row(*key) for key in keys] + self.others}

    def _row(self, table: str, name: str) -> Message:
        problem = parse(name)
        row: Message = {"table": table, **problem.fields}
        row.update(self.extra.get((table, name), {}))
        passes = self.us.get((table, name), {})
        for variant, us in passes.items():
            row[f"{variant}_us"] = round(statistics.median(us), 3)
        if table != "host":
            row["floor_us"] = round(problem.floor_us, 3)
        row["spread"] = {variant: round(spread(us), 4) for variant, us in passes.items()}
        return row


def spread(us: Sequence[float]) -> float:
    """How far apart some times of one thing lie, as a share of their median."""
    return (max(us) - min(us)) / statistics.median(us)


def utc_date() -> str:
    """Today, as file names and result files have it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%d")


def new_file(folder: Path, stem: str, suffix: str) -> Path:
    """A path in the folder that no earlier run has used: results are history."""
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path


def write(path: Path, document: Any) -> None:
    """Replaces the file as a whole, so that a run which is killed leaves the last complete one."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def write_new(folder: Path, table: str, document: Message) -> Path:
    """Writes the result of one run under a name of its own: table, GPU and date."""
    path = new_file(folder, f"{table}-{slug(document['gpu'])}-{document['date']}", ".json")
    write(path, document)
    return path


def describe_commit(checkout: Path = ROOT) -> str:
    """A checkout's commit, with `-dirty` if it was changed; `unknown` without a repository."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
