// Load role: scale factors, four UE8M0 to a word, word by word from whatever strides they have.
//
// tcgen05.cp brings 32 rows of 16 bytes into four columns of TMEM, and MMA wants rows 0-31 of the
// operand in the first column, 32-63 in the second. So the word of row r goes to place r / 32 of
// row r % 32 in shared memory: cp.async can put it there, TMA could not.
//
// Each CTA of a pair loads those of its own rows of A, and all of B's: its half of the MMA needs
// them in its own TMEM.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/arguments.cuh"
#include "ptx/copy.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "sm100/pair.cuh"
#include "sm100/storage.cuh"

namespace deep_gemm {

// Copies the words of `kRows` rows, a row per lane and turn; those outside become zero.
//   source       the first row's word
//   row_stride   words from one row to the next
//   rows         rows from there to the end
template <int kRows>
DG_DEVICE void load_sf_words(uint32_t (*chunks)[Sm100GemmConfig::kSfChunk], const float* source,
                             int64_t row_stride, int rows) {
    const int lane = ptx::lane_idx();
#pragma unroll
    for (int first = 0; first < kRows; first += 32) {
        const int row = first + lane;
        if (row < kRows) {
            const int in_chunk = first % Sm100GemmConfig::kSfChunk / 32;
            ptx::cp_async_4(&chunks[first / Sm100GemmConfig::kSfChunk][4 * lane + in_chunk],
                            source + row * row_stride, row < rows ? 4 : 0);
        }
    }
}

// Which word of a row holds a k block's scale factors.
template <int kGranK>
DG_DEVICE uint32_t sf_word(uint32_t k_block) {
    return k_block * Sm100GemmConfig::kBlockK / (kGranK * Sm100GemmConfig::kSfWordK);
}

// A whole warp. While a group is on its way, the one before is waited for and handed on: copies
// through the generic proxy have to be complete before the fence that shows them to the MMAs.
template <Sm100GemmConfig kConfig, typename Scheduler>
DG_DEVICE void sm100_load_scale_factors(Sm100Storage<kConfig>& smem, const GemmArguments& args,
                                        Scheduler scheduler) {
    const Sm100SfPipeline<kConfig> pipeline{smem.sf_barriers};
    typename Sm100SfPipeline<kConfig>::State started, ready;
    const auto hand_on = [&] {
        ptx::fence_proxy_async();
        announce_to_leader<kConfig>(pipeline.full_barrier(ready));
        ready.advance();
    };
    bool is_held = false;  // whether a group has been started and not handed on
    const auto hand_on_last = [&] {
        if (!is_held) return;
        ptx::cp_async_wait_group<0>();
        hand_on();
        is_held = false;
    };
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        // Who waits for the group before does not make room for the blocks behind.
        if (block.num_k_blocks == 0) hand_on_last();
        const float* sfa = args.sfa + block.a_batch * args.sfa_stride_batch +
                           block.first_k_block * args.sfa_stride_k + block.m * args.sfa_stride_m;
        const float* sfb = args.sfb + block.b_batch * args.sfb_stride_batch +
                           block.first_k_block * args.sfb_stride_k + block.n * args.sfb_stride_n;
        for (uint32_t k_block = 0; k_block < block.num_k_blocks; k_block += kConfig.sf_group()) {
            pipeline.producer_acquire(started);
            load_sf_words<kConfig.block_m>(
                &smem.sf[started.stage][0],
                sfa + sf_word<kConfig.gran_k_a>(k_block) * args.sfa_stride_k, args.sfa_stride_m,
                args.m - block.m);
            load_sf_words<kConfig.block_n>(
                &smem.sf[started.stage][1],
                sfb + sf_word<kConfig.gran_k_b>(k_block) * args.sfb_stride_k, args.sfb_stride_n,
                args.n - block.n);
            ptx::cp_async_commit_group();
            started.advance();
            if (is_held) {
                ptx::cp_async_wait_group<1>();
                hand_on();
            }
            is_held = true;
        }
    }
    hand_on_last();
    if constexpr (kConfig.shares_mmas()) pipeline.producer_tail(started);
}

}  // namespace deep_gemm
