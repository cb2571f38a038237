// Which block of D a CTA computes next, for one dense matrix.
//
// The grid is persistent: CTAs (clusters, if there are any) take blocks in a fixed order, one every
// num_clusters, until none is left. The order walks bands of `band` rows of clusters, column by
// column inside a band, so that the blocks in flight at one time form a compact rectangle of D and
// share their tiles of A and B in L2.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

template <GemmConfig kConfig>
struct DenseScheduler {
    uint32_t num_cluster_rows;
    uint32_t num_cluster_columns;
    uint32_t band;          // rows of clusters walked together, at least 1
    uint32_t next_cluster;  // position in the order
    uint32_t num_clusters;  // clusters of the grid
    uint32_t rank_m;        // this CTA's place in its cluster
    uint32_t rank_n;

    DG_HOST_DEVICE DenseScheduler(uint32_t m, uint32_t n, uint32_t band, uint32_t cta_idx,
                                  uint32_t num_ctas)
        : num_cluster_rows(ceil_div<uint32_t>(m, kConfig.block_m * kConfig.cluster_m)),
          num_cluster_columns(ceil_div<uint32_t>(n, kConfig.block_n * kConfig.cluster_n)),
          band(band),
          next_cluster(cta_idx / kConfig.cluster_size()),
          num_clusters(num_ctas / kConfig.cluster_size()),
          rank_m(cta_idx % kConfig.cluster_size() % kConfig.cluster_m),
          rank_n(cta_idx % kConfig.cluster_size() / kConfig.cluster_m) {}

    // False when nothing is left. All CTAs of a cluster get the same number of blocks.
    DG_HOST_DEVICE bool next_block(BlockCoordinates& block) {
        if (next_cluster >= num_cluster_rows * num_cluster_columns) return false;
        const uint32_t band_size = band * num_cluster_columns;
        const uint32_t first_row = next_cluster / band_size * band;
        const uint32_t rows = min(band, num_cluster_rows - first_row);
        const uint32_t in_band = next_cluster % band_size;
        const uint32_t cluster_row = first_row + in_band % rows;
        const uint32_t cluster_column = in_band / rows;
        block.m = (cluster_row * kConfig.cluster_m + rank_m) * kConfig.block_m;
        block.n = (cluster_column * kConfig.cluster_n + rank_n) * kConfig.block_n;
        next_cluster += num_clusters;
        return true;
    }
};

}  // namespace deep_gemm
