// Blocks of an m-grouped product of which every group's number of rows is known: each group has
// tiles of its own, so that its rows may begin anywhere, and groups of no rows take no time.
//
// How a group's tiles become blocks of clusters is in scheduler/cluster_grid.cuh.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "scheduler/cluster_grid.cuh"
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
template <auto kConfig>
struct GroupRowsScheduler {
    const GemmArguments& args;
    PersistentCta<kConfig> cta;
    uint32_t num_columns;        // of clusters
    uint32_t first_group = 0;    // of the 32
    uint32_t first_cluster = 0;  // clusters' blocks of the groups before them
    GroupRows mine;              // rows of this lane's group
    uint32_t clusters_up_to;     // clusters' blocks of the lanes' groups up to this one's

    DG_DEVICE GroupRowsScheduler(const GemmArguments& args, uint32_t cta_idx, uint32_t num_ctas)
        : args(args),
          cta(cta_idx, num_ctas),
          num_columns(ceil_div<uint32_t>(args.n, kConfig.block_n * kConfig.cluster_n)) {
        look_at_groups();
    }

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        uint32_t ahead;
        while ((ahead = groups_ahead()) == 0) {
            first_cluster += __shfl_sync(0xffffffff, clusters_up_to, 31);
            first_group += 32;
            if (first_group >= args.num_groups) return false;
            look_at_groups();
        }
        const uint32_t lane = ptx::find_first_set(ahead);
        const GroupRows rows = {__shfl_sync(0xffffffff, mine.first, lane),
                                __shfl_sync(0xffffffff, mine.valid, lane),
                                __shfl_sync(0xffffffff, mine.stored, lane)};
        const uint32_t end = first_cluster + __shfl_sync(0xffffffff, clusters_up_to, lane);
        take_block(block, first_group + lane, rows,
                   cta.next_cluster - (end - grid_of(rows.stored).blocks()));
        cta.next_cluster += cta.num_clusters;
        return true;
    }

  private:
    // The blocks of a group with so many rows.
    DG_DEVICE ClusterGrid<kConfig> grid_of(uint32_t rows) const {
        return {ceil_div<uint32_t>(rows, kConfig.block_m), num_columns};
    }

    DG_DEVICE void look_at_groups() {
        const uint32_t group = first_group + ptx::lane_idx();
        mine = group < args.num_groups ? group_rows(args, group) : GroupRows{0, 0, 0};
        clusters_up_to = grid_of(mine.stored).blocks();
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const uint32_t other = __shfl_up_sync(0xffffffff, clusters_up_to, distance);
            if (ptx::lane_idx() >= distance) clusters_up_to += other;
        }
    }

    // Of the 32 groups, as bits, those with blocks that this CTA's next one comes before the end
    // of.
    DG_DEVICE uint32_t groups_ahead() const {
        return __ballot_sync(0xffffffff, cta.next_cluster < first_cluster + clusters_up_to);
    }

    // Block `idx` of a group.
    DG_DEVICE void take_block(BlockCoordinates& block, uint32_t group, const GroupRows& rows,
                              uint32_t idx) const {
        const auto at = grid_of(rows.stored).place(idx, args.band, cta.rank_m);
        const uint32_t first_row = at.row * kConfig.block_m;
        const uint32_t row = first_row + at.row_step * cta.rank_m * kConfig.block_m;
        const uint32_t valid = rows.valid - min(rows.valid, row);
        block = {.m = rows.first + row,
                 .n = cta.block_column(at.column),
                 .b_batch = group,
                 .num_k_blocks =
                     first_row < rows.valid ? ceil_div<uint32_t>(args.k, kConfig.kBlockK) : 0,
                 .valid_rows = min<uint32_t>(valid, kConfig.block_m),
                 .stored_rows = min<uint32_t>(rows.stored - min(rows.stored, row), kConfig.block_m),
                 .shares_b = at.shares_b};
        if (args.layout == GroupedLayout::kRowCounts) block.a_batch = block.d_batch = group;
    }
};

}  // namespace deep_gemm
