"""`python -m deep_gemm tune`: measures configurations, and makes tables of the fastest."""

from __future__ import annotations

import argparse
import functools
import os
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from deep_gemm import knobs
from deep_gemm._version import __version__
from deep_gemm.cli.demo import positive_integer
from deep_gemm.cli.output import ProgressBar, print_line
from deep_gemm.cli.verb import Verb
from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.problem_file import read_problems
from deep_gemm.errors import ArgumentError
from deep_gemm.tuning import measurements, winners
from deep_gemm.tuning.problems import (
    KINDS,
    check_problems,
    every_problem,
    parse_sizes,
    parse_weights,
    within,
)
from deep_gemm.tuning.tuner import Options, Report, Tuner, compile_all, tried

Parsed = TypeVar("Parsed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to tune, and what to do with it."""
    sizes, weights = _argument(parse_sizes), _argument(parse_weights)
    parser.add_argument("--m", type=sizes, default=[], help="rows: 1,16,64-128/16")
    parser.add_argument("--n", type=sizes, default=[], help="columns of D, with every --k")
    parser.add_argument("--k", type=sizes, default=[], help="what is summed up")
    parser.add_argument("--nk", type=weights, default=[], help="pairs of both: 2112x7168,576x7168")
    parser.add_argument("--kind", choices=KINDS, default="dense", help="what is computed (dense)")
    parser.add_argument("--groups", type=sizes, default=[1], help="where there are groups (1)")
    parser.add_argument(
        "--problems", type=Path, help="further ones, as DG_JIT_RECORD writes them; --m for ranges"
    )
    parser.add_argument(
        "--top",
        type=positive_integer,
        default=0,
        help="only so many by the cost model, and split (all)",
    )
    parser.add_argument(
        "--repeats", type=positive_integer, default=3, help="rounds of each kernel (3)"
    )
    parser.add_argument("--budget", type=float, default=float("inf"), help="seconds (no limit)")
    parser.add_argument(
        "--jobs", type=positive_integer, default=os.cpu_count() or 1, help="compilers"
    )
    parser.add_argument("--out", type=Path, help="folder of measurements (DG_TUNED_DIR)")
    parser.add_argument("--commit", default=__version__, help="what is measured (the version)")
    parser.add_argument(
        "--device", choices=("cuda", "cpu"), default="cuda", help="cpu: the emulator, to try it out"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--compile-only", action="store_true", help="into the cache; needs no GPU")
    what.add_argument(
        "--write",
        type=Path,
        nargs="?",
        const=Path(),
        help="then make tables of all measurements in --out, in this folder (DG_TUNED_DIR)",
    )


def run(options: argparse.Namespace) -> int:
    """Compiles, measures and writes, as far as it was asked to.

    Returns:
        0, or 1 if a kernel was not compiled, was wrong or could not be timed.
    """
    problems = _problems(options)
    tuned_dir = knobs.tuned_dir.get().expanduser()
    out = tuned_dir if options.out is None else options.out
    if not problems and options.write is None:
        raise ArgumentError("--m, --n and --k: must name a problem, or --problems a file of some")
    failed = False
    with ProgressBar() as bar:
        if options.compile_only:
            return 1 if _compile(problems, options, bar) else 0
        if problems:
            failed = _measure(problems, options, out, bar)
    if options.write is not None:
        _write(out, tuned_dir if options.write == Path() else options.write)
    return 1 if failed else 0


VERB = Verb("tune", "measure which kernels are the fastest, and keep that", add_arguments, run)


def _argument(parse: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """A parser whose errors argparse shows as they are."""

    @functools.wraps(parse)
    def parsed(text: str) -> Parsed:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _problems(options: argparse.Namespace) -> list[GemmProblem]:
    weights = [*options.nk, *((n, k) for n in options.n for k in options.k)]
    read = [] if options.problems is None else read_problems(options.problems)
    # Logits have one kernel each: nothing to choose.
    ranges = [problem for problem in read if not isinstance(problem, MqaProblem)]
    if (weights and not options.m) or (options.m and not weights and not ranges):
        raise ArgumentError("--m: must come with --n and --k, or with --nk, and they with it")
    problems = every_problem(options.kind, options.groups, options.m, weights)
    problems += within(ranges, options.m)
    check_problems(problems)
    return problems


def _compile(problems: list[GemmProblem], options: argparse.Namespace, report: Report) -> bool:
    """Whether a kernel is missing in the end."""
    configs = {config for problem in problems for config in tried(problem, options.top)}
    deadline = time.monotonic() + options.budget
    ordered = sorted(configs, key=lambda config: config.name)
    return bool(compile_all(ordered, problems[0].arch, options.jobs, report, deadline))


def _measure(
    problems: list[GemmProblem], options: argparse.Namespace, out: Path, report: Report
) -> bool:
    """Whether something failed."""
    tuner = Tuner(
        Options(
            problems=problems,
            out=out,
            top=options.top,
            repeats=options.repeats,
            budget=options.budget,
            jobs=options.jobs,
            version=options.commit,
            device=options.device,
        ),
        report,
    )
    summary = tuner.run()
    report.say(summary.text)
    return summary.num_failed > 0


def _write(measured: Path, tables: Path) -> None:
    by_gpu: dict[str, list[measurements.Measurement]] = defaultdict(list)
    for one in measurements.read(sorted(measured.glob("tune-*.jsonl"))):
        by_gpu[one.gpu].append(one)
    if not by_gpu:
        raise ArgumentError(f"--out: must hold measurements, tune-*.jsonl, got {measured}")
    for gpu, found in by_gpu.items():
        entries = winners.entries_of(found)
        if not entries:
            raise ArgumentError(f"--out: {measured} has no time of {gpu}")
        path, number = winners.write_table(tables, gpu, entries)
        print_line(f"{path}: {len(entries)} problems written, {number} in all")
