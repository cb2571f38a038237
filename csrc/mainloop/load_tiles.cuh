// Load role, first warp: TMA loads of A and B, issued by one thread.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/copy.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Loads `kRows` rows of 128 bytes at (k, row) into a stage's tile. CTAs of a cluster that need the
// same tile load an equal part of it each and multicast it to all of them.
//   rank, kPeers   this CTA's place among those that share the tile, and their number
//   mask           their cluster ranks, as bits
template <int kRows, int kPeers>
DG_DEVICE void load_tile(uint8_t* tile, const TensorMap* map, uint64_t* full, uint32_t k,
                         uint32_t row, uint32_t rank, uint16_t mask) {
    if constexpr (kPeers == 1) {
        ptx::tma_load_2d(tile, map, full, k, row);
    } else {
        constexpr uint32_t kPart = kRows / kPeers;
        ptx::tma_load_2d_multicast(tile + rank * kPart * GemmConfig::kBlockK, map, full, k,
                                   row + rank * kPart, mask);
    }
}

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_tiles(SharedStorage<kConfig>& smem, const DenseArguments& args,
                          Scheduler scheduler) {
    const TilePipeline<kConfig> pipeline{smem.barriers};
    // Ranks run along M first: CTAs of one row of the cluster are cluster_m apart.
    uint32_t mask_a = 0;
    for (int i = 0; i < kConfig.cluster_n; ++i) mask_a |= 1 << (i * kConfig.cluster_m);
    mask_a <<= scheduler.rank_m;
    const uint32_t mask_b = ((1 << kConfig.cluster_m) - 1)
                            << (scheduler.rank_n * kConfig.cluster_m);

    typename TilePipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        for (uint32_t k = 0; k < args.k; k += kConfig.kBlockK) {
            pipeline.producer_acquire(state);
            pipeline.producer_expect(state, kConfig.stage_tx_bytes());
            uint64_t* full = pipeline.full_barrier(state);
            load_tile<kConfig.block_m, kConfig.cluster_n>(smem.a[state.stage], &args.tensor_map_a,
                                                          full, k, block.m, scheduler.rank_n,
                                                          mask_a);
            load_tile<kConfig.block_n, kConfig.cluster_m>(smem.b[state.stage], &args.tensor_map_b,
                                                          full, k, block.n, scheduler.rank_m,
                                                          mask_b);
            state.advance();
        }
    }
}

}  // namespace deep_gemm
