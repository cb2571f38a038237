"""The quantise table: our casting kernels beside PyTorch's eager and compiled definitions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo

from benchmarks import results
from benchmarks.bandwidth import DATA_SHEET_BYTES_PER_US
from benchmarks.children import Message, log
from benchmarks.monitor import Monitor, smi, summarise
from benchmarks.worker import describe_gpu
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.quantize import (
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_swiglu,
)
from deep_gemm.testing.bench import host_time, profile_kernels
from deep_gemm.testing.numeric import assert_bitwise_equal
from deep_gemm.testing.quantize_reference import cast_blocks_reference, silu_mul_reference

METHOD = (
    "kernel time by the CUDA profiler, L2 flushed before each call, variants in turn in one"
    " process, median over passes of each pass's median; spread is (max - min) / median of the"
    " passes; bytes are those of valid input, data and scale factors, each once; hbm_share is of"
    " 3.35 TB/s; eager and compiled are the definition in deep_gemm/testing, without a layout for"
    " the GEMM and of all rows, groups or not; host time is the median call with a shallow queue"
)

BF16, FP32 = torch.bfloat16, torch.float32
NUM_GROUPS = 32

Pair = tuple[torch.Tensor, torch.Tensor]
Calls = dict[str, Callable[[], Pair]]


@dataclass(frozen=True)
class Problem:
    """A cast of [m, n].

    Attributes:
        kind: per_token, per_channel, per_block, swiglu (of [m, 2 * n]); masked, masked_swiglu and
            row_ids, the layouts of grouped GEMMs.
        m, n: of the result.
        dtype: of the input.
        use_ue8m0: scale factors are powers of two; packed, where the kernel can.
        valid: rows that are cast, in groups of one size; None for all.
    """

    kind: str
    m: int
    n: int
    dtype: torch.dtype = BF16
    use_ue8m0: bool = False
    valid: int | None = None

    @property
    def multiplies(self) -> bool:
        return self.kind.endswith("swiglu")

    @property
    def num_rows(self) -> int:
        """Rows that are cast."""
        return self.m if self.valid is None else self.valid

    @property
    def num_bytes(self) -> int:
        """What has to be moved."""
        block = 128 * 128 if self.kind == "per_block" else 128
        sf_bytes = 1 if self.packed else 4
        read = (2 if self.multiplies else 1) * self.dtype.itemsize
        return self.num_rows * self.n * (read + 1) + self.num_rows * self.n // block * sf_bytes

    @property
    def packed(self) -> bool:
        """Whether the kernel packs the scale factors."""
        return self.use_ue8m0 and self.kind not in ("per_channel", "per_block")

    def input(self) -> torch.Tensor:
        generator = torch.Generator("cuda").manual_seed(self.m + self.n)
        width = 2 * self.n if self.multiplies else self.n
        x = torch.empty(self.m, width, dtype=self.dtype, device="cuda")
        return x.normal_(generator=generator)


PROBLEMS = (
    Problem("per_token", 128, 7168),
    Problem("per_token", 4096, 7168),
    Problem("per_token", 16384, 7168),
    Problem("per_token", 16384, 7168, use_ue8m0=True),
    Problem("per_token", 16384, 7168, FP32),
    Problem("per_token", 131072, 2048),
    Problem("per_channel", 16384, 7168),
    Problem("per_channel", 16384, 7168, FP32),
    Problem("per_block", 16384, 7168),
    Problem("per_block", 16384, 7168, FP32),
    Problem("swiglu", 16384, 2048),
    Problem("swiglu", 32768, 7168),
    Problem("masked", 131072, 7168, valid=131072),
    Problem("masked", 131072, 7168, valid=1024),
    Problem("masked_swiglu", 131072, 2048, valid=32768),
    Problem("masked_swiglu", 131072, 2048, valid=0),
    Problem("row_ids", 65536, 7168, valid=16384),
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
    budget: float = 45.0
    commit: str = "unknown"


def definition(problem: Problem, x: torch.Tensor) -> Pair:
    """The definition's result."""
    y = silu_mul_reference(*x.chunk(2, dim=1)) if problem.multiplies else x
    blocks = {"per_channel": (128, 1), "per_block": (128, 128)}.get(problem.kind, (1, 128))
    return cast_blocks_reference(y, *blocks, problem.use_ue8m0)


def ours(problem: Problem, x: torch.Tensor) -> Callable[[], Pair]:
    """Our call, as an engine makes it: scale factors in the GEMM's layout, groups on the device."""
    if problem.kind == "per_channel":
        return lambda: quantize_per_channel(x, use_ue8m0=problem.use_ue8m0)
    if problem.kind == "per_block":
        return lambda: quantize_per_block(x, use_ue8m0=problem.use_ue8m0)
    cast = quantize_swiglu if problem.multiplies else quantize_per_token
    formats = {"use_ue8m0": problem.use_ue8m0, "use_packed_ue8m0": problem.packed}
    if problem.kind.startswith("masked"):
        counts = torch.full((NUM_GROUPS,), problem.num_rows // NUM_GROUPS, dtype=torch.int32)
        masked_m, grouped = counts.cuda(), x.view(NUM_GROUPS, -1, x.shape[1])
        return lambda: cast(grouped, masked_m=masked_m, **formats)
    if problem.kind == "row_ids":
        ids = torch.full((problem.m,), -1, dtype=torch.int32, device="cuda")
        ids[: problem.num_rows] = torch.arange(problem.num_rows, device="cuda").int() // 512
        return lambda: cast(x, grouped_layout=ids, **formats)
    return lambda: cast(x, **formats)


def variants(problem: Problem) -> Calls:
    """Ours and, of whole matrices, the definition's two, after a check that casts agree."""
    x = problem.input()
    calls = {"ours": ours(problem, x)}
    if problem.kind in ("per_token", "per_channel", "per_block", "swiglu"):
        # Kept per function: one for every problem, and no fall-back to the eager one.
        torch._dynamo.config.cache_size_limit = 2 * len(PROBLEMS)
        compiled = torch.compile(definition, dynamic=False, fullgraph=True)
        calls["eager"] = lambda: definition(problem, x)
        calls["compiled"] = lambda: compiled(problem, x)
    if "eager" in calls and not problem.multiplies:
        (data, sf), (wanted, factors) = calls["ours"](), calls["eager"]()
        assert_bitwise_equal(data, wanted, f"data of {problem}")
        if not problem.packed:
            assert_bitwise_equal(sf, factors, f"scale factors of {problem}")
    return calls


def row_of(problem: Problem, us: dict[str, list[float]], host_us: float) -> Message:
    """A row of the result file, from the median of each pass."""
    medians = {variant: statistics.median(passes) for variant, passes in us.items()}
    row: Message = {
        "table": "quantize",
        "kind": problem.kind,
        "m": problem.m,
        "n": problem.n,
        "rows": problem.num_rows,
        "dtype": str(problem.dtype).removeprefix("torch."),
        "use_ue8m0": problem.use_ue8m0,
        "bytes": problem.num_bytes,
    }
    row.update({f"{variant}_us": round(us, 3) for variant, us in medians.items()})
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
    stem = f"quantize-{results.slug(gpu['gpu'])}-{results.utc_date()}"
    path = results.new_file(options.out, stem, ".json")
    results.write(path, document)
    return path


def render(document: Message) -> str:
    """The table as Markdown."""
    lines = [
        "| cast | m x n | rows | dtype | MB | us | of HBM | eager, us | compiled, us | host, us |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in document["rows"]:
        kind = f"{row['kind']}, UE8M0" if row["use_ue8m0"] else row["kind"]
        others = [
            f"{row[f'{variant}_us']:.1f}" if f"{variant}_us" in row else "-"
            for variant in ("eager", "compiled")
        ]
        cells = [kind, f"{row['m']} x {row['n']}", str(row["rows"]), row["dtype"]]
        cells += [f"{row['bytes'] / 1e6:.0f}", f"{row['ours_us']:.1f}"]
        cells += [f"{100 * row['hbm_share']['ours']:.0f} %", *others, f"{row['host_us']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
