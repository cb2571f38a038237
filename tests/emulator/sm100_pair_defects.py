"""Seeded defects of CTA pairs: small edits, and what each must come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.jit.source import include_root
from tests.emulator.defects import WRONG
from tests.emulator.sm100 import Case, run_case
from tests.emulator.sm100_pairs import M_GROUPED, contiguous, paired
from tests.grouped_operands import row_ids

# Several blocks per pair, more k blocks than stages and more groups of scale factors than slots.
DENSE = Case(Sm100GemmConfig(32, 2, cluster_m=2), 300, 40, 656)

KERNEL = "kernels/sm100_fp8_gemm.cuh"
PAIR = "sm100/pair.cuh"
TILES = "sm100/load_tiles.cuh"
SF = "sm100/load_scale_factors.cuh"
MULTIPLY = "sm100/multiply.cuh"
STORAGE = "sm100/storage.cuh"
CONFIG = "sm100/gemm_config.cuh"
TCGEN05 = "ptx/tcgen05.cuh"
COPY = "ptx/copy.cuh"
ROW_IDS = "scheduler/row_ids.cuh"
CLUSTER_GRID = "scheduler/cluster_grid.cuh"


# Who leads, and where barriers are: from one statement of the header to the other.
_TEXT = (include_root() / PAIR).read_text()
LEADER = _TEXT[_TEXT.index("return kConfig.shares_mmas() ?") : _TEXT.index("// Arrives there")]


def dense() -> None:
    run_case(DENSE)


def two_groups() -> None:
    """The rows of a pair belong to one group in the upper half, and to another in the lower one."""
    with paired():
        contiguous(row_ids([(0, 128), (1, 128)], 128))()


def odd_number_of_blocks() -> None:
    with paired():
        M_GROUPED["ends aligned to 128"]()


@dataclass(frozen=True)
class PairDefect:
    """An edit of one header, and what must come of it; see tests/emulator/defects.py."""

    name: str
    header: str
    before: str
    after: str
    outcome: str
    run: Callable[[], None] = dense

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


PAIR_DEFECTS = [
    # Who issues
    PairDefect(
        "both CTAs start MMAs",
        KERNEL,
        "rank_in_pair<kConfig>() == 0 && ptx::elect_one()",
        "ptx::elect_one()",
        "R11",
    ),
    PairDefect(
        "the odd CTA leads",
        PAIR,
        LEADER,
        LEADER.replace("ptx::cluster_ctarank()", "1 - ptx::cluster_ctarank()").replace(
            "ptx::mapa(own, 0)", "ptx::mapa(own, 1)"
        ),
        "R34",
    ),
    # Loads
    PairDefect(
        "bytes of one CTA expected",
        CONFIG,
        "return cluster_m * (a_tile_bytes() + b_tile_bytes());",
        "return a_tile_bytes() + b_tile_bytes();",
        "R2",
    ),
    PairDefect(
        "both CTAs expect the bytes",
        TILES,
        "if (rank == 0) pipeline.producer_expect",
        "pipeline.producer_expect",
        "R10",
    ),
    PairDefect(
        "loads that are not a pair's",
        COPY,
        '".cta_group::2.L2::cache_hint [%0]',
        '".L2::cache_hint [%0]',
        "R34",
    ),
    PairDefect(
        "bytes count where they are",
        TILES,
        "leader_address<kConfig>(full)",
        "ptx::shared_address(full)",
        "R11",
    ),
    PairDefect(
        "the first half of B twice", TILES, "block.n + rank * kConfig.b_part()", "block.n", WRONG
    ),
    PairDefect(
        "halves of B exchanged",
        TILES,
        "block.n + rank * kConfig.b_part()",
        "block.n + (1 - rank) * kConfig.b_part()",
        WRONG,
    ),
    # Scale factors
    PairDefect(
        "scale factors of B in one CTA alone",
        SF,
        "load_sf_words<kConfig.block_n>(",
        "if (rank_in_pair<kConfig>() == 0) load_sf_words<kConfig.block_n>(",
        "R26",
    ),
    PairDefect(
        "scale factors of half of B",
        SF,
        "load_sf_words<kConfig.block_n>(",
        "load_sf_words<kConfig.b_part()>(",
        "R26",
    ),
    PairDefect(
        "scale factors of the leader's rows",
        SF,
        "block.m * args.sfa_stride_m;",
        "(block.m - rank_in_pair<kConfig>() * kConfig.block_m) * args.sfa_stride_m;",
        WRONG,
    ),
    PairDefect(
        "the peer's scale factors not waited for",
        STORAGE,
        "Pipeline<kConfig.num_sf_groups(), 32 * kConfig.cluster_m, 1, 1>",
        "Pipeline<kConfig.num_sf_groups(), 32, 1, 1>",
        "R11",
    ),
    PairDefect(
        "scale factors announced to their own CTA",
        SF,
        "announce_to_leader<kConfig>(pipeline.full_barrier(ready));",
        "pipeline.producer_arrive(ready);",
        "R11",
    ),
    # Commits, and the epilogue's arrivals
    PairDefect("commits tell the leader alone", TCGEN05, "kBoth = 0b11", "kBoth = 0b01", "R11"),
    PairDefect("commits tell the odd CTA alone", TCGEN05, "kBoth = 0b11", "kBoth = 0b10", "R11"),
    PairDefect("commits tell a third CTA", TCGEN05, "kBoth = 0b11", "kBoth = 0b111", "R13"),
    PairDefect(
        "the leader does not wait for the peer's epilogue",
        STORAGE,
        "Pipeline<kConfig.num_accumulators(), 1, 4 * kConfig.cluster_m, 1>",
        "Pipeline<kConfig.num_accumulators(), 1, 4, 1>",
        "R11",
    ),
    PairDefect(
        "an accumulator released in its own CTA",
        KERNEL,
        "arrive_at_leader<kConfig>(accumulators.empty_barrier(accumulator));",
        "ptx::mbarrier_arrive<false>(ptx::shared_address(accumulators.empty_barrier(accumulator)));",
        "R11",
    ),
    # Beginning and end
    PairDefect(
        "work begins before the peer's barriers exist",
        KERNEL,
        "    sync_pair<kConfig>();\n    ptx::tcgen05_fence_after_sync();\n\n    if",
        "    __syncthreads();\n    ptx::tcgen05_fence_after_sync();\n\n    if",
        "R9",
    ),
    PairDefect(
        "tensor memory given back while the peer may read its own",
        KERNEL,
        "    sync_pair<kConfig>();\n    ptx::tcgen05_fence_after_sync();\n    if (warp == 3)",
        "    __syncwarp();\n    __syncthreads();\n    ptx::tcgen05_fence_after_sync();\n"
        "    if (warp == 3)",
        "R19",
    ),
    PairDefect(
        "the leader alone gives tensor memory back",
        KERNEL,
        "if (warp == 3) ptx::tcgen05_dealloc",
        "if (warp == 3 && rank_in_pair<kConfig>() == 0) ptx::tcgen05_dealloc",
        "R11",
    ),
    PairDefect(
        "the odd CTA leaves before commits of stages arrive",
        TILES,
        "if (kConfig.shares_mmas() && issues) pipeline.producer_tail(state);",
        "",
        "R12",
    ),
    PairDefect(
        "the odd CTA leaves before commits of scale factors arrive",
        SF,
        "if constexpr (kConfig.shares_mmas()) pipeline.producer_tail(started);",
        "",
        "R12",
    ),
    # Groups
    PairDefect(
        "a pair of two groups",
        ROW_IDS,
        "if (kConfig.shares_mmas() && !fits) continue;",
        "",
        WRONG,
        two_groups,
    ),
    PairDefect(
        "the last block of a group's odd number is left out",
        CLUSTER_GRID,
        "return kConfig.shares_mmas() ? ceil_div<uint32_t>(tiles, kConfig.cluster_m)",
        "return false ? 0u",
        WRONG,
        odd_number_of_blocks,
    ),
]
