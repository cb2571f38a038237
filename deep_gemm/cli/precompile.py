"""`python -m deep_gemm precompile`: every kernel that a model needs, before it is needed."""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path

from deep_gemm.cli.demo import positive_integer
from deep_gemm.cli.output import ProgressBar, print_line
from deep_gemm.cli.verb import Verb
from deep_gemm.config.models import ALIASES, MODELS
from deep_gemm.errors import ArgumentError
from deep_gemm.warm_up import (
    ALIGNMENT,
    ARCH,
    EP,
    MAX_M,
    NUM_SMS,
    TP,
    Problem,
    precompile,
    problems_of_model,
    read_problems,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which problems, for what device, and how."""
    names = ", ".join(sorted([*MODELS, *ALIASES]))
    parser.add_argument("--model", action="append", default=[], help=f"one of {names}")
    parser.add_argument(
        "--problems",
        action="append",
        default=[],
        type=Path,
        help="a file with a problem per line, as DG_JIT_RECORD writes it",
    )
    for name, default, what in (("--tp", TP, "weights"), ("--ep", EP, "experts")):
        text = f"numbers of devices that share the {what} ({' '.join(map(str, default))})"
        parser.add_argument(name, type=positive_integer, nargs="+", default=default, help=text)
    numbers: tuple[tuple[str, int | None, str], ...] = (
        ("--max-m", MAX_M, "tokens of a batch"),
        ("--num-sms", None, "multiprocessors of the device (those of an H100, or of a B200)"),
        ("--alignment", ALIGNMENT, "rows to which groups of the contiguous layout are aligned"),
        ("--jobs", None, "kernels compiled at a time (as many as there are cores)"),
    )
    for name, number, meaning in numbers:
        text = meaning if number is None else f"{meaning} ({number})"
        parser.add_argument(name, type=positive_integer, default=number, help=text)
    parser.add_argument(
        "--few-kernels",
        action="store_true",
        default=None,
        help="only the few kernels that calls use under DG_FEW_KERNELS=1",
    )
    parser.add_argument("--arch", choices=NUM_SMS, default=ARCH, help=f"architecture ({ARCH})")
    parser.add_argument("--bundle", type=Path, help="write all of the kernels to this tar, too")


def run(options: argparse.Namespace) -> int:
    """Compiles them, and says how many and how long it took."""
    problems = _problems(options)
    with ProgressBar("choosing kernels") as bar:

        def progress(done: int, total: int) -> None:
            if done == 1:
                bar.begin("compiling", total)
            bar.reach(done)

        try:
            result = precompile(
                problems, jobs=options.jobs, bundle=options.bundle, progress=progress
            )
        except OSError as error:
            raise ArgumentError(f"--bundle: {options.bundle} cannot be written ({error})") from None
    cached = result.num_kernels - result.num_compiled
    print_line(
        f"{result.num_kernels} kernels are ready: {result.num_compiled} compiled, {cached} from "
        f"the cache, {result.seconds:.1f} s"
    )
    return 0


VERB = Verb("precompile", "compile every kernel that a model needs", add_arguments, run)


def _problems(options: argparse.Namespace) -> list[Problem]:
    """All problems that the options name.

    Raises:
        ArgumentError: they name none, or one that there is not.
    """
    if not options.model and not options.problems:
        raise ArgumentError("--model or --problems must be given")
    if options.bundle is not None and not options.bundle.parent.is_dir():
        raise ArgumentError(f"--bundle: the folder {options.bundle.parent} must exist")
    of_models = (
        problems_of_model(
            model,
            tp=options.tp,
            ep=options.ep,
            max_m=options.max_m,
            num_sms=options.num_sms,
            alignment=options.alignment,
            arch=options.arch,
            few_kernels=options.few_kernels,
        )
        for model in options.model
    )
    return [*chain(*of_models), *chain(*map(read_problems, options.problems))]
