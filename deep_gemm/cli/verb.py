"""What a verb of the command line is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that `python -m deep_gemm` can do; `cli/main.py` lists them all.

    Attributes:
        name: what is typed.
        summary: one line for the help.
        add_arguments: adds its arguments to a parser.
        run: does it, and returns the exit code.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
