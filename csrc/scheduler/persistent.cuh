// A CTA's share of the work: the grid is persistent, and clusters take work in a fixed order, one
// piece every num_clusters, until none is left.
#pragma once

#include "common/types.cuh"
#include "config.cuh"

namespace deep_gemm {

template <auto kConfig>
struct PersistentCta {
    static constexpr uint32_t kBlockRows = kConfig.block_m;

    uint32_t next_cluster;  // position in the order
    uint32_t num_clusters;  // clusters of the grid
    uint32_t rank_m;        // this CTA's place in its cluster
    uint32_t rank_n;
    uint32_t rank_k;

    DG_HOST_DEVICE PersistentCta(uint32_t cta_idx, uint32_t num_ctas)
        : next_cluster(cta_idx / kConfig.cluster_size()),
          num_clusters(num_ctas / kConfig.cluster_size()),
          rank_m(cta_idx % kConfig.cluster_m),
          rank_n(cta_idx / kConfig.cluster_m % kConfig.cluster_n),
          rank_k(cta_idx / kConfig.multicast_size() % kConfig.cluster_k) {}

    // First row of this CTA's block, and its first column, in a grid of clusters.
    DG_HOST_DEVICE uint32_t block_row(uint32_t cluster_row) const {
        return (cluster_row * kConfig.cluster_m + rank_m) * kConfig.block_m;
    }
    DG_HOST_DEVICE uint32_t block_column(uint32_t cluster_column) const {
        return (cluster_column * kConfig.cluster_n + rank_n) * kConfig.block_n;
    }
};

}  // namespace deep_gemm
