// Load role, first warp: TMA loads of A and B, issued by one thread; the others only come along.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/copy.cuh"
#include "ptx/tensormap.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Loads `kRows` rows of 128 bytes at (k, row) of matrix `batch` into a stage's tile. CTAs of a
// cluster that need the same tile load an equal part of it each and multicast it to all of them.
//   rank, kPeers   this CTA's place among those that may share the tile, and their number
//   mask           their cluster ranks, as bits
//   is_shared      whether they do; if not, each loads all parts for itself
//   policy         of L2
template <int kRows, int kPeers>
DG_DEVICE void load_tile(uint8_t* tile, const TensorMap* map, uint64_t* full, uint32_t k,
                         uint32_t row, uint32_t batch, uint32_t rank, uint16_t mask, bool is_shared,
                         uint64_t policy) {
    constexpr uint32_t kPart = kRows / kPeers;
    if (kPeers > 1 && is_shared) {
        ptx::tma_load_3d_multicast(tile + rank * kPart * GemmConfig::kBlockK, map, full, k,
                                   row + rank * kPart, batch, mask, policy);
        return;
    }
#pragma unroll
    for (uint32_t part = 0; part < kPeers; ++part) {
        ptx::tma_load_3d(tile + part * kPart * GemmConfig::kBlockK, map, full, k,
                         row + part * kPart, batch, policy);
    }
}

// Asks L2 for the tiles of B that the first stages will hold, while the kernel before is still at
// work: weights come from HBM, and seldom from that kernel. It is safe even then, since L2 is where
// that kernel writes; but a load would have to wait.
template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void prefetch_b(const GemmArguments& args, Scheduler scheduler, uint32_t rank_m) {
    constexpr uint32_t kPart = kConfig.block_n / kConfig.cluster_m;
    BlockCoordinates block;
    if (!ptx::elect_one() || !scheduler.next_block(block)) return;
    const uint32_t num_tiles = min<uint32_t>(block.num_k_blocks, kConfig.num_stages);
    for (uint32_t i = 0; i < num_tiles; ++i) {
        ptx::tma_prefetch_3d(&args.tensor_map_b, (block.first_k_block + i) * kConfig.kBlockK,
                             block.n + rank_m * kPart, block.b_batch);
    }
}

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_tiles(SharedStorage<kConfig>& smem, const GemmArguments& args,
                          Scheduler scheduler, uint32_t rank_m, uint32_t rank_n) {
    const TilePipeline<kConfig> pipeline{smem.barriers};
    // Ranks run along M first: CTAs of one row of the cluster are cluster_m apart.
    uint32_t mask_a = 0;
    for (int i = 0; i < kConfig.cluster_n; ++i) mask_a |= 1 << (i * kConfig.cluster_m);
    mask_a <<= rank_m;
    const uint32_t mask_b = ((1 << kConfig.cluster_m) - 1) << (rank_n * kConfig.cluster_m);
    const bool issues = ptx::elect_one();

    typename TilePipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        const TensorMap* map_a = &args.tensor_map_a;
        const TensorMap* map_b = &args.tensor_map_b;
        if constexpr (kConfig.grouping == Grouping::kKGrouped) {
            map_a = args.group_maps + 2 * block.d_batch;
            map_b = map_a + 1;
            if (issues) {
                ptx::fence_proxy_tensormap_acquire(map_a);
                ptx::fence_proxy_tensormap_acquire(map_b);
            }
        }
        // A k-grouped product's maps begin with the group.
        const uint32_t first_k = kConfig.cluster_k > 1 ? block.first_k_block * kConfig.kBlockK : 0;
        const uint32_t end_k = first_k + block.num_k_blocks * kConfig.kBlockK;
        // One thread alone walks the stages: of small tiles it is what limits the main loop.
        for (uint32_t k = first_k; issues && k < end_k; k += kConfig.kBlockK) {
            pipeline.producer_acquire(state);
            pipeline.producer_expect(state, kConfig.stage_tx_bytes());
            uint64_t* full = pipeline.full_barrier(state);
            load_tile<kConfig.block_m, kConfig.cluster_n>(smem.a[state.stage], map_a, full, k,
                                                          block.m, block.a_batch, rank_n, mask_a,
                                                          true, args.policy_a);
            load_tile<kConfig.block_n, kConfig.cluster_m>(
                smem.b[state.stage], map_b, full, k, block.n, block.b_batch, rank_m, mask_b,
                kConfig.grouping != Grouping::kMGrouped || block.shares_b, args.policy_b);
            state.advance();
        }
        __syncwarp();
    }
    if (kConfig.multicast_size() > 1 && issues) pipeline.producer_tail(state);
}

}  // namespace deep_gemm
