"""What a configuration must satisfy, as named rules. A rule returns None or why it is broken."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from deep_gemm.config.gemm_config import GRAN_N, MMA_M, GemmConfig, Grouping

SMEM_CAPACITY = 232_448
"""Dynamic shared memory that one CTA may have on SM90, in bytes."""

MAX_STAGES = 32

MAX_CLUSTER = 8
"""CTAs of a cluster that every SM90 device can run."""

MAX_HELD_REGISTERS = 224
"""Registers for sums and scale factors that fit beside everything else: a math thread has 232 where
two warpgroups share the register file. No kernel within this limit spills (tests/compile)."""

Rule = Callable[[GemmConfig], str | None]


def block_m_fits_warpgroups(config: GemmConfig) -> str | None:
    """block_m is 16 or 32, or whole M64 slices for every math warpgroup."""
    if config.num_math_warpgroups not in (1, 2):
        return f"num_math_warpgroups must be 1 or 2, got {config.num_math_warpgroups}"
    if config.block_m in (16, 32) and config.num_math_warpgroups == 1:
        return None
    slices = MMA_M * config.num_math_warpgroups
    if config.block_m < slices or config.block_m % slices or config.block_m > 256:
        return f"block_m must be a multiple of {slices} up to 256, got {config.block_m}"
    return None


def block_n_is_an_instruction_shape(config: GemmConfig) -> str | None:
    """WGMMA takes N up to 256; stmatrix stores pairs of 8 columns."""
    if not 16 <= config.block_n <= 256 or config.block_n % 16:
        return f"block_n must be a multiple of 16 in 16..256, got {config.block_n}"
    return None


def cluster_splits_tiles(config: GemmConfig) -> str | None:
    """Each peer multicasts an equal part of a tile, in whole swizzle patterns of 8 rows."""
    if config.cluster_m < 1 or config.cluster_n < 1:
        return f"cluster_m and cluster_n must be positive, got {config.cluster_m, config.cluster_n}"
    if config.cluster_m * config.cluster_n > 2:
        shape = f"{config.cluster_m} x {config.cluster_n}"
        return f"tiles are shared by at most 2 CTAs, got {shape}"
    if config.block_m % (8 * config.cluster_n):
        return f"block_m must be a multiple of {8 * config.cluster_n}, got {config.block_m}"
    if config.block_n % (8 * config.cluster_m):
        return f"block_n must be a multiple of {8 * config.cluster_m}, got {config.block_n}"
    return None


def parts_split_columns(config: GemmConfig) -> str | None:
    """CTAs that split K share no tile, and own whole pairs of 8 columns each."""
    if not 1 <= config.cluster_k <= MAX_CLUSTER:
        return f"cluster_k must be 1..{MAX_CLUSTER}, got {config.cluster_k}"
    if config.cluster_k == 1:
        return None
    if config.cluster_size > config.cluster_k or config.grouping is not Grouping.DENSE:
        return f"cluster_k must be 1 in grouped products and shared tiles, got {config.cluster_k}"
    if config.block_n % (16 * config.cluster_k):
        return f"block_n must be a multiple of {16 * config.cluster_k}, got {config.block_n}"
    return None


def elements_are_supported(config: GemmConfig) -> str | None:
    """Scale factors per row of B or per 128 of them; D in BF16 or FP32."""
    if config.gran_n not in (1, GRAN_N):
        return f"gran_n must be 1 or {GRAN_N}, got {config.gran_n}"
    if config.d_bytes not in (2, 4):
        return f"d_bytes must be 2 or 4, got {config.d_bytes}"
    return None


def sums_fit_registers(config: GemmConfig) -> str | None:
    """The sums stay in registers: a spill would cost more than any tile shape gains."""
    needed = config.held_registers
    if needed > MAX_HELD_REGISTERS:
        return f"sums and scale factors need {needed} registers, the limit is {MAX_HELD_REGISTERS}"
    return None


def rounds_split_slabs(config: GemmConfig) -> str | None:
    """Every round of the epilogue stores the same number of slabs."""
    if config.num_store_rounds < 1 or config.num_slabs % config.num_store_rounds:
        slabs, rounds = config.num_slabs, config.num_store_rounds
        return f"num_store_rounds must divide {slabs} slabs, got {rounds}"
    return None


def shared_memory_fits(config: GemmConfig) -> str | None:
    """The ring and the staging memory of D fit one SM, and the ring overlaps loads with math."""
    if not 2 <= config.num_stages <= MAX_STAGES:
        return f"num_stages must be 2..{MAX_STAGES}, got {config.num_stages}"
    if config.smem_bytes > SMEM_CAPACITY:
        return f"shared memory needs {config.smem_bytes} bytes, the limit is {SMEM_CAPACITY}"
    return None


RULES: tuple[tuple[Rule, ...], ...] = (
    (elements_are_supported, block_m_fits_warpgroups, block_n_is_an_instruction_shape),
    (cluster_splits_tiles, parts_split_columns),
    (sums_fit_registers, rounds_split_slabs),
    (shared_memory_fits,),
)
"""In groups: the rules of one group rely on those of the groups before."""


def broken_rules(config: GemmConfig) -> list[str]:
    """The rules that the configuration breaks, as 'rule: why', of the first group that has any;
    empty if it is legal."""
    for rules in RULES:
        reasons = ((rule.__name__, rule(config)) for rule in rules)
        broken = [f"{name}: {reason}" for name, reason in reasons if reason is not None]
        if broken:
            return broken
    return []


def max_stages(shape: GemmConfig, num_store_rounds: int | None = None) -> int:
    """Stages that fit into shared memory for a configuration, whatever number of them it has, with
    its own rounds or other ones."""
    rounds = num_store_rounds or shape.num_store_rounds

    def smem_bytes(num_stages: int) -> int:
        return shape.smem_bytes_with(num_stages, rounds)

    # By halves: one by one was most of the time that a process took to choose its first kernel.
    return 1 + bisect_right(range(2, MAX_STAGES + 1), SMEM_CAPACITY, key=smem_bytes)
