"""The transpose table: our kernel beside torch's copy, and beside a copy that turns nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import results
from benchmarks.children import Message, log
from benchmarks.monitor import Monitor, smi, summarise
from benchmarks.problems import HBM_BYTES_PER_US
from benchmarks.worker import describe_gpu
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.kernels.transpose import k_major, mn_major
from deep_gemm.testing.bench import host_time, profile_kernels
from deep_gemm.testing.numeric import assert_bitwise_equal

DATA_SHEET_BYTES_PER_US = 3.35e6
"""HBM of an H100 SXM, which no copy reaches."""

METHOD = (
    "kernel time by the CUDA profiler, L2 flushed before each call, variants in turn in one"
    " process, median over passes of each pass's median; spread is (max - min) / median of the"
    " passes; bytes are those of source and output, each once; hbm_share is of 3.35 TB/s; copy is"
    " torch's copy_ between tensors of one layout; host time is the median call with a shallow"
    " queue"
)


@dataclass(frozen=True)
class Problem:
    """A row-major source [rows, columns], FP8 or FP32."""

    rows: int
    columns: int
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        return 2 * self.rows * self.columns * self.dtype.itemsize

    def source(self) -> torch.Tensor:
        generator = torch.Generator("cuda").manual_seed(self.rows + self.columns)
        shape = (self.rows, self.columns * self.dtype.itemsize)
        return torch.randint(
            0, 256, shape, generator=generator, device="cuda", dtype=torch.uint8
        ).view(self.dtype)


PROBLEMS = (
    Problem(4096, 7168, torch.float8_e4m3fn),
    Problem(7168, 16384, torch.float8_e4m3fn),
    Problem(32768, 7168, torch.float8_e4m3fn),
    Problem(7168, 512, torch.float32),
    Problem(131072, 56, torch.float32),
    Problem(524288, 56, torch.float32),
)


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
    budget: float = 15.0
    commit: str = "unknown"


Calls = dict[str, Callable[[], object]]


def variants(problem: Problem) -> Calls:
    """Ours, torch's and the plain copy, after a check that the first two agree to the bit."""
    x = problem.source()
    straight = torch.empty_like(x)

    def ours() -> torch.Tensor:
        return mn_major(x).T if problem.dtype == torch.float32 else k_major("x", x.T)

    assert_bitwise_equal(ours(), x.T.contiguous(), f"transpose of {problem}")
    return {
        "ours": ours,
        "torch": lambda: x.T.contiguous(),
        "copy": lambda: straight.copy_(x),
    }


def row_of(problem: Problem, us: dict[str, list[float]], host_us: float) -> Message:
    """A row of the result file, from the median of each pass."""
    medians = {variant: statistics.median(passes) for variant, passes in us.items()}
    row: Message = {
        "table": "transpose",
        "rows": problem.rows,
        "columns": problem.columns,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "bytes": problem.num_bytes,
    }
    row.update({f"{variant}_us": round(us, 3) for variant, us in medians.items()})
    row["floor_us"] = round(problem.num_bytes / HBM_BYTES_PER_US, 3)
    row["hbm_share"] = {
        variant: round(problem.num_bytes / us / DATA_SHEET_BYTES_PER_US, 4)
        for variant, us in medians.items()
    }
    row["host_us"] = round(host_us, 3)
    row["spread"] = {variant: round(results.spread(us), 4) for variant, us in us.items()}
    return row


def measure(options: Options) -> list[Message]:
    """The rows of the table."""
    deadline = time.monotonic() + options.budget
    calls = {problem: variants(problem) for problem in PROBLEMS}
    keys = [(problem, variant) for problem in PROBLEMS for variant in calls[problem]]
    us: dict[Problem, dict[str, list[float]]] = {
        problem: {variant: [] for variant in calls[problem]} for problem in PROBLEMS
    }
    for index in range(options.passes):
        if index and time.monotonic() > deadline:
            log(f"out of time: {index} of {options.passes} passes")
            break
        times = profile_kernels([calls[problem][name] for problem, name in keys], options.repeats)
        for (problem, variant), sample in zip(keys, times, strict=True):
            us[problem][variant].append(statistics.median(sample))
    return [row_of(problem, us[problem], host_time(calls[problem]["ours"])) for problem in PROBLEMS]


def run(options: Options) -> Path:
    """Measures the table and writes the result file."""
    gpu = describe_gpu()
    monitor = Monitor()
    monitor.start(gpu["uuid"])
    with monitor.sampling() as samples:
        rows = measure(options)
    summary = summarise(samples)
    compiler = select_compiler()
    document = {
        "commit": options.commit,
        "date": results.utc_date(),
        "gpu": gpu["gpu"],
        "driver": smi("driver_version", gpu["uuid"]) or None,
        "clock_mhz": summary.clock_mhz,
        "power_w": summary.power_w,
        "versions": {"torch": torch.__version__, compiler.name.lower(): compiler.version},
        "method": f"{METHOD}; {options.repeats} calls a pass",
        "rows": rows,
    }
    stem = f"transpose-{results.slug(gpu['gpu'])}-{results.utc_date()}"
    path = results.new_file(options.out, stem, ".json")
    results.write(path, document)
    return path


def render(document: Message) -> str:
    """The table as Markdown."""
    lines = [
        "| source | dtype | us | of HBM | torch, us | of HBM | copy, us | of HBM | host, us |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        times = " | ".join(
            f"{row[f'{variant}_us']:.1f} | {100 * share:.0f} %"
            for variant, share in row["hbm_share"].items()
        )
        size = f"{row['rows']} x {row['columns']}"
        lines.append(f"| {size} | {row['dtype']} | {times} | {row['host_us']:.1f} |")
    return "\n".join(lines)
