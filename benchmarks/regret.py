"""How far the cost model's choices are from the best configurations of a sweep. Needs no GPU."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.configs import from_json
from benchmarks.problems import Problem
from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select

Times = Mapping[GemmConfig, float]
"""Measured microseconds of one problem, by configuration."""


@dataclass(frozen=True)
class Regret:
    """One problem of the sweep.

    Attributes:
        problem: sizes.
        chosen: what selection takes.
        best: the fastest of the sweep.
        chosen_us: its measured time, None if the sweep does not have it.
        best_us: the fastest one's time.
        estimate_us: what the model says of the choice.
    """

    problem: Problem
    chosen: GemmConfig
    best: GemmConfig
    chosen_us: float | None
    best_us: float
    estimate_us: float

    @property
    def ratio(self) -> float:
        """Time of the choice over the best time; NaN where it was not measured."""
        return math.nan if self.chosen_us is None else self.chosen_us / self.best_us


def read_sweep(path: Path) -> dict[Problem, Times]:
    """A sweep's result file, by problem."""
    times: dict[Problem, dict[GemmConfig, float]] = defaultdict(dict)
    for line in path.read_text().splitlines():
        row = json.loads(line)
        times[Problem(row["m"], row["n"], row["k"])][from_json(row)] = row["us"]
    return dict(times)


def regret_of(problem: Problem, times: Times) -> Regret:
    """Compares the choice for one problem with what was measured."""
    gemm_problem = GemmProblem(problem.m, problem.n, problem.k)
    chosen = select(gemm_problem).config
    best = min(times, key=lambda config: times[config])
    estimate_us = estimate(gemm_problem, chosen).us
    return Regret(problem, chosen, best, times.get(chosen), times[best], estimate_us)


def report(path: Path) -> str:
    """The regret of every problem of a sweep, and what it comes to, as text."""
    rows = [regret_of(problem, times) for problem, times in read_sweep(path).items()]
    lines = [
        f"{row.problem.name:18} {row.ratio:.3f}  {row.chosen.name[19:]}"
        f"  (model {row.estimate_us:.1f} us)  best {row.best.name[19:]} {row.best_us:.1f} us"
        for row in rows
    ]
    known = [row.ratio for row in rows if row.chosen_us is not None]
    lines.append(
        f"{len(known)} of {len(rows)} choices measured: mean {sum(known) / len(known):.4f},"
        f" worst {max(known):.3f} times the best configuration's time"
    )
    return "\n".join(lines)
