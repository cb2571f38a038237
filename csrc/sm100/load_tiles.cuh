// Load role: TMA loads of A and B, issued by one thread.
//
// Each CTA of a pair loads its own rows of A and its half of B's, into its own shared memory. The
// bytes of both count on the leader's barrier, which waits for them all: bytes may come before they
// are announced, since the arrival that announces them is missing till then.
#pragma once

#include "common/types.cuh"
#include "kernels/arguments.cuh"
#include "ptx/copy.cuh"
#include "ptx/tensormap.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "sm100/pair.cuh"
#include "sm100/storage.cuh"

namespace deep_gemm {

// Loads `kRows` rows of 128 of K of matrix `batch` into a stage's tile; for an MN-major operand in
// pieces of 128 rows, each as 128 k of 128 bytes.
template <Sm100GemmConfig kConfig, int kRows, bool kIsMnMajor>
DG_DEVICE void sm100_load_tile(uint8_t* tile, const TensorMap* map, uint64_t* full, uint32_t k,
                               uint32_t row, uint32_t batch, uint64_t policy) {
    const auto load = [&](uint8_t* place, uint32_t inner, uint32_t middle) {
        if constexpr (kConfig.shares_mmas()) {
            ptx::tma_load_3d_of_pair(place, map, leader_address<kConfig>(full), inner, middle,
                                     batch, policy);
        } else {
            ptx::tma_load_3d(place, map, full, inner, middle, batch, policy);
        }
    };
    if constexpr (kIsMnMajor) {
#pragma unroll
        for (uint32_t piece = 0; piece < kRows; piece += 128) {
            load(tile + piece * kConfig.kBlockK, row + piece, k);
        }
    } else {
        load(tile, k, row);
    }
}

template <Sm100GemmConfig kConfig, typename Scheduler>
DG_DEVICE void sm100_load_tiles(Sm100Storage<kConfig>& smem, const GemmArguments& args,
                                Scheduler scheduler) {
    const Sm100TilePipeline<kConfig> pipeline{smem.barriers};
    const bool issues = ptx::elect_one();
    const uint32_t rank = rank_in_pair<kConfig>();
    typename Sm100TilePipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        const TensorMap* map_a = &args.tensor_map_a;
        const TensorMap* map_b = &args.tensor_map_b;
        if constexpr (kConfig.grouping == Grouping::kKGrouped) {
            // They begin and end with the group.
            map_a = args.group_maps + 2 * block.d_batch;
            map_b = map_a + 1;
            if (issues) {
                ptx::fence_proxy_tensormap_acquire(map_a);
                ptx::fence_proxy_tensormap_acquire(map_b);
            }
        }
        for (uint32_t k = 0; k < block.num_k_blocks * kConfig.kBlockK; k += kConfig.kBlockK) {
            if (issues) {
                pipeline.producer_acquire(state);
                if (rank == 0) pipeline.producer_expect(state, kConfig.stage_tx_bytes());
                uint64_t* full = pipeline.full_barrier(state);
                sm100_load_tile<kConfig, kConfig.block_m, kConfig.a_is_mn_major>(
                    smem.a[state.stage], map_a, full, k, block.m, block.a_batch, args.policy_a);
                sm100_load_tile<kConfig, kConfig.b_rows(), kConfig.b_is_mn_major>(
                    smem.b[state.stage], map_b, full, k, block.n + rank * kConfig.b_part(),
                    block.b_batch, args.policy_b);
            }
            __syncwarp();
            state.advance();
        }
    }
    // Nobody may leave whose barriers a commit of the leader's still arrives on.
    if (kConfig.shares_mmas() && issues) pipeline.producer_tail(state);
}

}  // namespace deep_gemm
