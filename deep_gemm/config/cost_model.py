"""How long a configuration takes for a problem, in microseconds: a model of one H100.

A CTA works through its blocks one after the other; a block is its k blocks and an epilogue. A k
block takes as long as the slowest of three things that run side by side: the tensor cores, the promotion
with the latencies around it, and the L2 that feeds the stage. HBM bounds the whole from below.
"""

from __future__ import annotations

from dataclasses import dataclass

from deep_gemm.config.gemm_config import BLOCK_K, MMA_M, GemmConfig
from deep_gemm.config.problem import GemmProblem

CLOCKS_PER_US = 1650.0
"""SM clock under this load, in MHz."""

HBM_BYTES_PER_US = 3.0e6

L2_BYTES_PER_CLOCK_PER_SM = 46.6

LAUNCH_US = 3.5
"""Launch, tensor maps, barriers, the first loads and the last store."""

K_BLOCK_LATENCY = 110.0
"""Clocks of a k block in which a math warpgroup neither multiplies nor adds."""

EPILOGUE_CLOCKS = 700.0
"""Clocks between the last WGMMA of a block and the first of the next."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A predicted time and where it comes from.

    Attributes:
        us: predicted kernel time in microseconds.
        waves: blocks that the busiest CTA computes.
        utilisation: share of the CTAs' block slots that hold a block.
        k_block_clocks: clocks per k block.
        bound: what limits a k block, or "HBM" where that limits the kernel.
    """

    us: float
    waves: int
    utilisation: float
    k_block_clocks: float
    bound: str


def unique_bytes(problem: GemmProblem) -> int:
    """Bytes that every kernel must move: operands, scale factors and D, once each."""
    m, n, k = problem.m, problem.n, problem.k
    sf_bytes = 4 * problem.num_k_blocks * (m + -(-n // 128))
    return (m + n) * k + 2 * m * n + sf_bytes


def k_block_costs(config: GemmConfig) -> dict[str, float]:
    """Clocks of one k block of one CTA, by what may limit it."""
    slices = config.mma_rows // MMA_M
    tensor = slices * 2.0 * config.block_n
    promotion = 0.5 * config.block_n + K_BLOCK_LATENCY
    math = config.num_waves * (2.0 * config.block_n + promotion)
    tile_bytes = BLOCK_K * (config.block_m / config.cluster_n + config.block_n / config.cluster_m)
    return {"tensor": tensor, "math": math, "L2": tile_bytes / L2_BYTES_PER_CLOCK_PER_SM}


def estimate(problem: GemmProblem, config: GemmConfig) -> Estimate:
    """Predicts the kernel time of a problem of at least one element."""
    rows, columns = config.cluster_grid(problem.m, problem.n)
    clusters = max(1, problem.num_sms // config.cluster_size)
    waves = -(-rows * columns // clusters)
    costs = k_block_costs(config)
    bound = max(costs, key=lambda name: costs[name])
    block_clocks = problem.num_k_blocks * costs[bound] + EPILOGUE_CLOCKS
    compute_us = waves * block_clocks / CLOCKS_PER_US
    hbm_us = unique_bytes(problem) / HBM_BYTES_PER_US
    return Estimate(
        us=LAUNCH_US + max(compute_us, hbm_us),
        waves=waves,
        utilisation=rows * columns / (waves * clusters),
        k_block_clocks=costs[bound],
        bound=bound if compute_us >= hbm_us else "HBM",
    )
