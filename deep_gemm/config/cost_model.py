"""How long a configuration takes for a problem, in microseconds: a model of one H100.

A CTA works through its blocks one after the other; a block is its k blocks and an epilogue. A k
block takes as long as the slowest of what runs side by side: the tensor cores, the traffic of
shared memory, the math warpgroups' own round of multiplying and promoting, and the latency of the
loads over the stages that hide it. HBM adds its time, but for what overlaps.

The constants were fitted to a sweep of 2055 kernels over 42 problems on one H100, without those of
two stages, but for ROUND_CLOCKS, which was read off single comparisons; a fit to a later sweep of
425 gives 440. Both sweeps lie in benchmarks/results; `python -m benchmarks regret` says how far the
choices are from their best.
"""

from __future__ import annotations

from dataclasses import dataclass

from deep_gemm.config.gemm_config import BLOCK_K, MMA_K, MMA_M, WARPGROUP, GemmConfig
from deep_gemm.config.problem import GemmProblem

CLOCKS_PER_US = 1958.0
"""SM clock, in MHz."""

TENSOR_CLOCKS_PER_COLUMN = 2.806
"""Clocks per column of a k block of one M64 slice: the tensor cores' nominal 2.0, of which the
power limit leaves some 70 % when all of them are at work."""

SMEM_BYTES_PER_CLOCK = 101.1
"""What shared memory supplies to WGMMA and takes from TMA."""

OVERLAPPED_CLOCKS = (211.0, 1.24)
"""Per k block, and per column: a warpgroup that promotes one k block under the next one's WGMMA."""

IN_TURN_CLOCKS = (156.0, 2.984)
"""Per M64 slice, and per column: a warpgroup that multiplies, waits and promotes."""

SEGMENT_CLOCKS = 2.07
"""Per run of columns under one scale factor of B, and M64 slice, where a block has several."""

COLUMN_SCALE_CLOCKS = 1.0
"""Per column and M64 slice where each column has its scale factor (1D1D): its multiplications."""

LOAD_LATENCY = 3677.0
"""Clocks from the release of a stage until it is full again, with the memory system loaded."""

EPILOGUE_CLOCKS = 344.0
"""Clocks per block from the last promotion to the first store."""

STORE_CLOCKS = 97.0
"""Clocks per TMA store of one slab of 64 rows, however narrow the slab is."""

ROUND_CLOCKS = 450.0
"""Clocks per further round of a block's epilogue, which waits for the stores of the one before."""

HBM_BYTES_PER_US = 2.372e6

HBM_OVERLAP = 0.882
"""Share of the shorter of compute and HBM time that runs under the longer one."""

LAUNCH_US = 3.41
"""Launch, tensor maps, barriers, the first loads and the last store."""

CLUSTER_US = 1.23
"""What a cluster adds: it starts and ends together."""


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


def k_block_costs(config: GemmConfig) -> dict[str, float]:
    """Clocks of one k block of one CTA, by what may limit it."""
    slices = config.mma_rows // MMA_M
    reads = slices * (BLOCK_K // MMA_K) * MMA_K * (MMA_M + config.block_n)
    writes = BLOCK_K * (config.block_m + config.block_n)
    segments = config.block_n // config.sf_segment
    scaling = SEGMENT_CLOCKS * segments if segments > 1 else 0.0
    if config.is_1d1d:
        # Every math thread has a quarter of the columns.
        reads += 4 * config.block_n // 4 * WARPGROUP * config.num_math_warpgroups
        scaling = COLUMN_SCALE_CLOCKS * config.block_n
    if config.num_accumulators == 2:
        math = OVERLAPPED_CLOCKS[0] + OVERLAPPED_CLOCKS[1] * config.block_n + scaling
    else:
        slice_clocks = IN_TURN_CLOCKS[0] + IN_TURN_CLOCKS[1] * config.block_n + scaling
        math = config.num_waves * slice_clocks
    return {
        "tensor cores": slices * TENSOR_CLOCKS_PER_COLUMN * config.block_n,
        "shared memory": (reads + writes) / SMEM_BYTES_PER_CLOCK,
        "math": math,
        "load latency": LOAD_LATENCY / (config.num_stages - 0.5),
    }


def estimate(problem: GemmProblem, config: GemmConfig) -> Estimate:
    """Predicts the kernel time of a problem of at least one element."""
    rows, columns = problem.cluster_grid(config)
    clusters = max(1, problem.num_sms // config.cluster_size)
    waves = -(-rows * columns // clusters)
    costs = k_block_costs(config)
    bound = max(costs, key=lambda name: costs[name])
    num_stores = (
        config.mma_rows // MMA_M * (config.d_bytes * config.block_n // config.d_swizzle_bytes)
    )
    epilogue = EPILOGUE_CLOCKS + STORE_CLOCKS * num_stores
    epilogue += ROUND_CLOCKS * (config.num_store_rounds - 1)
    block_clocks = problem.num_k_blocks * costs[bound] + epilogue
    compute_us = waves * block_clocks / CLOCKS_PER_US
    hbm_us = problem.unique_bytes / HBM_BYTES_PER_US
    longer, shorter = max(compute_us, hbm_us), min(compute_us, hbm_us)
    fixed_us = LAUNCH_US + CLUSTER_US * (config.cluster_size > 1)
    return Estimate(
        us=fixed_us + longer + (1 - HBM_OVERLAP) * shorter,
        waves=waves,
        utilisation=rows * columns / (waves * clusters),
        k_block_clocks=costs[bound],
        bound=bound if compute_us >= hbm_us else "HBM",
    )
