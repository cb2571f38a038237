"""`python -m deep_gemm demo`: the main job on real input, or as much of it as works here."""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from deep_gemm._version import __version__
from deep_gemm.checks import check_dimensions, check_tma_rows
from deep_gemm.cli import emulation
from deep_gemm.cli.floor import floor_of, num_flop
from deep_gemm.cli.gpu import Gpu, choose_gpu
from deep_gemm.cli.measure import MAX_DIFF, Accuracy, measure
from deep_gemm.cli.output import print_line, print_table, progress
from deep_gemm.cli.verb import Verb
from deep_gemm.config.gemm_config import BLOCK_K, GemmConfig
from deep_gemm.config.legality import SMEM_CAPACITY
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import ranked, select
from deep_gemm.config.tuned import find
from deep_gemm.errors import DeepGemmError
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.runtime.cuda import driver
from deep_gemm.utils.math import ceil_div

Rows = list[tuple[str, str]]

NUM_ALTERNATIVES = 3

LABEL_WIDTH = len("shared memory ")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The problem, by default a projection of DeepSeek-V3, and the seed of its operands."""
    sizes = (("m", 4096, "tokens"), ("n", 7168, "output features"), ("k", 2048, "input features"))
    for name, default, meaning in sizes:
        parser.add_argument(
            f"--{name}", type=positive_integer, default=default, help=f"{meaning} ({default})"
        )
    parser.add_argument("--seed", type=int, default=0, help="of the random operands (0)")


def run(options: argparse.Namespace) -> int:
    """Compiles the kernel of a problem and runs it; without a GPU, a smaller one in the emulator.

    Returns:
        0, or 1 if the error of what ran is beyond the bound.
    """
    check_sizes(options.m, options.n, options.k)
    gpu, reason = _find_gpu()
    if gpu is None:
        problem = GemmProblem(options.m, options.n, options.k, splits_k=True)
    else:
        sizes = (options.m, options.n, options.k)
        problem = GemmProblem(*sizes, gpu.arch, gpu.num_sms, splits_k=True, gpu=gpu.name)
    print_line(f"deep_gemm {__version__} demo", "bold")
    print_table(_problem_rows(problem, gpu) + _kernel_rows(problem), LABEL_WIDTH)
    if gpu is None:
        print_line(
            f"No GPU was found that can run it ({reason}): "
            "what follows is an emulation, of a smaller problem."
        )
        accuracy = _run_emulated(options.seed)
    else:
        accuracy = _run_on_gpu(problem, gpu, options.seed)
    failures = accuracy.failures()
    for failure in failures:
        print_line(f"WRONG RESULT: {failure}", "bold red")
    if not failures:
        print_line("The result is right.", "green")
    return 1 if failures else 0


VERB = Verb("demo", "run the main job: a projection of DeepSeek-V3 in FP8", add_arguments, run)


def positive_integer(text: str) -> int:
    """An argument of at least 1; argparse uses the function's name in its messages."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def check_sizes(m: int, n: int, k: int) -> None:
    """What fp8_gemm_nt will ask of the tensors, before anything is compiled or allocated."""
    check_dimensions(m, n, k)
    operands = (
        ("a[0]", m, k, torch.float8_e4m3fn),
        ("b[0]", n, k, torch.float8_e4m3fn),
        ("d", m, n, torch.bfloat16),
    )
    for name, rows, columns, dtype in operands:
        check_tma_rows(name, torch.empty(rows, columns, dtype=dtype, device="meta"))


def _find_gpu() -> tuple[Gpu | None, str]:
    """The GPU to run on; if there is none, why."""
    try:
        return choose_gpu(), ""
    except DeepGemmError as error:
        return None, str(error)


def _run_on_gpu(problem: GemmProblem, gpu: Gpu, seed: int) -> Accuracy:
    with progress("starting") as status, torch.cuda.device(gpu.index):
        device = torch.device("cuda", gpu.index)
        accuracy, times = measure(problem, device, seed, status.update)
    print_table(_accuracy_rows(accuracy) + _speed_rows(problem, gpu, times), LABEL_WIDTH)
    return accuracy


def _run_emulated(seed: int) -> Accuracy:
    with progress("starting") as status:
        accuracy, seconds = emulation.emulate(seed, status.update)
    print_table(_emulation_rows(seconds) + _accuracy_rows(accuracy), LABEL_WIDTH)
    return accuracy


def _problem_rows(problem: GemmProblem, gpu: Gpu | None) -> Rows:
    if gpu is None:
        where = f"none; the kernel is for sm_{problem.arch}, chosen for {problem.num_sms} SMs"
    else:
        where = f"{gpu}, driver for CUDA {'.'.join(map(str, driver().version()))}"
    return [
        ("GPU", where),
        ("problem", _formula(problem)),
        ("", "FP8 E4M3 in (SFA per 1 x 128, SFB per 128 x 128), BF16 out"),
    ]


def _formula(problem: GemmProblem) -> str:
    m, n, k = problem.m, problem.n, problem.k
    return f"D[{m}, {n}] = A[{m}, {k}] @ B[{n}, {k}].T"


def _kernel_rows(problem: GemmProblem) -> Rows:
    """Chooses and builds the kernel, and says what came of it."""
    config = select(problem).config
    with progress(f"compiling {config.name}"):
        start = time.perf_counter()
        kernel = build(generate(config, problem.arch))
        seconds = time.perf_counter() - start
    origin = f"cached: read in {seconds:.3f} s" if kernel.from_cache else "not cached before"
    smem_bytes = config.smem_bytes + kernel.static_smem_bytes
    return [
        ("config", config.name),
        ("", _config_in_words(config)),
        *_cost_rows(problem),
        ("compile time", f"{kernel.seconds:.2f} s by {kernel.compiler} ({origin})"),
        ("registers", f"{kernel.registers} per thread at entry"),
        ("spills", f"{kernel.spill_bytes} bytes"),
        ("shared memory", f"{smem_bytes:,} of {SMEM_CAPACITY:,} bytes per CTA"),
    ]


def _config_in_words(config: GemmConfig) -> str:
    return (
        f"block {config.block_m} x {config.block_n}, {config.num_stages} stages, "
        f"{config.num_math_warpgroups} math warpgroup(s), "
        f"cluster {config.cluster_m} x {config.cluster_n}"
    )


def _cost_rows(problem: GemmProblem) -> Rows:
    """What a table says of this problem, and what the cost model likes best, and why."""
    (best, chosen), *others = ranked(problem)[: 1 + NUM_ALTERNATIVES]
    why = (
        f"{chosen.us:.1f} us expected: {chosen.waves} wave(s) {chosen.utilisation:.0%} full, "
        f"{chosen.k_block_clocks:.0f} clocks per k block, bound by {chosen.bound}"
    )
    alternatives = [f"{config.name}: {cost.us:.1f} us" for config, cost in others]
    rows = [("next best", "\n".join(alternatives))]
    measured = find(problem)
    if measured is None:
        return [("cost model", why), *rows]
    by_table = f"{measured.us:.1f} us; it was chosen from a table of this GPU"
    return [("measured", by_table), ("cost model", f"would take {best.name}: {why}"), *rows]


def _emulation_rows(seconds: float) -> Rows:
    """What ran in the emulator, and how long."""
    problem, config = emulation.PROBLEM, emulation.CONFIG
    rows, columns = config.cluster_grid(problem.m, problem.n)
    num_blocks = rows * columns * config.cluster_size
    num_k_blocks = ceil_div(problem.k, BLOCK_K)
    return [
        ("emulated", _formula(problem)),
        ("kernel", config.name),
        ("", _config_in_words(config)),
        ("work", f"{num_blocks} blocks of {num_k_blocks} k blocks by one cluster"),
        ("time", f"{seconds:.1f} s: the kernel's PTX on NumPy, which says nothing about a GPU"),
    ]


def _accuracy_rows(accuracy: Accuracy) -> Rows:
    bound = f"bound {accuracy.max_error_bound:.2e}"
    return [
        ("max error", f"{accuracy.max_error:.2e} of the RMS of D ({bound}), against FP64"),
        ("calc_diff", f"{accuracy.diff:.2e} (bound {MAX_DIFF:.0e})"),
    ]


def _speed_rows(problem: GemmProblem, gpu: Gpu, times: list[float]) -> Rows:
    us = statistics.median(times)
    floor = floor_of(problem, gpu.name)
    tflops = num_flop(problem) / us / 1e6
    gb_per_s = problem.unique_bytes / us / 1e3
    spread = f"{min(times):.1f} .. {max(times):.1f}"
    return [
        ("time", f"{us:.1f} us, median of {len(times)} with the L2 flushed ({spread})"),
        ("throughput", f"{tflops:.0f} TFLOPS, {gb_per_s:.0f} GB/s"),
        ("floor", f"{floor.us:.1f} us: {floor.why}"),
        ("share of floor", f"{floor.us / us:.0%} (floor / time)"),
    ]
