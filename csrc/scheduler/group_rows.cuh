// Blocks of an m-grouped product of which every group's number of rows is known: each group has
// tiles of its own, so that its rows may begin anywhere, and groups of no rows take no time. A tile
// is a block of each of a cluster's CTAs; those beyond the group's rows load and multiply as the
// others do, whose tile of B they bring a part of, and store nothing.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "scheduler/block_order.cuh"
#include "scheduler/persistent.cuh"

namespace deep_gemm {

// The rows of one group.
struct GroupRows {
    uint32_t first;   // row at which they begin
    uint32_t valid;   // rows that hold something
    uint32_t stored;  // the same and the padding that is to become zero
};

// A number of the grouped layout, as one of rows that there are.
DG_DEVICE uint32_t clamped_rows(const GemmArguments& args, uint32_t group) {
    return min<uint32_t>(max(args.grouped_layout[group], 0), args.m);
}

// Group `group`'s rows, as the grouped layout has them. What it holds is clamped first, in unsigned
// numbers: aligned, a large one would overflow.
DG_DEVICE GroupRows group_rows(const GemmArguments& args, uint32_t group) {
    const uint32_t number = clamped_rows(args, group);
    if (args.layout == GroupedLayout::kRowCounts) return {0, number, number};
    // kRowEnds: a group begins where the one before ends, aligned. One that ends before it begins
    // is empty.
    const uint32_t before = group == 0 ? 0 : clamped_rows(args, group - 1);
    const uint32_t first = min(align(before, args.alignment), args.m);
    const uint32_t end = max(number, first);
    const uint32_t stored = args.clears_padding ? min(align(end, args.alignment), args.m) : end;
    return {first, end - first, stored - first};
}

// To be walked by a whole warp: it looks at 32 groups at a time, each lane at one.
template <GemmConfig kConfig>
struct GroupRowsScheduler {
    static constexpr uint32_t kTileRows = kConfig.block_m * kConfig.cluster_m;

    const GemmArguments& args;
    PersistentCta<kConfig> cta;
    uint32_t num_columns;      // of clusters
    uint32_t first_group = 0;  // of the 32
    uint32_t first_tile = 0;   // tiles of the groups before them
    GroupRows mine;            // rows of this lane's group
    uint32_t tiles_up_to;      // tiles of the lanes' groups up to this one's

    DG_DEVICE GroupRowsScheduler(const GemmArguments& args, uint32_t cta_idx, uint32_t num_ctas)
        : args(args),
          cta(cta_idx, num_ctas),
          num_columns(ceil_div<uint32_t>(args.n, kConfig.block_n * kConfig.cluster_n)) {
        look_at_groups();
    }

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        uint32_t ahead;
        while ((ahead = groups_ahead()) == 0) {
            first_tile += __shfl_sync(0xffffffff, tiles_up_to, 31);
            first_group += 32;
            if (first_group >= args.num_groups) return false;
            look_at_groups();
        }
        const uint32_t lane = ptx::find_first_set(ahead);
        const GroupRows rows = {__shfl_sync(0xffffffff, mine.first, lane),
                                __shfl_sync(0xffffffff, mine.valid, lane),
                                __shfl_sync(0xffffffff, mine.stored, lane)};
        const uint32_t tiles = ceil_div(rows.stored, kTileRows);
        const uint32_t tiles_before =
            first_tile + __shfl_sync(0xffffffff, tiles_up_to, lane) - tiles;
        take_block(block, first_group + lane, rows, tiles,
                   cta.next_cluster - tiles_before * num_columns);
        cta.next_cluster += cta.num_clusters;
        return true;
    }

  private:
    DG_DEVICE void look_at_groups() {
        const uint32_t group = first_group + ptx::lane_idx();
        mine = group < args.num_groups ? group_rows(args, group) : GroupRows{0, 0, 0};
        tiles_up_to = ceil_div(mine.stored, kTileRows);
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const uint32_t other = __shfl_up_sync(0xffffffff, tiles_up_to, distance);
            if (ptx::lane_idx() >= distance) tiles_up_to += other;
        }
    }

    // Of the 32 groups, as bits, those with blocks that this CTA's next one comes before the end
    // of.
    DG_DEVICE uint32_t groups_ahead() const {
        const uint32_t end = (first_tile + tiles_up_to) * num_columns;
        return __ballot_sync(0xffffffff, cta.next_cluster < end);
    }

    // Block `idx` of a group.
    DG_DEVICE void take_block(BlockCoordinates& block, uint32_t group, const GroupRows& rows,
                              uint32_t tiles, uint32_t idx) const {
        const GridPosition at = block_order(idx, tiles, num_columns, args.band);
        const uint32_t row = at.row * kTileRows;
        const uint32_t valid = rows.valid - min(rows.valid, row);
        block = {.m = rows.first + row + cta.block_row(0),
                 .n = cta.block_column(at.column),
                 .b_batch = group,
                 .num_k_blocks = valid == 0 ? 0 : ceil_div<uint32_t>(args.k, kConfig.kBlockK),
                 .valid_rows = cta.own_rows(valid),
                 .stored_rows = cta.own_rows(rows.stored - row)};
        if (args.layout == GroupedLayout::kRowCounts) block.a_batch = block.d_batch = group;
    }
};

}  // namespace deep_gemm
