"""SM100: the configurations worth a look, which are legal, and what each is thought to take.

No SM100 GPU has been measured. The estimates rest on published figures of a B200 and on the shape
of the SM90 model; they order configurations, and are no times to rely on.
"""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil

from deep_gemm.config.cost_model import CLUSTER_US, Estimate
from deep_gemm.config.gemm_config import BLOCK_K
from deep_gemm.config.legality import SMEM_CAPACITY
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import best_band, explanation
from deep_gemm.config.sm90 import stores_heads
from deep_gemm.config.sm100_config import MMA_M, TMEM_COLUMNS, Sm100GemmConfig

NUM_SMS = 148
"""Multiprocessors of a B200."""

MIN_STAGES = 2
MAX_STAGES = 32

CLOCKS_PER_US = 1850.0
TENSOR_CLOCKS_PER_COLUMN = 2.0
"""Clocks per column of a k block: 8192 multiplications of FP8 a clock."""

SMEM_BYTES_PER_CLOCK = 128.0
LOAD_LATENCY = 2500.0
"""Clocks from the release of a stage until it is full again."""

EPILOGUE_CLOCKS = 500.0
EPILOGUE_CLOCKS_PER_COLUMN = 4.0
"""Of a block, from its last MMA on; hidden where there are two accumulators, but for the last."""

HBM_BYTES_PER_US = 6.5e6
LAUNCH_US = 4.0


def broken_rules(config: Sm100GemmConfig) -> list[str]:
    """The rules that a configuration breaks, as 'rule: why'; empty if it is legal."""
    rules = {
        "block_n_is_an_instruction_shape": (
            16 <= config.block_n <= 256 and config.block_n % 16 == 0,
            f"block_n must be a multiple of 16 in 16..256, got {config.block_n}",
        ),
        "ctas_are_a_pair": (
            config.cluster_m in (1, 2),
            f"cluster_m must be 1 or 2, got {config.cluster_m}",
        ),
        "pairs_halve_b": (
            config.cluster_m == 1 or not config.b_is_mn_major or config.block_n % 32 == 0,
            f"block_n of a pair must be a multiple of 32 for MN-major B, got {config.block_n}",
        ),
        "stages_overlap": (
            MIN_STAGES <= config.num_stages <= MAX_STAGES,
            f"num_stages must be {MIN_STAGES}..{MAX_STAGES}, got {config.num_stages}",
        ),
        "scale_factors_fill_words": (
            {config.gran_k_a, config.gran_k_b} <= {32, BLOCK_K},
            f"gran_k must be 32 or {BLOCK_K}, got {config.gran_k_a, config.gran_k_b}",
        ),
        "elements_are_supported": (
            config.d_bytes in (2, 4),
            f"d_bytes must be 2 or 4, got {config.d_bytes}",
        ),
    }
    broken = [f"{name}: {why}" for name, (holds, why) in rules.items() if not holds]
    if broken:
        return broken
    if config.used_columns > TMEM_COLUMNS:
        need, limit = config.used_columns, TMEM_COLUMNS
        broken.append(f"tensor_memory_fits: {need} columns are needed, the limit is {limit}")
    if config.smem_bytes > SMEM_CAPACITY:
        need, limit = config.smem_bytes, SMEM_CAPACITY
        broken.append(f"shared_memory_fits: {need} bytes are needed, the limit is {limit}")
    return broken


@functools.cache
def max_stages(shape: Sm100GemmConfig) -> int:
    """Stages with which a configuration is legal, whatever number it has; fewer than MIN_STAGES if
    there are none."""

    def is_illegal(num_stages: int) -> bool:
        return bool(broken_rules(replace(shape, num_stages=num_stages)))

    return MIN_STAGES - 1 + bisect_right(range(MIN_STAGES, MAX_STAGES + 1), False, key=is_illegal)


def candidates(problem: GemmProblem) -> Iterator[Sm100GemmConfig]:
    """Every legal configuration with as many stages as fit; pairs where there are two blocks to
    cover, one above the other, and multiprocessors to run on."""
    clusters = (1, 2) if problem.m > MMA_M and problem.num_sms >= 2 else (1,)
    for block_n, cluster_m in itertools.product(range(16, 257, 16), clusters):
        if block_n % problem.block_multiple[1] or MMA_M % problem.block_multiple[0]:
            continue
        shape = Sm100GemmConfig(
            *(block_n, MIN_STAGES, problem.grouping, *problem.mn_major, *problem.gran_k),
            d_bytes=problem.d_bytes,
            cluster_m=cluster_m,
        )
        num_stages = max_stages(shape)
        if num_stages >= MIN_STAGES and stores_heads(shape, problem.head_columns):
            yield replace(shape, num_stages=num_stages)


def k_block_costs(config: Sm100GemmConfig) -> dict[str, float]:
    """Clocks of one k block of one CTA, by what may limit it."""
    tile_bytes = BLOCK_K * (MMA_M + config.b_rows)
    return {
        "tensor cores": TENSOR_CLOCKS_PER_COLUMN * config.block_n,
        # What TMA writes, the MMAs read; in a pair each half of B once for both, which is what
        # pairs are said to be for.
        "shared memory": 2 * tile_bytes / SMEM_BYTES_PER_CLOCK,
        "load latency": LOAD_LATENCY / (config.num_stages - 0.5),
    }


def estimate(problem: GemmProblem, config: Sm100GemmConfig) -> Estimate:
    """Predicts the kernel time of a problem of at least one element."""
    rows, columns = problem.cluster_grid(config)
    clusters = max(1, problem.num_sms // config.cluster_size)
    waves = rows * columns / clusters
    waves = max(1.0, waves + 0.5) if problem.has_unknown_tiles(config) else ceil(waves)
    costs = k_block_costs(config)
    bound = max(costs, key=lambda name: costs[name])
    main_loop = problem.num_k_blocks * costs[bound]
    epilogue = EPILOGUE_CLOCKS + EPILOGUE_CLOCKS_PER_COLUMN * config.block_n
    if config.num_accumulators == 2:
        clocks = waves * max(main_loop, epilogue) + epilogue
    else:
        clocks = waves * (main_loop + epilogue)
    # A cluster starts and ends together: what that costs on an H100, for want of a better figure.
    fixed_us = LAUNCH_US + CLUSTER_US * (config.cluster_size > 1)
    compute_us, hbm_us = clocks / CLOCKS_PER_US, problem.unique_bytes / HBM_BYTES_PER_US
    return Estimate(
        us=fixed_us + max(compute_us, hbm_us) + 0.1 * min(compute_us, hbm_us),
        waves=waves,
        utilisation=rows * columns / (waves * clusters),
        k_block_clocks=costs[bound],
        bound=bound if compute_us >= hbm_us else "HBM",
    )


@dataclass(frozen=True, slots=True)
class Sm100Selection:
    """What was chosen for a problem.

    Attributes:
        config: the kernel's configuration.
        band: rows of blocks that the block order walks together (scheduler/dense.cuh).
    """

    config: Sm100GemmConfig
    band: int


def ranked(problem: GemmProblem) -> list[tuple[Sm100GemmConfig, Estimate]]:
    """All candidates with their estimates, cheapest first; equal ones in the order of the sizes."""
    estimates = [(config, estimate(problem, config)) for config in candidates(problem)]
    return sorted(estimates, key=lambda pair: pair[1].us)


@functools.lru_cache(maxsize=65536)
def select(problem: GemmProblem) -> Sm100Selection | None:
    """The cheapest configuration for a problem of at least one element, if there is any; a pure
    function of it."""
    best = next(iter(ranked(problem)), None)
    return None if best is None else Sm100Selection(best[0], best_band(problem, best[0]))


def explain(problem: GemmProblem, num_alternatives: int = 3) -> str:
    """What was chosen for a problem and why, with the next best candidates, one per line."""
    return explanation(problem, ranked(problem)[: num_alternatives + 1])
