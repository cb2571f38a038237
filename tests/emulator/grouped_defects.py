"""Seeded defects of what grouped products, 1D1D and accumulation add to the dense kernel."""

from __future__ import annotations

from dataclasses import dataclass

from tests.emulator.defects import (
    CONFIG,
    KERNEL,
    LOAD_SF,
    LOAD_TILES,
    MULTIPLY,
    PIPELINE,
    READ_FENCE,
    STAGE,
    STORE,
    WRONG,
)
from tests.emulator.grouped_cases import (
    ENDS,
    IDS,
    IN_TURN,
    LEFT_OVER,
    MANY,
    MASKED,
    ODD_ROWS,
    ONE_BLOCK,
    PARTIAL,
    PEERS,
    STRETCHES,
    SUMS,
    GroupedCase,
)

COPY_ROWS = "epilogue/copy_rows.cuh"
RING = "scheduler/block_ring.cuh"
ROW_IDS = "scheduler/row_ids.cuh"
GROUP_ROWS = "scheduler/group_rows.cuh"
CLUSTER_GRID = "scheduler/cluster_grid.cuh"
K_GROUPED = "scheduler/k_grouped.cuh"
PERSISTENT = "scheduler/persistent.cuh"
MAPS = "kernels/k_group_maps.cuh"


@dataclass(frozen=True)
class GroupedDefect:
    """As `Defect` of tests/emulator/defects.py, for a grouped case."""

    name: str
    header: str
    before: str
    after: str
    outcome: str
    case: GroupedCase

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


ACQUIRE_A = "ptx::fence_proxy_tensormap_acquire(map_a);"
ACQUIRE_B = "ptx::fence_proxy_tensormap_acquire(map_b);"
CHANGE_A = (
    "if (block.num_k_blocks > 0) ptx::tensormap_replace_inner_dim(const_cast<TensorMap*>(map_a),"
    " block.num_k_blocks * kConfig.kBlockK);"
)
RELEASE = "ptx::fence_proxy_tensormap_release();"
READERS = "return num_math_warpgroups * 4 + 3"

BLOCK_RING = [
    GroupedDefect("a reader too few", CONFIG, READERS, f"{READERS} - 1", "race", PARTIAL),
    GroupedDefect("a reader too many", CONFIG, READERS, f"{READERS} + 1", "R11", PARTIAL),
    GroupedDefect(
        "a slot is not announced", RING, "pipeline.producer_arrive(state);", "", "R11", PARTIAL
    ),
    GroupedDefect(
        "a slot is announced before it is written",
        RING,
        """ring.slots[state.stage] = {block, more ? 0u : 1u};
            pipeline.producer_arrive(state);""",
        """pipeline.producer_arrive(state);
            ring.slots[state.stage] = {block, more ? 0u : 1u};""",
        "race",
        PARTIAL,
    ),
    GroupedDefect(
        "a slot is overwritten before it is read",
        RING,
        "pipeline.producer_acquire(state);",
        "",
        "R11",
        PARTIAL,
    ),
    GroupedDefect(
        "a slot is read before it is full", RING, "pipeline.consumer_wait(state);", "", "R26", IDS
    ),
    GroupedDefect(
        "a slot is released before it is read",
        RING,
        """const BlockSlot slot = ring.slots[state.stage];
        pipeline.consumer_release(pipeline.release_address(state));""",
        """pipeline.consumer_release(pipeline.release_address(state));
        const BlockSlot slot = ring.slots[state.stage];""",
        "race",
        PARTIAL,
    ),
    GroupedDefect("no block is the last", RING, "more ? 0u : 1u", "0u", "R11", PARTIAL),
    GroupedDefect(
        "a reader goes on behind the last", RING, "if (is_last) return false;", "", "R11", IDS
    ),
    GroupedDefect("the last block is no end", RING, "if (!more) block = {};", "", WRONG, SUMS),
    GroupedDefect(
        "barriers without an init",
        KERNEL,
        "BlockPipeline<kConfig>{smem.block_ring.barriers}.init();",
        "",
        "R9",
        IDS,
    ),
]

SCHEDULERS = [
    GroupedDefect(
        "rows of a run are skipped", ROW_IDS, "first += 32)", "first += 64)", WRONG, PARTIAL
    ),
    GroupedDefect(
        "peers that lie side by side take the same column",
        CLUSTER_GRID,
        "* kConfig.cluster_m + rank_m",
        "* kConfig.cluster_m",
        WRONG,
        LEFT_OVER,
    ),
    GroupedDefect(
        "peers that lie side by side share B",
        ROW_IDS,
        "bool shares_b = lie_below_each_other;",
        "bool shares_b = true;",
        WRONG,
        LEFT_OVER,
    ),
    GroupedDefect(
        "groups are skipped", GROUP_ROWS, "first_group += 32;", "first_group += 64;", WRONG, MANY
    ),
    GroupedDefect(
        "tiles of 16 lanes are counted", GROUP_ROWS, "distance < 32", "distance < 16", WRONG, MANY
    ),
    GroupedDefect(
        "a group begins unaligned",
        GROUP_ROWS,
        "const uint32_t first = min(align(before, args.alignment), args.m);",
        "const uint32_t first = before;",
        WRONG,
        ENDS,
    ),
    GroupedDefect(
        "masked groups share a matrix",
        GROUP_ROWS,
        "block.a_batch = block.d_batch = group;",
        "block.d_batch = group;",
        WRONG,
        MASKED,
    ),
    GroupedDefect(
        "peers take pieces apart",
        PERSISTENT,
        "next_cluster(cta_idx / kConfig.cluster_size())",
        "next_cluster(cta_idx)",
        "R11",
        PEERS,
    ),
    GroupedDefect(
        "scale factors of the first group",
        K_GROUPED,
        ".first_k_block = k_group->first_k_block",
        ".first_k_block = 0",
        WRONG,
        STRETCHES,
    ),
]

GROUP_MAPS = [
    GroupedDefect("A's map is not acquired", LOAD_TILES, ACQUIRE_A, "", "R31", STRETCHES),
    GroupedDefect("B's map is not acquired", LOAD_TILES, ACQUIRE_B, "", "R31", STRETCHES),
    GroupedDefect(
        "a map is changed and not released",
        LOAD_TILES,
        ACQUIRE_A,
        CHANGE_A + ACQUIRE_A,
        "R31",
        ONE_BLOCK,
    ),
    GroupedDefect(
        "a map is changed in use",
        LOAD_TILES,
        ACQUIRE_A,
        CHANGE_A + RELEASE + ACQUIRE_A,
        "R32",
        STRETCHES,
    ),
    GroupedDefect(
        "the first group's maps", LOAD_TILES, "+ 2 * block.d_batch", "", WRONG, STRETCHES
    ),
    GroupedDefect(
        "a map without its address",
        MAPS,
        "ptx::tensormap_replace_global_address(&maps[lane], args.operands[lane] + offset);",
        "ptx::tensormap_replace_global_address(&maps[lane], args.operands[lane]);",
        WRONG,
        STRETCHES,
    ),
    GroupedDefect(
        "a map of one k block",
        MAPS,
        "ptx::tensormap_replace_inner_dim(&maps[lane], k);",
        "",
        WRONG,
        STRETCHES,
    ),
    GroupedDefect(
        "a map without its stride",
        MAPS,
        "ptx::tensormap_replace_middle_stride(&maps[lane], k);",
        "",
        WRONG,
        STRETCHES,
    ),
    GroupedDefect(
        "no map is prefetched",
        KERNEL,
        "if constexpr (kConfig.grouping != Grouping::kKGrouped) {",
        "{",
        "R18",
        STRETCHES,
    ),
]

STORES = [
    GroupedDefect(
        "a partial slab is copied whole",
        STORE,
        "block.stored_rows - row, block.d_batch,",
        "kSlabRows, block.d_batch,",
        WRONG,
        MASKED,
    ),
    GroupedDefect(
        "a partial slab is stored whole",
        STORE,
        "if (row + kSlabRows > block.stored_rows) {",
        "if (false) {",
        WRONG,
        MASKED,
    ),
    GroupedDefect(
        "a slab is copied beyond the last column",
        COPY_ROWS,
        "min<int>((args.n - column) * kConfig.d_bytes / 16, kChunks)",
        "kChunks",
        "bounds",
        PARTIAL,
    ),
    GroupedDefect(
        "a slab is copied to another matrix",
        COPY_ROWS,
        "batch * args.d_stride_batch +",
        "",
        WRONG,
        MASKED,
    ),
    GroupedDefect(
        "D is copied before it is staged",
        STORE,
        "pipeline.consumer_wait(state);",
        "",
        "R26",
        PARTIAL,
    ),
    GroupedDefect(
        "D is staged before it is copied",
        STAGE,
        "            pipeline.producer_acquire(state);\n",
        "",
        "race",
        PARTIAL,
    ),
    GroupedDefect("no proxy fence", STAGE, "ptx::fence_proxy_async();", "", "R1", IDS),
    GroupedDefect(
        "a block without rows is waited for",
        STORE,
        "if (kConfig.grouping != Grouping::kDense && block.stored_rows == 0) continue;",
        "",
        "R11",
        IDS,
    ),
    GroupedDefect(
        "padding is not cleared",
        KERNEL,
        "if (block.valid_rows < block.stored_rows) {",
        "if (false) {",
        WRONG,
        IDS,
    ),
    GroupedDefect(
        "padding is not cleared behind ends",
        KERNEL,
        "if (block.valid_rows < block.stored_rows) {",
        "if (false) {",
        WRONG,
        ENDS,
    ),
    GroupedDefect(
        "the second warpgroup clears the first's padding",
        KERNEL,
        "static_cast<int>(block.valid_rows) - first_row",
        "static_cast<int>(block.valid_rows)",
        WRONG,
        IDS,
    ),
    GroupedDefect(
        "added, not stored", STORE, "if (args.accumulates) {", "if (true) {", WRONG, STRETCHES
    ),
    GroupedDefect(
        "stored, not added", STORE, "if (args.accumulates) {", "if (false) {", WRONG, SUMS
    ),
]

SCALE_FACTORS = [
    GroupedDefect(
        "a box of SFA at an odd row", LOAD_SF, "&& block.m % 4 == 0", "", "R14", ODD_ROWS
    ),
    GroupedDefect(
        "words under a box of SFA",
        LOAD_SF,
        "ptx::fence_proxy_async();",
        "",
        "R1",
        ODD_ROWS,
    ),
    GroupedDefect(
        "no proxy fence behind reads",
        PIPELINE,
        READ_FENCE,
        "consumer_release(release_address);",
        "R35",
        STRETCHES,
    ),
    GroupedDefect(
        "too few bytes of scale factors",
        LOAD_SF,
        "(kConfig.block_m + kConfig.block_n)",
        "kConfig.block_m",
        "R2",
        STRETCHES,
    ),
    GroupedDefect(
        "too many bytes of scale factors",
        LOAD_SF,
        "(kConfig.block_m + kConfig.block_n)",
        "(kConfig.block_m + 2 * kConfig.block_n)",
        "R11",
        STRETCHES,
    ),
    GroupedDefect(
        "scale factors of B begin at the first column",
        LOAD_SF,
        "full, block.n,",
        "full, 0,",
        WRONG,
        SUMS,
    ),
    GroupedDefect(
        "a full group of scale factors is not ended",
        MULTIPLY,
        "ends_group = k == num_k_blocks - 1;",
        "ends_group = kIsLast && k == num_k_blocks - 1;",
        "R11",
        IN_TURN,
    ),
    GroupedDefect(
        "scale factors of B are everybody's",
        LOAD_SF,
        "args.sfb + block.b_batch * args.sfb_stride_batch +",
        "args.sfb +",
        WRONG,
        MASKED,
    ),
]

# The neighbour of those that change a map: nothing uses it then, and all its fences are there.
NO_DEFECT = GroupedDefect(
    "a map is changed, released and acquired",
    LOAD_TILES,
    ACQUIRE_A,
    CHANGE_A + RELEASE + ACQUIRE_A,
    "",
    ONE_BLOCK,
)

GROUPED_DEFECTS = [*BLOCK_RING, *SCHEDULERS, *GROUP_MAPS, *STORES, *SCALE_FACTORS]
