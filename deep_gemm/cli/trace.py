"""`python -m deep_gemm trace`: what every warp of a kernel does, and when, as a model has it."""

from __future__ import annotations

import argparse
import re
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch

from deep_gemm._version import __version__
from deep_gemm.cli.demo import LABEL_WIDTH, check_sizes, positive_integer
from deep_gemm.cli.measure import make_operands, make_output
from deep_gemm.cli.output import print_line, print_table, progress
from deep_gemm.cli.verb import Verb
from deep_gemm.config.gemm_config import BLOCK_K, MMA_K, MMA_M, GemmConfig
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band, select
from deep_gemm.errors import ArgumentError, DeepGemmError
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.runtime.emulated import EmulatedPlan

if TYPE_CHECKING:
    from deep_gemm.emulator.trace.machine import Event
    from deep_gemm.emulator.trace.recorder import Operation, Recorder

MAX_BLOCKS = 3
MAX_K_BLOCKS = 16
"""What is traced at most: more would take long, and show the same again."""

FORMATS = (".svg", ".png")

WARPS_PER_MMA = 4

_CONFIG = re.compile(r"(?:sm90_fp8_gemm_1d2d_)?(\d+)x(\d+)_s(\d+)_w(\d+)_c(\d+)x(\d+)")


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a problem that is traced: the first blocks of its first cluster.

    Attributes:
        problem: that has just these blocks.
        config: how the whole problem is computed.
        num_blocks: of the traced CTA.
        whole_num_blocks: of that CTA in the whole problem.
        num_clusters: of the whole problem.
    """

    problem: GemmProblem
    config: GemmConfig
    num_blocks: int
    whole_num_blocks: int
    num_clusters: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The problem, the configuration and where the files go."""
    for name, meaning in (("m", "tokens"), ("n", "output features"), ("k", "input features")):
        parser.add_argument(name, metavar=name.upper(), type=positive_integer, help=meaning)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="STEM",
        help="writes STEM.json and STEM.svg, or STEM.png if it ends so (trace_MxNxK)",
    )
    parser.add_argument(
        "--config", help="such as 128x128_s5_w2_c2x1; by default the one that the problem gets"
    )


def run(options: argparse.Namespace) -> int:
    """Emulates a part of a problem, and writes its trace and its picture.

    Returns:
        0.

    Raises:
        ArgumentError: the sizes, the configuration or the file name cannot be used.
    """
    check_sizes(options.m, options.n, options.k)
    whole = GemmProblem(options.m, options.n, options.k)
    config = parse_config(options.config) if options.config else select(whole).config
    stem = options.out or Path(f"trace_{options.m}x{options.n}x{options.k}")
    json_path, picture_path = paths_of(stem)
    part = part_of(whole, config)
    print_line(f"deep_gemm {__version__} trace", "bold")
    print_table(_part_rows(whole, part), LABEL_WIDTH)
    recorder, seconds = _emulate(part)
    from deep_gemm.emulator.trace.replay import replay

    events = replay(recorder.records)
    _write_json(json_path, events, recorder, whole, part)
    drawn = _draw(picture_path, events, whole, part)
    print_table(_result_rows(events, seconds, part, json_path, drawn), LABEL_WIDTH)
    print_line("Times are modelled, not measured: docs/emulator.md says how.")
    return 0


VERB = Verb(
    "trace", "emulate a kernel and draw what its warps do, with modelled times", add_arguments, run
)


def parse_config(name: str) -> GemmConfig:
    """The configuration of a name such as 128x128_s5_w2_c2x1.

    Raises:
        ArgumentError: it is no such name, or breaks a rule of config/legality.py.
    """
    match = _CONFIG.fullmatch(name)
    if match is None:
        raise ArgumentError(f"--config must look like 128x128_s5_w2_c2x1, got {name!r}")
    m, n, stages, warpgroups, cluster_m, cluster_n = map(int, match.groups())
    config = GemmConfig(m, n, stages, warpgroups, cluster_m, cluster_n)
    broken = broken_rules(config)
    if broken:
        raise ArgumentError(f"--config {name}: {'; '.join(broken)}")
    return config


def paths_of(stem: Path) -> tuple[Path, Path]:
    """Where the trace and the picture go.

    Raises:
        ArgumentError: the folder does not exist, or no picture has such a suffix.
    """
    if not stem.parent.is_dir():
        raise ArgumentError(f"--out: the folder {stem.parent} must exist")
    if stem.suffix in ("", ".json"):
        return stem.with_suffix(".json"), stem.with_suffix(FORMATS[0])
    if stem.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise ArgumentError(f"--out: the suffix must be one of {known} or none, got {stem}")
    return stem.with_suffix(".json"), stem


def part_of(whole: GemmProblem, config: GemmConfig) -> Part:
    """What of a problem is traced."""
    rows, columns = config.cluster_grid(whole.m, whole.n)
    num_clusters = min(whole.num_sms // config.cluster_size, rows * columns)
    whole_num_blocks = -(-rows * columns // num_clusters)
    num_blocks = min(whole_num_blocks, MAX_BLOCKS)
    # A CTA has several blocks only where there are far more than three along M or along N.
    along_m = num_blocks if rows >= num_blocks else 1
    height = config.block_m * config.cluster_m * along_m
    width = config.block_n * config.cluster_n * (num_blocks // along_m)
    problem = GemmProblem(
        min(whole.m, height),
        min(whole.n, width),
        min(whole.k, BLOCK_K * MAX_K_BLOCKS),
        num_sms=config.cluster_size,
    )
    return Part(problem, config, num_blocks, whole_num_blocks, num_clusters)


def _emulate(part: Part) -> tuple[Recorder, float]:
    """Runs the part; what was recorded, and the seconds that it took."""
    from deep_gemm.emulator.trace.recorder import Recorder

    problem, config = part.problem, part.config
    with progress(f"compiling {config.name}") as status:
        a, b = make_operands(problem, torch.device("cpu"), seed=0)
        d = make_output(problem, torch.device("cpu"))
        selection = Selection(config, best_band(problem, config))
        plan = cast(
            EmulatedPlan, plan_dense(problem, selection, GemmTensors.of_matrices(*a, *b, d))
        )
        recorder = Recorder(_progress_of(part, status.update))
        start = time.perf_counter()
        with warnings.catch_warnings():
            # That this is an emulation is what the verb itself says.
            warnings.filterwarnings("ignore", "CPU tensors", RuntimeWarning)
            addresses = (tensor.data_ptr() for tensor in (a[0], b[0], d, a[1], b[1]))
            plan.launch(*addresses, recorder=recorder)
        return recorder, time.perf_counter() - start


def _progress_of(part: Part, show: Callable[[str], object]) -> Callable[[Operation], None]:
    """Shows how much of the matrix products is done."""
    from deep_gemm.emulator.trace.recorder import Mma

    config = part.config
    slices = config.mma_rows // MMA_M * config.cluster_size * part.num_blocks
    total = slices * WARPS_PER_MMA * part.problem.num_k_blocks * (BLOCK_K // MMA_K)
    done = 0

    def report(operation: Operation) -> None:
        nonlocal done
        if isinstance(operation, Mma):
            done += 1
            if done % 16 == 0:
                show(f"emulating {config.name}: {done / total:.0%}")

    return report


def _write_json(
    path: Path, events: Sequence[Event], recorder: Recorder, whole: GemmProblem, part: Part
) -> None:
    from deep_gemm.emulator.trace import chrome, picture

    about = {
        "problem": f"{whole.m} x {whole.n} x {whole.k}",
        "kernel": part.config.name,
        "traced": _traced(whole, part),
        "times": f"{picture.NOTE}; 1 ns stands for 1 SM clock",
    }
    try:
        chrome.write(path, events, recorder.records, about)
    except OSError as error:
        raise DeepGemmError(f"the trace cannot be written: {error}") from None


def _draw(path: Path, events: Sequence[Event], whole: GemmProblem, part: Part) -> Path | None:
    """The picture's path; None without matplotlib."""
    from deep_gemm.emulator.trace import picture

    num_k_blocks = part.problem.num_k_blocks
    title = (
        f"D[{whole.m}, {whole.n}] = A @ B.T, K = {whole.k}, {part.config.name}\n"
        f"{_traced(whole, part)}; {picture.NOTE}; stages hold block.k block"
    )
    try:
        picture.draw(events, title, path, lambda i: f"{i // num_k_blocks}.{i % num_k_blocks}")
    except ImportError as error:
        print_line(
            f"no picture: {error}; mend it with: pip install 'matplotlib>=3.8'", "bold yellow"
        )
        return None
    except OSError as error:
        raise DeepGemmError(f"the picture cannot be written: {error}") from None
    return path


def _traced(whole: GemmProblem, part: Part) -> str:
    """The part in words."""
    text = f"cluster 1 of {part.num_clusters}, {part.num_blocks} of its"
    text += f" {part.whole_num_blocks} block(s), {part.problem.num_k_blocks}"
    return f"{text} of {whole.num_k_blocks} k blocks"


def _part_rows(whole: GemmProblem, part: Part) -> list[tuple[str, str]]:
    return [
        ("problem", f"D[{whole.m}, {whole.n}] = A[{whole.m}, {whole.k}] @ B.T"),
        ("config", part.config.name),
        ("traced", f"{_traced(whole, part)}, as on {whole.num_sms} SMs"),
    ]


def _result_rows(
    events: Sequence[Event], seconds: float, part: Part, trace: Path, drawn: Path | None
) -> list[tuple[str, str]]:
    clocks = max(event.end for event in events)
    num_k_blocks = part.num_blocks * part.problem.num_k_blocks
    rows = [
        ("emulated in", f"{seconds:.1f} s"),
        ("modelled", f"{clocks:,.0f} clocks, {clocks / num_k_blocks:,.0f} per k block"),
        ("trace", f"{trace} (open it at ui.perfetto.dev)"),
    ]
    return rows + ([("picture", str(drawn))] if drawn else [])
