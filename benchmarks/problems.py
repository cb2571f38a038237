"""The problems of every table, and the time below which none can go."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Protocol

from deep_gemm.testing.random_operands import split

# What an H100 reaches: a copy from HBM, and FP8 products at the clock that their power leaves.
HBM_BYTES_PER_US = 3.0e6
FLOP_PER_US = 1.6e9

BLOCK = 128
MAX_DECODE_TOKENS = 32


class AnyProblem(Protocol):
    """A row of some table."""

    @property
    def table(self) -> str:
        """The table's name in the result file."""

    @property
    def name(self) -> str:
        """What `parse` reads."""

    @property
    def fields(self) -> dict[str, int]:
        """The sizes, as the result file names them."""

    @property
    def seed(self) -> int:
        """Of its random operands."""

    @property
    def floor_us(self) -> float:
        """No kernel can be faster."""


@dataclass(frozen=True, slots=True)
class Problem:
    """D[m, n] = A[m, k] @ B[n, k].T, A with 1x128 and B with 128x128 scale factors."""

    m: int
    n: int
    k: int

    @property
    def table(self) -> str:
        return "dense"

    @property
    def name(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"

    @property
    def fields(self) -> dict[str, int]:
        return {"m": self.m, "n": self.n, "k": self.k}

    @property
    def seed(self) -> int:
        return (self.m * 65537 + self.n) * 65537 + self.k

    @classmethod
    def parse(cls, name: str) -> Problem:
        m, n, k = (int(part) for part in name.split("x"))
        return cls(m, n, k)

    @property
    def num_bytes(self) -> int:
        """What has to move: operands, scale factors and the BF16 result, each once."""
        num_scale_factors = (self.m + _blocks(self.n)) * _blocks(self.k)
        return (self.m + self.n) * self.k + 2 * self.m * self.n + 4 * num_scale_factors

    @property
    def floor_us(self) -> float:
        flop = 2 * self.m * self.n * self.k
        return max(self.num_bytes / HBM_BYTES_PER_US, flop / FLOP_PER_US)


@dataclass(frozen=True)
class GroupedProblem:
    """A row of a table of GROUPED.

    Attributes:
        table: which function is called, and how.
        groups: 1 for a weight gradient.
        m: rows of A over all groups, with padding where the table's layout has any; of each group
            in k_grouped.
        n: rows of each group's B.
        k: in k_grouped the sum over the groups.
    """

    table: str
    groups: int
    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.table}-{self.groups}x{self.m}x{self.n}x{self.k}"

    @property
    def fields(self) -> dict[str, int]:
        return {"groups": self.groups, "m": self.m, "n": self.n, "k": self.k}

    @property
    def seed(self) -> int:
        return Problem(self.m, self.n, self.k).seed + self.groups

    @classmethod
    def parse(cls, name: str) -> GroupedProblem:
        table, _, sizes = name.partition("-")
        groups, m, n, k = (int(part) for part in sizes.split("x"))
        return cls(table, groups, m, n, k)

    @property
    def accumulates(self) -> bool:
        """Whether D is FP32 and the product is added to it."""
        return self.table in ("wgrad", "k_grouped")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """What each group has of the size that is split: K in k_grouped, else rows."""
        total, unit = (self.k, BLOCK) if self.table == "k_grouped" else (self.m, 1)
        if self.table == "contiguous":
            unit = BLOCK
        mean = total // unit / self.groups
        low, high = round(0.7 * mean), round(1.3 * mean)
        if self.table == "decode":
            low, high = 1, MAX_DECODE_TOKENS
        parts = split(total // unit, self.groups, low, high, random.Random(self.seed))
        return tuple(part * unit for part in parts)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        """Each group's rows without padding."""
        if self.table != "contiguous":
            return self.sizes
        generator = random.Random(self.seed + 1)
        return tuple(size - generator.randrange(BLOCK) for size in self.sizes)

    @property
    def num_bytes(self) -> int:
        """What has to move: operands, scale factors and D, which accumulating also reads."""
        k_blocks = _blocks(self.k)
        if self.accumulates:
            operands = (self.m + self.n) * (self.k + 4 * k_blocks)
            return operands + 8 * self.groups * self.m * self.n
        num_scale_factors = (self.m + self.groups * _blocks(self.n)) * k_blocks
        operands = (self.m + self.groups * self.n) * self.k
        return operands + 2 * self.m * self.n + 4 * num_scale_factors

    @property
    def floor_us(self) -> float:
        flop = 2 * self.m * self.n * self.k
        return max(self.num_bytes / HBM_BYTES_PER_US, flop / FLOP_PER_US)


NK = (
    (2112, 7168),
    (576, 7168),
    (24576, 1536),
    (32768, 512),
    (7168, 16384),
    (4096, 7168),
    (7168, 2048),
)
DENSE = tuple(Problem(m, n, k) for m in (1, 16, 64, 128, 512, 4096) for n, k in NK)

# A decode step, and one so small that nothing but the call itself counts.
HOST = (Problem(64, 4096, 7168), Problem(16, 576, 512))

# Long enough that the host keeps the queue full.
SUSTAINED = tuple(problem for problem in DENSE if problem.m == 4096)

MASKED_M_MAX = 4096

_CONTIGUOUS = (
    (4, 33792, 6144, 7168),
    (4, 32896, 7168, 3072),
    (8, 33408, 4096, 7168),
    (8, 33920, 7168, 2048),
)
_MASKED = (
    (1, 801, 4096, 7168),
    (2, 1164, 4096, 7168),
    (4, 1085, 7168, 2048),
    (32, 5961, 6144, 7168),
    (32, 599, 6144, 7168),
    (32, 660, 7168, 3072),
    (6, 6155, 7168, 3072),
    (6, 115, 4096, 4096),
)
_DECODE = tuple(
    (groups, groups * (1 + MAX_DECODE_TOKENS) // 2, n, k)
    for groups in (128, 256)
    for n, k in ((2048, 7168), (7168, 2048))
)
_WGRAD = (
    (1, 2112, 4096, 7168),
    (1, 576, 4096, 7168),
    (1, 24576, 4096, 1536),
    (1, 32768, 4096, 512),
    (1, 7168, 4096, 16384),
    (1, 4096, 4096, 7168),
    (1, 7168, 4096, 2048),
)
_K_GROUPED = ((4, 4096, 7168, 34304), (8, 7168, 2048, 33920), (16, 4096, 7168, 34432))

GROUPED = {
    table: tuple(GroupedProblem(table, *sizes) for sizes in rows)
    for table, rows in (
        ("contiguous", _CONTIGUOUS),
        ("masked", _MASKED),
        ("decode", _DECODE),
        ("wgrad", _WGRAD),
        ("k_grouped", _K_GROUPED),
    )
}


def parse(name: str) -> AnyProblem:
    """The problem of this name: `16x2112x7168`, `masked-4x1085x7168x2048`."""
    return GroupedProblem.parse(name) if "-" in name else Problem.parse(name)


def choose(patterns: Sequence[str]) -> tuple[Problem, ...]:
    """The problems that patterns name: `16x2112x7168`, or `16x*x*` for rows of the dense table.

    Raises:
        ValueError: a pattern has not three parts, or names nothing.
    """
    if not patterns:
        return DENSE
    found: dict[Problem, None] = {}
    for pattern in patterns:
        parts = pattern.split("x")
        if len(parts) != 3 or not all(part == "*" or part.isdigit() for part in parts):
            raise ValueError(f"a row must read like 16x2112x7168 or 16x*x*, got {pattern!r}")
        rows = [row for row in DENSE if _matches(row, parts)]
        if not rows and "*" in parts:
            raise ValueError(f"no row of the dense table matches {pattern!r}")
        found.update(dict.fromkeys(rows or [Problem.parse(pattern)]))
    return tuple(found)


def choose_grouped(patterns: Sequence[str]) -> tuple[GroupedProblem, ...]:
    """The rows of the grouped tables that patterns name: `masked`, or `wgrad-*x7168`; all for none.

    Raises:
        ValueError: a pattern names nothing.
    """
    rows = [row for table in GROUPED.values() for row in table]
    found: dict[GroupedProblem, None] = {}
    for pattern in patterns or GROUPED:
        some = [row for row in rows if row.table == pattern or fnmatchcase(row.name, pattern)]
        if not some:
            raise ValueError(
                f"a row must be a table ({', '.join(GROUPED)}) or match a name such as"
                f" {rows[0].name}, got {pattern!r}"
            )
        found.update(dict.fromkeys(some))
    return tuple(found)


def _matches(row: Problem, parts: Sequence[str]) -> bool:
    sizes = (row.m, row.n, row.k)
    return all(part in ("*", str(size)) for part, size in zip(parts, sizes, strict=True))


def _blocks(size: int) -> int:
    return -(-size // BLOCK)
