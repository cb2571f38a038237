"""From the command line to a verb."""

from __future__ import annotations

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import torch

from deep_gemm._version import __version__
from deep_gemm.cli import cache, demo, doctor, explain, precompile, trace, tune
from deep_gemm.cli.verb import Verb
from deep_gemm.errors import DeepGemmError

VERBS: tuple[Verb, ...] = (
    cache.VERB,
    demo.VERB,
    doctor.VERB,
    explain.VERB,
    precompile.VERB,
    trace.VERB,
    tune.VERB,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one verb.

    Args:
        arguments: without the program's name; by default those of the process.

    Returns:
        The exit code: 0 if all is well, 1 if not. Arguments that are wrong in themselves leave
        with code 2 before anything is done.
    """
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path that the terminal's encoding lacks must not cost the rest of the report.
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return int(options.run(options))
        except (DeepGemmError, torch.cuda.OutOfMemoryError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        except BrokenPipeError:
            # The reader has left (head, grep -q). Python must not try again at its exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except KeyboardInterrupt:
            return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m deep_gemm", description="FP8 GEMM kernels, compiled at run time."
    )
    parser.add_argument("--version", action="version", version=f"deep_gemm {__version__}")
    verbs = parser.add_subparsers(metavar="verb", required=True)
    for verb in VERBS:
        verb_parser = verbs.add_parser(verb.name, help=verb.summary, description=verb.summary)
        verb.add_arguments(verb_parser)
        verb_parser.set_defaults(run=verb.run)
    return parser


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as a user wants it: its text, without a line of our source."""
    print(f"warning: {message}", file=sys.stderr)
