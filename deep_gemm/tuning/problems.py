"""The problems that a run of the tuner is asked for: lists of sizes, or ranges of M."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product

from deep_gemm.checks import check_dimensions
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import ProblemRange
from deep_gemm.errors import ArgumentError
from deep_gemm.settings import DEFAULT_MK_ALIGNMENT

_ANY = GemmProblem(1, 1, 1)

KINDS = {
    "dense": _ANY,
    "wgrad": replace(_ANY, gran_n=1, d_bytes=4),
    "contiguous": replace(_ANY, grouping=Grouping.M_GROUPED, alignment=DEFAULT_MK_ALIGNMENT),
    "masked": replace(_ANY, grouping=Grouping.M_GROUPED),
    "k-grouped": replace(_ANY, grouping=Grouping.K_GROUPED, gran_n=1, d_bytes=4),
}
"""What is computed, by the names of the benchmarks' tables; sizes are still to be filled in."""


def parse_sizes(text: str) -> list[int]:
    """The numbers of a list such as `1,16,64-128/16`: numbers, and ranges with both ends, whose
    step is 1 unless given.

    Raises:
        ValueError: it reads otherwise, or a number is not positive.
    """
    sizes: list[int] = []
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, dash, last = span.partition("-")
        numbers = [int(first), int(last) if dash else int(first), int(step) if step else 1]
        if min(numbers) < 1 or numbers[1] < numbers[0]:
            raise ValueError(f"{part!r} must be a positive number, or a range of some")
        sizes += range(numbers[0], numbers[1] + 1, numbers[2])
    return sizes


def parse_weights(text: str) -> list[tuple[int, int]]:
    """The pairs of a list such as `2112x7168,576x7168`.

    Raises:
        ValueError: it reads otherwise, or a number is not positive.
    """
    pairs = []
    for part in text.split(","):
        n, _, k = part.partition("x")
        pairs.append((int(n), int(k)))
        if min(pairs[-1]) < 1:
            raise ValueError(f"{part!r} must be two positive numbers, as in 2112x7168")
    return pairs


def every_problem(
    kind: str, groups: Iterable[int], ms: Iterable[int], weights: Iterable[tuple[int, int]]
) -> list[GemmProblem]:
    """One problem of a kind for all sizes.

    Args:
        kind: of KINDS.
        groups: numbers of groups; 1 unless grouped.
        ms: rows, of a group where there are groups.
        weights: pairs of n and k, of a group where K is grouped.
    """
    return [
        replace(KINDS[kind], m=m, n=n, k=k, num_groups=num_groups)
        for num_groups, (n, k), m in product(groups, weights, ms)
    ]


def within(ranges: Iterable[ProblemRange], ms: Sequence[int]) -> list[GemmProblem]:
    """The problems of some ranges of M, of which those that are in `ms` count; a range of one M has
    that.

    Raises:
        ArgumentError: a range has many, and `ms` none of them.
    """
    found: list[GemmProblem] = []
    for range_ in ranges:
        first, last = range_.ends
        some = [first] if first == last else [m for m in ms if first <= m <= last]
        if not some:
            name = f"{title(range_.problem)}"
            raise ArgumentError(f"--m: must have an M in {first}..{last}, for problem {name}")
        found += [replace(range_.problem, m=m) for m in some]
    return found


def check_problems(problems: Sequence[GemmProblem]) -> None:
    """Whether all of them can be timed.

    Raises:
        ArgumentError: one has rows that TMA cannot address, is not of SM90, or has gaps in D.
    """
    for problem in problems:
        check_dimensions(problem.m, problem.n, problem.k)
        where = f"problem {title(problem)}"
        # Where K is grouped it is a mean: the groups that are timed have multiples of 128.
        if problem.k % 16 and problem.grouping is not Grouping.K_GROUPED:
            raise ArgumentError(f"{where}: k must be a multiple of 16, got {problem.k}")
        if problem.n * problem.d_bytes % 16:
            unit = 16 // problem.d_bytes
            raise ArgumentError(f"{where}: n must be a multiple of {unit}, got {problem.n}")
        if problem.is_sm100 or problem.head_columns:
            got = problem.arch, problem.head_columns
            raise ArgumentError(f"{where}: arch and head_columns must be 90a and 0, got {got}")


def title(problem: GemmProblem) -> str:
    """A problem as messages name it."""
    sizes = f"{problem.m} x {problem.n} x {problem.k}"
    if problem.num_groups > 1 or problem.grouping is not Grouping.DENSE:
        sizes = f"{problem.num_groups} x {sizes}"
    kinds = [name for name, kind in KINDS.items() if _kind(kind) == _kind(problem)]
    return f"{kinds[0] if kinds else problem.grouping.name.lower()} {sizes}"


def _kind(problem: GemmProblem) -> tuple[object, ...]:
    return problem.grouping, problem.alignment, problem.gran_n, problem.d_bytes
