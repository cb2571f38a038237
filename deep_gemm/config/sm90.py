"""The configurations that are worth a look for a problem on SM90."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from deep_gemm.config.gemm_config import SF_GROUP, GemmConfig, Grouping
from deep_gemm.config.legality import MAX_CLUSTER, broken_rules, max_stages
from deep_gemm.config.problem import GemmProblem

if TYPE_CHECKING:
    from deep_gemm.config.sm100_config import Sm100GemmConfig

BLOCK_M = (16, 32, 64, 128, 256)

BLOCK_N = tuple(range(16, 257, 16))

MIN_STAGES = 3
"""With two stages, the loads of one k block never run under more than one other: too few to pay."""

MAX_STORE_ROUNDS = 4
"""Of BF16; FP32 takes twice the memory and so twice the rounds. More have not been measured."""


def block_m_candidates(problem: GemmProblem) -> tuple[int, ...]:
    """Block heights: one short block where that covers all rows, else whole M64 slices.

    Groups of an m-grouped product may have more rows than expected, or fewer.
    """
    allowed = [height for height in BLOCK_M if height % problem.block_multiple[0] == 0]
    m, lowest = problem.m, tuple(allowed[:1])
    if problem.grouping is Grouping.M_GROUPED:
        return tuple(height for height in allowed if height < 2 * m + 16) or lowest
    for short in (16, 32):
        if m <= short and short in allowed:
            return (short,)
    return tuple(height for height in allowed if 64 <= height < 2 * m) or lowest


def stores_heads(config: GemmConfig | Sm100GemmConfig, head_columns: int) -> bool:
    """Whether no slab of D reaches from one run of `head_columns` columns into the next."""
    return head_columns % (config.d_swizzle_bytes // config.d_bytes) == 0


@functools.cache
def stages_and_rounds(shape: GemmConfig) -> tuple[tuple[int, int], ...]:
    """As many stages as fit, with D stored in one round, or in more where those make room for more
    stages.

    Args:
        shape: the configuration but for its stages and rounds.
    """
    pairs: list[tuple[int, int]] = []
    most_rounds = MAX_STORE_ROUNDS * shape.d_bytes // 2
    for rounds in range(1, most_rounds + 1):
        if shape.num_slabs % rounds:
            continue
        stages = max_stages(shape, rounds)
        fewer = pairs[-1][0] if pairs else MIN_STAGES - 1
        if stages > fewer:
            pairs.append((stages, rounds))
    return tuple(pairs)


def cluster_candidates(
    problem: GemmProblem, block_m: int, block_n: int
) -> list[tuple[int, int, int]]:
    """Clusters that have two blocks to cover, or that divide the work on all blocks once more, and
    multiprocessors to run on."""
    clusters = [(1, 1, 1)]
    if problem.num_sms >= 2:
        clusters += [(2, 1, 1)] * (problem.m > block_m)
        clusters += [(1, 2, 1)] * (problem.n > block_n)
    if problem.splits_k:
        num_blocks = -(-problem.m // block_m) * -(-problem.n // block_n)
        most = min(problem.num_sms // num_blocks, -(-problem.num_k_blocks // SF_GROUP), MAX_CLUSTER)
        clusters += [(1, 1, parts) for parts in range(2, most + 1) if block_n % (16 * parts) == 0]
    return clusters


def shapes(problem: GemmProblem) -> Iterator[GemmConfig]:
    """Every block and cluster that is worth a look for the problem, legal or not, as configurations
    but for their stages and rounds."""
    for block_m in block_m_candidates(problem):
        for block_n in BLOCK_N:
            yield from block_shapes(problem, block_m, block_n)


def block_shapes(problem: GemmProblem, block_m: int, block_n: int) -> Iterator[GemmConfig]:
    """Those of them that have a block of this height, one of the candidates', and width."""
    if block_n % problem.block_multiple[1]:
        return
    shape = GemmConfig(
        *(block_m, block_n, MIN_STAGES, 1 if block_m <= 64 else 2),
        grouping=problem.grouping,
        gran_n=problem.gran_n,
        d_bytes=problem.d_bytes,
    )
    for cluster_m, cluster_n, cluster_k in cluster_candidates(problem, block_m, block_n):
        yield replace(shape, cluster_m=cluster_m, cluster_n=cluster_n, cluster_k=cluster_k)


def candidates(problem: GemmProblem) -> Iterator[GemmConfig]:
    """Every legal configuration for the problem that is worth a look."""
    for shape in shapes(problem):
        yield from _legal(problem, shape)


def is_candidate(problem: GemmProblem, config: GemmConfig) -> bool:
    """Whether `candidates` has it, without going through all of them."""
    block_m, block_n = config.block_m, config.block_n
    if block_m not in block_m_candidates(problem) or block_n not in BLOCK_N:
        return False
    shape = replace(config, num_stages=MIN_STAGES, num_store_rounds=1)
    return shape in block_shapes(problem, block_m, block_n) and config in _legal(problem, shape)


def _legal(problem: GemmProblem, shape: GemmConfig) -> Iterator[GemmConfig]:
    for stages, rounds in stages_and_rounds(shape):
        config = replace(shape, num_stages=stages, num_store_rounds=rounds)
        if stores_heads(config, problem.head_columns) and not broken_rules(config):
            yield config
