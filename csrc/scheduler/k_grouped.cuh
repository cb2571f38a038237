// Blocks of a k-grouped product: every group has the same grid of blocks, and its own stretch of K.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "scheduler/block.cuh"
#include "scheduler/block_order.cuh"
#include "scheduler/persistent.cuh"

namespace deep_gemm {

template <auto kConfig>
struct KGroupedScheduler {
    const GemmArguments& args;
    PersistentCta<kConfig> cta;
    uint32_t num_rows;     // of clusters, in one group
    uint32_t num_columns;  // of clusters

    DG_DEVICE KGroupedScheduler(const GemmArguments& args, uint32_t cta_idx, uint32_t num_ctas)
        : args(args),
          cta(cta_idx, num_ctas),
          num_rows(ceil_div<uint32_t>(args.m, kConfig.block_m * kConfig.cluster_m)),
          num_columns(ceil_div<uint32_t>(args.n, kConfig.block_n * kConfig.cluster_n)) {}

    // A cluster's CTAs always get blocks of one group.
    DG_DEVICE bool next_block(BlockCoordinates& block) {
        const uint32_t group = cta.next_cluster / (num_rows * num_columns);
        if (group >= args.num_groups) return false;
        const uint32_t in_group = cta.next_cluster % (num_rows * num_columns);
        const GridPosition at = block_order(in_group, num_rows, num_columns, args.band);
        cta.next_cluster += cta.num_clusters;
        const KGroup* k_group = args.k_groups + group;
        block = {.m = cta.block_row(at.row),
                 .n = cta.block_column(at.column),
                 .d_batch = group,
                 .first_k_block = k_group->first_k_block,
                 .num_k_blocks = k_group->num_k_blocks,
                 .valid_rows = cta.kBlockRows,
                 .stored_rows = cta.kBlockRows};
        if (args.accumulates && block.num_k_blocks == 0) block.stored_rows = 0;
        return true;
    }
};

}  // namespace deep_gemm
