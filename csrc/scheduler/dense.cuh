// Which block of D a CTA computes next, for one dense matrix: plain arithmetic, which each role
// does for itself.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "scheduler/block.cuh"
#include "scheduler/block_order.cuh"
#include "scheduler/persistent.cuh"

namespace deep_gemm {

template <auto kConfig>
struct DenseScheduler {
    PersistentCta<kConfig> cta;
    uint32_t num_rows;     // of clusters
    uint32_t num_columns;  // of clusters
    uint32_t first_k_block;
    uint32_t num_k_blocks;
    uint32_t band;  // rows of clusters walked together, at least 1

    DG_HOST_DEVICE DenseScheduler(uint32_t m, uint32_t n, uint32_t k, uint32_t band,
                                  uint32_t cta_idx, uint32_t num_ctas)
        : cta(cta_idx, num_ctas),
          num_rows(ceil_div<uint32_t>(m, kConfig.block_m * kConfig.cluster_m)),
          num_columns(ceil_div<uint32_t>(n, kConfig.block_n * kConfig.cluster_n)),
          first_k_block(part_begin(k, cta.rank_k)),
          num_k_blocks(part_begin(k, cta.rank_k + 1) - first_k_block),
          band(band) {}

    // False when nothing is left. All CTAs of a cluster get the same number of blocks.
    DG_HOST_DEVICE bool next_block(BlockCoordinates& block) {
        if (cta.next_cluster >= num_rows * num_columns) return false;
        const GridPosition at = block_order(cta.next_cluster, num_rows, num_columns, band);
        cta.next_cluster += cta.num_clusters;
        block = {.m = cta.block_row(at.row),
                 .n = cta.block_column(at.column),
                 .first_k_block = first_k_block,
                 .num_k_blocks = num_k_blocks,
                 .valid_rows = cta.kBlockRows,
                 .stored_rows = cta.kBlockRows};
        return true;
    }

  private:
    // First k block of a part of K. Parts are whole groups of scale factors, which come together,
    // and as equal as that allows; some may be empty.
    static DG_HOST_DEVICE uint32_t part_begin(uint32_t k, uint32_t part) {
        const uint32_t num_k_blocks = ceil_div<uint32_t>(k, kConfig.kBlockK);
        if constexpr (kConfig.cluster_k == 1) {
            return part * num_k_blocks;
        } else {
            const uint32_t num_groups = ceil_div<uint32_t>(num_k_blocks, kConfig.kSfGroup);
            return min<uint32_t>(part * num_groups / kConfig.cluster_k * kConfig.kSfGroup,
                                 num_k_blocks);
        }
    }
};

}  // namespace deep_gemm
