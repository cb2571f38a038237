"""Measured configurations: what selection asks before the cost model, in one table per GPU.

A table comes with the library (config/tuned/<gpu>.json) or is the user's own, in DG_TUNED_DIR;
where both know a problem the user's counts. `python -m deep_gemm tune --write` makes them. They are
read when the first problem of their GPU is selected, and kept.
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from deep_gemm import knobs
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import is_candidate
from deep_gemm.config.tuned_file import Entry, Timed, file_name, plain, read

PACKAGED = Path(__file__).parent / "tuned"


class Table:
    """The entries of one GPU.

    Args:
        entries: of several for a problem, the last counts.
    """

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        families: dict[GemmProblem, dict[int, Entry]] = defaultdict(dict)
        for entry in entries:
            families[_family(entry.problem)][entry.problem.m] = entry
        self._families = {family: sorted(by_m.items()) for family, by_m in families.items()}

    @property
    def entries(self) -> list[Entry]:
        """All of them, those of one kind by M."""
        return [entry for by_m in self._families.values() for _, entry in by_m]

    def configs(self, problem: GemmProblem, last_m: int) -> list[GemmConfig]:
        """What `find` returns for a problem and all of those with more rows, up to `last_m`."""
        ms = [min(m, last_m) for m, _ in self._families.get(_family(problem), [])]
        # If it serves any M up to an entry's, it serves the highest.
        found = (self.find(replace(problem, m=m)) for m in ms if m >= problem.m)
        return list(dict.fromkeys(timed.config for timed in found if timed is not None))

    def find(self, problem: GemmProblem) -> Timed | None:
        """The configuration of the entry of this M, or of the next M above it, if both have as many
        rows of blocks: the work is then the same. Always one of the problem's candidates."""
        by_m = self._families.get(_family(problem), [])
        index = bisect_left(by_m, problem.m, key=lambda pair: pair[0])
        if index == len(by_m):
            return None
        m, entry = by_m[index]
        for timed in entry.choices(problem.splits_k):
            height = timed.config.block_m
            if -(-problem.m // height) == -(-m // height) and is_candidate(problem, timed.config):
                return timed
        return None


def _family(problem: GemmProblem) -> GemmProblem:
    return replace(plain(problem), m=0)


def find(problem: GemmProblem) -> Timed | None:
    """The measured configuration for a problem; None if no table of its GPU has one, or if the
    problem is confined to few kernels."""
    return table_for(problem).find(problem)


def table_for(problem: GemmProblem) -> Table:
    """The table that counts for a problem; empty if none does."""
    return Table() if problem.few_kernels or not problem.gpu else table_of(problem.gpu)


@functools.cache
def table_of(gpu: str) -> Table:
    """The table of a GPU of this name, read at the first call; empty if there is none."""
    name = file_name(gpu)
    folders = (PACKAGED, knobs.tuned_dir.get().expanduser())
    return Table(entry for folder in folders for entry in read(folder / name, gpu))
