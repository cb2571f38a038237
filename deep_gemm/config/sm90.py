"""The configurations that are worth a look for a problem on SM90."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.legality import broken_rules, max_stages
from deep_gemm.config.problem import GemmProblem

BLOCK_N = tuple(range(16, 257, 16))

MIN_STAGES = 3
"""With two stages, the loads of one k block never run under more than one other: too few to pay."""

MAX_STORE_ROUNDS = 4
"""More have not been measured."""


def block_m_candidates(m: int) -> tuple[int, ...]:
    """Block heights for m rows: one short block where that covers all, else whole M64 slices."""
    for short in (16, 32):
        if m <= short:
            return (short,)
    return tuple(height for height in (64, 128, 256) if height < 2 * m)


@functools.cache
def stages_and_rounds(
    block_m: int, block_n: int, num_math_warpgroups: int
) -> tuple[tuple[int, int], ...]:
    """As many stages as fit, with D stored in one round, or in more where those make room for more
    stages."""
    pairs: list[tuple[int, int]] = []
    num_slabs = GemmConfig(block_m, block_n, MIN_STAGES, num_math_warpgroups).num_slabs
    for rounds in range(1, MAX_STORE_ROUNDS + 1):
        stages = max_stages(block_m, block_n, num_math_warpgroups, rounds)
        fewer = pairs[-1][0] if pairs else MIN_STAGES - 1
        if num_slabs % rounds == 0 and stages > fewer:
            pairs.append((stages, rounds))
    return tuple(pairs)


def candidates(problem: GemmProblem) -> Iterator[GemmConfig]:
    """Every legal configuration for the problem that is worth a look.

    A cluster is proposed only where it has two blocks to cover and two multiprocessors to run on.
    """
    for block_m in block_m_candidates(problem.m):
        num_math_warpgroups = 1 if block_m <= 64 else 2
        for block_n in BLOCK_N:
            for stages, rounds in stages_and_rounds(block_m, block_n, num_math_warpgroups):
                clusters = [(1, 1)]
                if problem.num_sms >= 2:
                    clusters += [(2, 1)] * (problem.m > block_m)
                    clusters += [(1, 2)] * (problem.n > block_n)
                for cluster_m, cluster_n in clusters:
                    config = GemmConfig(
                        *(block_m, block_n, stages, num_math_warpgroups),
                        *(cluster_m, cluster_n, rounds),
                    )
                    if not broken_rules(config):
                        yield config
