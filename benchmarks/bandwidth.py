"""Tables of kernels that only move memory: time and share of HBM, beside torch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from benchmarks import results
from benchmarks.monitor import Monitor, describe_run
from benchmarks.problems import HBM_BYTES_PER_US
from benchmarks.worker import describe_gpu
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.testing.bench import host_time, profile_kernels
from deep_gemm.tuning.children import Message, log

DATA_SHEET_BYTES_PER_US = 3.35e6
"""HBM of an H100 SXM, which no copy reaches."""

METHOD = (
    "kernel time by the CUDA profiler, the GPU idle for 4 ms and L2 flushed before each call,"
    " variants in turn in one process, median over passes of each pass's median; spread is"
    " (max - min) / median of the passes; bytes are those of source and output, each once;"
    " hbm_share is of 3.35 TB/s; copy is torch's copy_ that moves as many bytes; eager and compiled"
    " are PyTorch's definition of a cast, of all rows and row-major; host time is the median call"
    " with a shallow queue"
)

Calls = dict[str, Callable[[], object]]
"""By variant: ours, and what it is compared with."""


class Problem(Protocol):
    """A row of a table."""

    @property
    def num_bytes(self) -> int:
        """Bytes that have to be read and written."""

    def variants(self, device: str = "cuda") -> Calls:
        """Ours first, and the others, after a check that those that must agree to the bit do."""


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        out: folder of the result file.
        passes: over the whole table.
        repeats: calls of each variant in a pass.
        budget: seconds after which no further pass is begun.
        commit: what is measured.
    """

    out: Path
    passes: int = 5
    repeats: int = 7
    budget: float = 45.0
    commit: str = "unknown"


def copy_of(num_bytes: int, device: str) -> Callable[[], object]:
    """torch's copy that reads and writes so many bytes together."""
    source = torch.empty(num_bytes // 2, dtype=torch.uint8, device=device).random_()
    out = torch.empty_like(source)
    return lambda: out.copy_(source)


def row_of(table: str, problem: Problem, us: dict[str, list[float]], host_us: float) -> Message:
    """A row of the result file, from the median of each pass."""
    medians = {variant: statistics.median(passes) for variant, passes in us.items()}
    row: Message = {"table": table, "problem": str(problem), "bytes": problem.num_bytes}
    row.update({f"{variant}_us": round(us, 3) for variant, us in medians.items()})
    row["floor_us"] = round(problem.num_bytes / HBM_BYTES_PER_US, 3)
    row["hbm_share"] = {
        variant: round(problem.num_bytes / us / DATA_SHEET_BYTES_PER_US, 4)
        for variant, us in medians.items()
    }
    row["host_us"] = round(host_us, 3)
    row["spread"] = {variant: round(results.spread(us), 4) for variant, us in us.items()}
    return row


def measure(table: str, problems: Sequence[Problem], options: Options) -> list[Message]:
    """The rows of a table."""
    deadline = time.monotonic() + options.budget
    calls = [problem.variants() for problem in problems]
    keys = [(index, variant) for index, of_problem in enumerate(calls) for variant in of_problem]
    us: list[dict[str, list[float]]] = [{name: [] for name in names} for names in calls]
    for count in range(options.passes):
        if count and time.monotonic() > deadline:
            log(f"out of time: {count} of {options.passes} passes")
            break
        times = profile_kernels([calls[index][name] for index, name in keys], options.repeats)
        for (index, variant), sample in zip(keys, times, strict=True):
            us[index][variant].append(statistics.median(sample))
    return [
        row_of(table, problem, us[index], host_time(calls[index]["ours"]))
        for index, problem in enumerate(problems)
    ]


def run(table: str, problems: Sequence[Problem], options: Options) -> Path:
    """Measures a table and writes the result file."""
    gpu = describe_gpu()
    monitor = Monitor()
    monitor.start(gpu["uuid"])
    with monitor.sampling() as samples:
        rows = measure(table, problems, options)
    compiler = select_compiler()
    document = {
        "commit": options.commit,
        "date": results.utc_date(),
        **describe_run(gpu["gpu"], gpu["uuid"], samples),
        "versions": {"torch": torch.__version__, compiler.name.lower(): compiler.version},
        "method": f"{METHOD}; {options.repeats} calls a pass",
        "rows": rows,
    }
    return results.write_new(options.out, table, document)


def render(document: Message) -> str:
    """The table as Markdown."""
    rows = document["rows"]
    variants = dict.fromkeys(variant for row in rows for variant in row["hbm_share"])
    heads = " | ".join(f"{variant}, us | of HBM" for variant in variants)
    lines = [
        f"| problem | {heads} | host, us |",
        f"| --- | {'---: | ' * (2 * len(variants))}---: |",
    ]
    for row in rows:
        times = " | ".join(
            f"{row[f'{variant}_us']:.1f} | {100 * row['hbm_share'][variant]:.0f} %"
            if variant in row["hbm_share"]
            else "- | -"
            for variant in variants
        )
        lines.append(f"| {row['problem']} | {times} | {row['host_us']:.1f} |")
    return "\n".join(lines)
