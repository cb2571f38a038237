"""How long a configuration takes for a problem, in microseconds: a model of one H100.

A CTA works through its blocks one after the other; a block is its k blocks and an epilogue. A k
block takes as long as the slowest of what runs side by side: the tensor cores, the traffic of
shared memory, the math warpgroups' own round of multiplying and promoting, and the latency of the
loads over the stages that hide it. HBM adds its time, but for what overlaps.

The constants were fitted to a sweep of 2055 kernels over 42 problems on one H100, without those of
two stages, but for ROUND_CLOCKS, which was read off single comparisons (a fit to a later sweep of
425 gives 440), and for the tensor cores' two, which single comparisons with and without clusters
moved from (2.806, 0). Since then the main loop has become shorter, and math warps no longer issue
stores: no constant knows it yet. Both sweeps lie in benchmarks/results; `python -m benchmarks
regret` says how far the choices are from their best.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from deep_gemm.config.gemm_config import BLOCK_K, MMA_M, WARPGROUP, GemmConfig, Grouping
from deep_gemm.config.problem import GemmProblem

CLOCKS_PER_US = 1958.0
"""SM clock, in MHz."""

TENSOR_CLOCKS_PER_COLUMN = 2.53
"""Clocks per column of a k block of one M64 slice: the tensor cores' nominal 2.0, of which the
power limit leaves some 70 % when all of them are at work."""

TENSOR_CLOCKS_PER_L2_BYTE = 0.0026
"""What each byte from L2 adds to that, since it takes power from the tensor cores; a tile that is
multicast counts for a part."""

SMEM_BYTES_PER_CLOCK = 101.1
"""What shared memory supplies to WGMMA and takes from TMA."""

OVERLAPPED_CLOCKS = (211.0, 1.24)
"""Per k block, and per column: a warpgroup that promotes one k block under the next one's WGMMA."""

IN_TURN_CLOCKS = (156.0, 2.984)
"""Per M64 slice, and per column: a warpgroup that multiplies, waits and promotes."""

SEGMENT_CLOCKS = 2.07
"""Per run of columns under one scale factor of B, and M64 slice, where a block has several."""

LOAD_LATENCY = 3677.0
"""Clocks from the release of a stage until it is full again, with the memory system loaded."""

OVERLAPPED_1D1D_CLOCKS = (123.5, 2.837)
IN_TURN_1D1D_CLOCKS = (77.7, 4.726)
LOAD_LATENCY_1D1D = 4214.0
"""The same three where each column has its scale factor. These were fitted to the weight gradients
of the sweep of grouped kernels in benchmarks/results; what is said of FP32 to the same, in a second
fit, which chose better. Since then the main loop has changed."""

EPILOGUE_CLOCKS = 344.0
"""Clocks per block from the last promotion to the first store."""

STORE_CLOCKS = 97.0
"""Clocks per TMA store of one slab of 64 rows, however narrow the slab is."""

ROUND_CLOCKS = 450.0
"""Clocks per further round of a block's epilogue, which waits for the stores of the one before."""

STORE_FP32_CLOCKS = 343.0
ROUND_FP32_CLOCKS = 677.0
"""The same two where FP32 is added to D."""

D_FP32_TRAFFIC = 2.457
"""Times that D passes the memory system where FP32 is added to it: it is read, too."""

SECOND_TILE_TRAFFIC = 0.36
"""Share of B that a second tile of rows brings from HBM once more, where groups have few rows; read
off tiles of 16 and 32 rows in that sweep."""

SUM_CLOCKS = 1000.0
SUM_BYTES_PER_CLOCK = 32.0
"""What it takes to exchange and add up the parts of a split K. Not measured yet."""

HBM_BYTES_PER_US = 2.372e6

HBM_OVERLAP = 0.882
"""Share of the shorter of compute and HBM time that runs under the longer one."""

LAUNCH_US = 3.41
"""Launch, tensor maps, barriers, the first loads and the last store."""

CLUSTER_US = 1.23
"""What a cluster adds: it starts and ends together."""


class Estimate(NamedTuple):
    """A predicted time and where it comes from.

    Attributes:
        us: predicted kernel time in microseconds.
        waves: blocks that the busiest CTA computes, on the average.
        utilisation: share of the CTAs' block slots that hold a block.
        k_block_clocks: clocks per k block.
        bound: what limits a k block, or "HBM" where that limits the kernel.
    """

    us: float
    waves: float
    utilisation: float
    k_block_clocks: float
    bound: str


def k_block_costs(config: GemmConfig) -> dict[str, float]:
    """Clocks of one k block of one CTA, by what may limit it."""
    slices = config.mma_rows // MMA_M
    reads = slices * BLOCK_K * (MMA_M + config.block_n)
    writes = BLOCK_K * (config.block_m + config.block_n)
    l2_bytes = BLOCK_K * (config.block_m / config.cluster_n + config.block_n / config.cluster_m)
    segments = config.block_n // config.sf_segment
    select = SEGMENT_CLOCKS * segments if segments > 1 else 0.0
    latency, overlapped, in_turn = LOAD_LATENCY, OVERLAPPED_CLOCKS, IN_TURN_CLOCKS
    if config.is_1d1d:
        # Every math thread reads the scale factors of a quarter of the columns.
        reads += 4 * config.block_n // 4 * WARPGROUP * config.num_math_warpgroups
        select = 0.0
        latency = LOAD_LATENCY_1D1D
        overlapped, in_turn = OVERLAPPED_1D1D_CLOCKS, IN_TURN_1D1D_CLOCKS
    fixed, per_column = overlapped if config.num_accumulators == 2 else in_turn
    return {
        "tensor cores": slices * TENSOR_CLOCKS_PER_COLUMN * config.block_n
        + TENSOR_CLOCKS_PER_L2_BYTE * l2_bytes,
        "shared memory": (reads + writes) / SMEM_BYTES_PER_CLOCK,
        "math": config.num_waves * (fixed + per_column * config.block_n + select),
        "load latency": latency / (config.num_stages - 0.5),
    }


def epilogue_clocks(config: GemmConfig) -> float:
    """Clocks of one CTA from a block's last promotion on."""
    is_fp32 = config.d_bytes == 4
    num_stores = config.mma_rows // MMA_M * config.num_slabs_per_slice
    stores = num_stores * (STORE_FP32_CLOCKS if is_fp32 else STORE_CLOCKS)
    further_rounds = config.num_store_rounds - 1
    rounds = further_rounds * (ROUND_FP32_CLOCKS if is_fp32 else ROUND_CLOCKS)
    parts = 0.0
    if config.cluster_k > 1:
        parts = SUM_CLOCKS + 4 * config.mma_rows * config.block_n / SUM_BYTES_PER_CLOCK
    return EPILOGUE_CLOCKS + stores + rounds + parts


def hbm_bytes(problem: GemmProblem, config: GemmConfig) -> float:
    """Bytes that pass between HBM and the multiprocessors."""
    num_bytes = float(problem.unique_bytes)
    if problem.d_bytes == 4:
        num_bytes += (D_FP32_TRAFFIC - 1) * problem.output_bytes
    if problem.grouping is Grouping.M_GROUPED and problem.m < MMA_M:
        tiles = problem.cluster_grid(config)[0] / problem.num_groups
        more = min(max(tiles - 1, 0), 1)
        num_bytes += SECOND_TILE_TRAFFIC * more * problem.num_groups * problem.n * problem.k
    return num_bytes


def estimate(problem: GemmProblem, config: GemmConfig) -> Estimate:
    """Predicts the kernel time of a problem of at least one element."""
    rows, columns = problem.cluster_grid(config)
    clusters = max(1, problem.num_sms // config.cluster_size)
    waves = rows * columns / clusters
    # A last wave that is expected to be nearly full may just as well become another one.
    waves = max(1.0, waves + 0.5) if problem.has_unknown_tiles(config) else ceil(waves)
    costs = k_block_costs(config)
    bound = max(costs, key=lambda name: costs[name])
    block_clocks = problem.num_own_k_blocks(config) * costs[bound] + epilogue_clocks(config)
    compute_us = waves * block_clocks / CLOCKS_PER_US
    hbm_us = hbm_bytes(problem, config) / HBM_BYTES_PER_US
    longer, shorter = max(compute_us, hbm_us), min(compute_us, hbm_us)
    fixed_us = LAUNCH_US + CLUSTER_US * (config.cluster_size > 1)
    return Estimate(
        us=fixed_us + longer + (1 - HBM_OVERLAP) * shorter,
        waves=waves,
        utilisation=rows * columns / (waves * clusters),
        k_block_clocks=costs[bound],
        bound=bound if compute_us >= hbm_us else "HBM",
    )
