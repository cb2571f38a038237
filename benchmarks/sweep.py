"""Times many legal configurations for rows of the tables: what a cost model is fitted to.

It is a run of the tuner (deep_gemm/tuning/) over the benchmarks' problems: measurements are
appended to tune-<gpu>.jsonl, and what that has is not measured again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from benchmarks.problems import AnyProblem, GroupedProblem, Problem, choose, choose_grouped
from deep_gemm.config.problem import GemmProblem
from deep_gemm.tuning.problems import KINDS
from deep_gemm.utils.math import ceil_div

# Groups without padding are to a kernel what masked ones are.
_KINDS = {"decode": "masked", "k_grouped": "k-grouped"}


def choose_problems(patterns: Sequence[str]) -> list[GemmProblem]:
    """The rows that patterns name, of the dense table (16x*x*) or the grouped ones (masked); the
    dense table for none.

    Raises:
        ValueError: a pattern names nothing.
    """
    of_groups = [pattern for pattern in patterns if pattern[:1].isalpha()]
    others = [pattern for pattern in patterns if pattern not in of_groups]
    rows: list[AnyProblem] = []
    if others or not of_groups:
        rows += choose(others)
    if of_groups:
        rows += choose_grouped(of_groups)
    return [_gemm_problem(row) for row in rows]


def _gemm_problem(row: AnyProblem) -> GemmProblem:
    """A row as the tuner has it: with K whole, though it tries what splits K too."""
    if isinstance(row, Problem):
        return GemmProblem(row.m, row.n, row.k)
    assert isinstance(row, GroupedProblem)
    sizes = {"m": row.m, "n": row.n, "k": row.k, "num_groups": row.groups}
    split = "k" if row.table == "k_grouped" else "m"
    sizes[split] = ceil_div(sizes[split], row.groups)
    return replace(KINDS[_KINDS.get(row.table, row.table)], **sizes)
