// Blocks of an m-grouped product whose rows carry their group's id.
//
// Rows are cut into tiles, one per cluster, wherever groups begin. A tile is then one block, of
// each of the cluster's CTAs, per run of equal ids in it; where the rows of a group are aligned to
// a multiple of the tile's, that is one. So no CTA has to know where groups begin: a tile's ids say
// all about it.
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

// To be walked by a whole warp.
template <GemmConfig kConfig>
struct RowIdScheduler {
    static constexpr uint32_t kTileRows = kConfig.block_m * kConfig.cluster_m;

    const GemmArguments& args;
    PersistentCta<kConfig> cta;
    uint32_t num_tiles;
    uint32_t num_columns;  // of clusters
    uint32_t row = 0;      // first row that is not handed out
    uint32_t end_row = 0;  // of the present tile
    uint32_t column = 0;   // of the present tile

    DG_DEVICE RowIdScheduler(const GemmArguments& args, uint32_t cta_idx, uint32_t num_ctas)
        : args(args),
          cta(cta_idx, num_ctas),
          num_tiles(ceil_div(args.m, kTileRows)),
          num_columns(ceil_div<uint32_t>(args.n, kConfig.block_n * kConfig.cluster_n)) {}

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        if (row == end_row && !next_tile()) return false;
        const uint32_t group = group_of(row);
        const uint32_t valid = group < args.num_groups ? run_length(group) : 0;
        const uint32_t first_row = row;
        row += valid;
        // Padding behind a group is cleared together with its last rows.
        while (row < end_row && group_of(row) >= args.num_groups) row += run_length(group_of(row));
        block = {.m = first_row + cta.block_row(0),
                 .n = column,
                 .b_batch = valid == 0 ? 0 : group,
                 .num_k_blocks = valid == 0 ? 0 : ceil_div<uint32_t>(args.k, kConfig.kBlockK),
                 .valid_rows = cta.own_rows(valid),
                 .stored_rows = cta.own_rows(row - first_row)};
        return true;
    }

  private:
    DG_DEVICE bool next_tile() {
        if (cta.next_cluster >= num_tiles * num_columns) return false;
        const GridPosition at = block_order(cta.next_cluster, num_tiles, num_columns, args.band);
        cta.next_cluster += cta.num_clusters;
        row = at.row * kTileRows;
        end_row = min(row + kTileRows, args.m);
        column = cta.block_column(at.column);
        return true;
    }

    // Negative ids, which mean padding, become large ones.
    DG_DEVICE uint32_t group_of(uint32_t row) const { return args.grouped_layout[row]; }

    // Rows from `row` to the end of the tile that have this id, up to the first that has not.
    DG_DEVICE uint32_t run_length(uint32_t group) const {
        for (uint32_t first = row; first < end_row; first += 32) {
            const uint32_t mine = first + ptx::lane_idx();
            const bool ends = mine >= end_row || group_of(mine) != group;
            const uint32_t ending = __ballot_sync(0xffffffff, ends);
            if (ending != 0) return first + ptx::find_first_set(ending) - row;
        }
        return end_row - row;
    }
};

}  // namespace deep_gemm
