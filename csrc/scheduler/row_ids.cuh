// Blocks of an m-grouped product whose rows carry their group's id.
//
// Rows are cut into tiles of block_m, wherever groups begin. A tile is then one block per run of
// equal ids in it; where the rows of a group are aligned to a multiple of block_m, that is one. So
// no CTA has to know where groups begin: a tile's ids say all about it.
//
// How all tiles become blocks of clusters is in scheduler/cluster_grid.cuh. CTAs with tiles below
// each other share B where the ids are the same, and otherwise load their own. They keep step: one
// that has fewer runs than another idles. The CTAs of an SM100 pair can't but share B: where the
// ids differ, one idles until the other is through.
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

// To be walked by a whole warp.
template <auto kConfig>
struct RowIdScheduler {
    // Rows of a tile that are not handed out.
    struct Rows {
        uint32_t first;
        uint32_t end;
    };
    // Rows that are one block.
    struct Run {
        uint32_t first;
        uint32_t group;
        uint32_t valid;
        uint32_t stored;
    };

    const GemmArguments& args;
    PersistentCta<kConfig> cta;
    ClusterGrid<kConfig> grid;
    Rows left[kConfig.cluster_m]{};    // of the present tiles
    uint32_t column = 0;               // of the present tiles
    bool lie_below_each_other = true;  // the present tiles

    DG_DEVICE RowIdScheduler(const GemmArguments& args, uint32_t cta_idx, uint32_t num_ctas)
        : args(args),
          cta(cta_idx, num_ctas),
          grid{ceil_div<uint32_t>(args.m, kConfig.block_m),
               ceil_div<uint32_t>(args.n, kConfig.block_n * kConfig.cluster_n)} {}

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        if (!has_rows() && !next_tiles()) return false;
        Run mine{};
        uint32_t shared_group = kNoGroup;
        bool shares_b = lie_below_each_other;
#pragma unroll
        for (int rank = 0; rank < kConfig.cluster_m; ++rank) {
            Rows rest = left[rank];
            const Run run = take_run(rest);
            const bool fits =
                run.valid == 0 || shared_group == kNoGroup || run.group == shared_group;
            if (kConfig.shares_mmas() && !fits) continue;
            left[rank] = rest;
            if (rank == cta.rank_m) mine = run;
            if (run.valid == 0) continue;
            if (shared_group == kNoGroup) shared_group = run.group;
            shares_b &= run.group == shared_group;
        }
        const bool multiplies = shared_group != kNoGroup;
        block = {.m = mine.first,
                 .n = column,
                 .b_batch = mine.valid != 0 ? mine.group
                            : multiplies    ? shared_group
                                            : 0,
                 .num_k_blocks = multiplies ? ceil_div<uint32_t>(args.k, kConfig.kBlockK) : 0,
                 .valid_rows = mine.valid,
                 .stored_rows = mine.stored,
                 .shares_b = shares_b};
        return true;
    }

  private:
    static constexpr uint32_t kNoGroup = 0xffffffff;

    DG_DEVICE bool has_rows() const {
        bool any = false;
#pragma unroll
        for (int rank = 0; rank < kConfig.cluster_m; ++rank)
            any |= left[rank].first < left[rank].end;
        return any;
    }

    DG_DEVICE bool next_tiles() {
        if (cta.next_cluster >= grid.blocks()) return false;
        const auto at = grid.place(cta.next_cluster, args.band, cta.rank_m);
        cta.next_cluster += cta.num_clusters;
#pragma unroll
        for (int rank = 0; rank < kConfig.cluster_m; ++rank) {
            const uint32_t row = (at.row + at.row_step * rank) * kConfig.block_m;
            left[rank] = {min(row, args.m), min(row + kConfig.block_m, args.m)};
        }
        column = cta.block_column(at.column);
        lie_below_each_other = at.shares_b;
        return true;
    }

    // The first run of equal ids, together with the padding behind it; nothing if no row is left.
    DG_DEVICE Run take_run(Rows& rows) const {
        if (rows.first == rows.end) return {rows.first, 0, 0, 0};
        const uint32_t first = rows.first;
        const uint32_t group = group_of(first);
        const uint32_t valid = group < args.num_groups ? run_length(rows, group) : 0;
        rows.first += valid;
        while (rows.first < rows.end && group_of(rows.first) >= args.num_groups) {
            rows.first += run_length(rows, group_of(rows.first));
        }
        return {first, group, valid, rows.first - first};
    }

    // Negative ids, which mean padding, become large ones.
    DG_DEVICE uint32_t group_of(uint32_t row) const { return args.grouped_layout[row]; }

    // Rows from the first one on that have this id, up to the first that has not.
    DG_DEVICE uint32_t run_length(const Rows& rows, uint32_t group) const {
        for (uint32_t first = rows.first; first < rows.end; first += 32) {
            const uint32_t mine = first + ptx::lane_idx();
            const bool ends = mine >= rows.end || group_of(mine) != group;
            const uint32_t ending = __ballot_sync(0xffffffff, ends);
            if (ending != 0) return first + ptx::find_first_set(ending) - rows.first;
        }
        return rows.end - rows.first;
    }
};

}  // namespace deep_gemm
