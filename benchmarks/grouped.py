"""The tables of grouped GEMMs and weight gradients, beside the packaged reference, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.problems import GROUPED, AnyProblem
from benchmarks.run import Options, Run
from benchmarks.session import Session
from benchmarks.warming import finish_warming, start_warming

PEERS = ("ours", "reference")


class GroupedRun(Run):
    """Table by table: the peers' operands of all of them would not fit into a GPU at once."""

    title = "grouped"
    variants = ("ours", "ours_psum", "ours_row_major", "reference")
    sustained = GROUPED["contiguous"]
    sustained_variants = {"ours": "ours", "reference": "reference"}

    def batches(self) -> list[Sequence[AnyProblem]]:
        rows = self._options.problems
        return [list(table) for _, table in groupby(rows, key=lambda problem: problem.table)]

    def compile_ours(self, ours: Session) -> None:
        names = [problem.name for problem in self._options.problems]
        finish_warming(ours.name, start_warming(ours, names))


def measure(options: Options) -> Path:
    """Measures the tables and writes the result file, also if only a part succeeds."""
    with tempfile.TemporaryDirectory(prefix="deep_gemm_", ignore_cleanup_errors=True) as scratch:
        return GroupedRun(options, Path(scratch)).run()
