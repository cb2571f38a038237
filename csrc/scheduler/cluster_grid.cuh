// How tiles of D that lie below each other become blocks of clusters.
//
// Tiles below each other go to the CTAs of a cluster, which share B. What is left over, where the
// number of tiles does not divide, is a row of tiles: there the CTAs take tiles beside each other,
// and load their own B. A pair of SM100 can't: its CTAs always have tiles below each other, and the
// last may be one that does not exist.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "scheduler/block_order.cuh"
#include "scheduler/persistent.cuh"

namespace deep_gemm {

template <auto kConfig>
struct ClusterGrid {
    // Where the tiles of a cluster lie: rank r has row `row` + r * row_step.
    struct Place {
        uint32_t row;  // of tiles
        uint32_t row_step;
        uint32_t column;  // of clusters
        bool shares_b;
    };

    uint32_t tiles;    // below each other
    uint32_t columns;  // of clusters, where they share B

    // Rows of clusters that share B.
    DG_HOST_DEVICE uint32_t sharing_rows() const {
        return kConfig.shares_mmas() ? ceil_div<uint32_t>(tiles, kConfig.cluster_m)
                                     : tiles / kConfig.cluster_m;
    }

    // Blocks, each of a whole cluster.
    DG_HOST_DEVICE uint32_t blocks() const {
        const uint32_t left_over = kConfig.shares_mmas() ? 0 : tiles % kConfig.cluster_m;
        return sharing_rows() * columns + left_over * columns_left_over();
    }

    // Where block `idx` lies, for one CTA of the cluster.
    DG_HOST_DEVICE Place place(uint32_t idx, uint32_t band, uint32_t rank_m) const {
        const uint32_t sharing = sharing_rows();
        if (kConfig.cluster_m == 1 || idx < sharing * columns) {
            const GridPosition at = block_order(idx, sharing, columns, band);
            return {at.row * kConfig.cluster_m, 1, at.column, true};
        }
        const uint32_t left = idx - sharing * columns;
        return {sharing * kConfig.cluster_m + left / columns_left_over(), 0,
                left % columns_left_over() * kConfig.cluster_m + rank_m, false};
    }

  private:
    // Clusters beside each other in a row of tiles that is left over.
    DG_HOST_DEVICE uint32_t columns_left_over() const {
        return ceil_div<uint32_t>(columns, kConfig.cluster_m);
    }
};

}  // namespace deep_gemm
