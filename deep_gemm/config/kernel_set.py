"""The few kernels that serving is confined to, so that all of them can be compiled beforehand.

Of the candidates for single and for m-grouped products with BF16 results, a few come within a hair
of the best for nearly every problem: tools/choose_kernels.py chose these, for the models of
deep_gemm/config/models.py, and says what it costs. Other kinds of products have all candidates.
"""

from __future__ import annotations

import functools
from dataclasses import replace

from deep_gemm.config.gemm_config import GRAN_N, GemmConfig, Grouping
from deep_gemm.config.legality import max_stages
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm90 import cluster_candidates

Shapes = tuple[tuple[int, int, int, int, int], ...]
"""block_m, block_n, cluster_m, cluster_n and num_store_rounds; stages are as many as fit."""

DENSE: Shapes = (
    (64, 16, 1, 1, 1),
    (64, 32, 1, 1, 1),
    (64, 48, 1, 1, 1),
    (64, 64, 1, 1, 1),
    (64, 80, 1, 1, 1),
    (64, 96, 1, 1, 1),
    (64, 112, 1, 1, 1),
    (64, 128, 1, 1, 1),
    (64, 144, 1, 1, 1),
    (64, 144, 1, 1, 3),
    (64, 160, 1, 1, 1),
    (64, 192, 1, 1, 1),
    (128, 80, 1, 1, 1),
    (128, 96, 1, 1, 1),
    (128, 112, 1, 1, 1),
    (128, 128, 1, 1, 1),
    (128, 144, 1, 1, 1),
    (128, 160, 1, 1, 1),
    (128, 192, 1, 1, 1),
    (128, 192, 2, 1, 1),
    (128, 192, 1, 2, 1),
    (256, 96, 1, 1, 2),
    (256, 112, 1, 1, 2),
    (256, 128, 1, 1, 1),
)

M_GROUPED: Shapes = (
    (64, 48, 1, 1, 1),
    (64, 64, 1, 1, 1),
    (64, 96, 1, 1, 1),
    (64, 128, 1, 1, 1),
    (64, 192, 1, 1, 1),
    (128, 80, 1, 1, 1),
    (128, 96, 1, 1, 1),
    (128, 128, 1, 1, 1),
    (128, 160, 1, 1, 1),
    (128, 192, 1, 1, 1),
    (128, 192, 2, 1, 1),
    (256, 128, 1, 1, 1),
)

SHAPES = {Grouping.DENSE: DENSE, Grouping.M_GROUPED: M_GROUPED}

SPLIT: tuple[tuple[int, int, int], ...] = (
    (64, 64, 2),
    (64, 64, 4),
    (64, 80, 5),
    (64, 160, 5),
)
"""block_m, block_n and cluster_k of those for single products that split K."""


def offered_kernels(problem: GemmProblem) -> list[GemmConfig]:
    """What of the set is worth a look for a problem; nothing if it is not of a kind served."""
    is_served = (
        problem.gran_n == GRAN_N
        and problem.d_bytes == 2
        and problem.head_columns == 0
        and problem.block_multiple == (1, 1)
    )
    if not is_served:
        return []
    return [config for config in kernels(problem.grouping) if offers(problem, config)]


@functools.cache
def kernels(grouping: Grouping) -> tuple[GemmConfig, ...]:
    """The set for products of one grouping, in the order of the candidates."""
    configs = []
    for block_m, block_n, cluster_m, cluster_n, rounds in SHAPES.get(grouping, ()):
        shape = GemmConfig(
            *(block_m, block_n, 2, 1 if block_m <= 64 else 2, cluster_m, cluster_n),
            num_store_rounds=rounds,
            grouping=grouping,
        )
        configs.append(shape)
    if grouping is Grouping.DENSE:
        configs += [GemmConfig(m, n, 2, 1, cluster_k=parts) for m, n, parts in SPLIT]
    return tuple(replace(shape, num_stages=max_stages(shape)) for shape in configs)


def offers(problem: GemmProblem, config: GemmConfig) -> bool:
    """Whether a kernel of the set is worth a look for a problem.

    Here a block may be higher than the candidates' would be: it costs little, and saves a kernel.
    """
    cluster = (config.cluster_m, config.cluster_n, config.cluster_k)
    return cluster in cluster_candidates(problem, config.block_m, config.block_n)
