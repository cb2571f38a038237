"""The problems of the dense table, and the time below which none can go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What an H100 reaches: a copy from HBM, and FP8 products at the clock that their power leaves.
HBM_BYTES_PER_US = 3.0e6
FLOP_PER_US = 1.6e9


@dataclass(frozen=True, slots=True)
class Problem:
    """D[m, n] = A[m, k] @ B[n, k].T, A with 1x128 and B with 128x128 scale factors."""

    m: int
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"{self.m}x{self.n}x{self.k}"

    @classmethod
    def parse(cls, name: str) -> Problem:
        m, n, k = (int(part) for part in name.split("x"))
        return cls(m, n, k)

    @property
    def num_bytes(self) -> int:
        """What has to move: operands, scale factors and the BF16 result, each once."""
        num_k_blocks = -(-self.k // 128)
        num_scale_factors = (self.m + -(-self.n // 128)) * num_k_blocks
        return (self.m + self.n) * self.k + 2 * self.m * self.n + 4 * num_scale_factors

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


def _matches(row: Problem, parts: Sequence[str]) -> bool:
    sizes = (row.m, row.n, row.k)
    return all(part in ("*", str(size)) for part, size in zip(parts, sizes, strict=True))
