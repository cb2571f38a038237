"""The kernels that selection asks for over a range of M, without asking for every M.

A candidate's estimate does not fall as M grows, but for one step that short groups make. So between
two M no candidate can be the cheapest that costs more at the lower M than another does at the upper
one; where all that are left are known to be needed, there is nothing to find.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from deep_gemm.config import cost_model, select, sm100, tuned
from deep_gemm.config.gemm_config import MMA_M, GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100_config import Sm100GemmConfig


@dataclass(frozen=True, slots=True)
class ProblemRange:
    """A problem for every M from `problem.m` to `last_m`, both of them too."""

    problem: GemmProblem
    last_m: int

    @property
    def ends(self) -> tuple[int, int]:
        """The first and the last M."""
        return self.problem.m, self.last_m


Config = GemmConfig | Sm100GemmConfig

Priced = list[tuple[Config, float]]
"""Candidates with their times, in the order in which selection meets them."""


def kernels_of(ranges: Iterable[ProblemRange]) -> list[Config]:
    """Every configuration that selection returns for a problem of the ranges, each once."""
    found: dict[Config, None] = {}
    for range_ in ranges:
        table = tuned.table_for(range_.problem)
        found |= dict.fromkeys(table.configs(range_.problem, range_.last_m))
        for first, last in _monotone_parts(range_):
            low, high = (_priced(range_.problem, m, None) for m in (first, last))
            if low:
                _search(range_.problem, (first, last), low, high, found)
    return list(found)


def _monotone_parts(range_: ProblemRange) -> Iterator[tuple[int, int]]:
    """The range in parts of the same candidates each, none across the step at MMA_M."""
    first, last = range_.ends
    cuts = [(first, last)] if not first < MMA_M <= last else [(first, MMA_M - 1), (MMA_M, last)]
    for low, high in cuts:
        yield from _same_candidates(range_.problem, low, high)


def _same_candidates(problem: GemmProblem, low: int, high: int) -> Iterator[tuple[int, int]]:
    same = _candidates(problem, low) == _candidates(problem, high)
    if same:
        yield low, high
        return
    middle = (low + high) // 2
    yield from _same_candidates(problem, low, middle)
    yield from _same_candidates(problem, middle + 1, high)


def _candidates(problem: GemmProblem, m: int) -> list[Any]:
    at = replace(problem, m=m)
    return list(sm100.candidates(at) if at.is_sm100 else select.offered(at))


def _priced(problem: GemmProblem, m: int, configs: Iterable[Any] | None) -> Priced:
    at = replace(problem, m=m)
    every = _candidates(problem, m) if configs is None else configs
    if problem.is_sm100:
        return [(config, sm100.estimate(at, config).us) for config in every]
    return [(config, cost_model.estimate(at, config).us) for config in every]


def _search(
    problem: GemmProblem,
    ends: tuple[int, int],
    low: Priced,
    high: Priced,
    found: dict[Config, None],
) -> None:
    """Adds to `found` what is cheapest anywhere in a range of M, given the times at its ends."""
    for priced in (low, high):
        found[min(priced, key=lambda pair: pair[1])[0]] = None
    limit = min(us for _, us in high)
    can_win = [i for i, (_, us) in enumerate(low) if us <= limit]
    if ends[1] - ends[0] < 2 or all(low[i][0] in found for i in can_win):
        return
    low, high = [low[i] for i in can_win], [high[i] for i in can_win]
    middle = (ends[0] + ends[1]) // 2
    between = _priced(problem, middle, [config for config, _ in low])
    _search(problem, (ends[0], middle), low, between, found)
    _search(problem, (middle, ends[1]), between, high, found)
