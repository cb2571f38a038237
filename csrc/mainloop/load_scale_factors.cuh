// Load role, second warp: scale factors, into a ring of their own, in groups of four k blocks, so
// that the tiles never wait for a slow one.
//
// 1D2D: SFA is taken as the caller has it, K-major or M-major, so that no transposing kernel runs
// before the GEMM. TMA brings a group of it in one box: the same gather by cp.async takes so much
// of the path to shared memory that the WGMMAs slow down. What TMA does not take (other strides,
// slices at odd addresses, boxes along M at odd rows) goes word by word all the same.
//
// 1D1D: both come by TMA, SFB along N, as the promotion reads it.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "layout/scale_factors.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/copy.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Starts the load of one group of SFA by TMA, at a k block. What lies outside arrives as zeros, but
// for the rest of 16 bytes.
DG_DEVICE void load_sfa_box(float* destination, uint64_t* full, const BlockCoordinates& block,
                            int k_block, const GemmArguments& args) {
    const bool along_m = args.sfa_load == SfaLoad::kTmaAlongM;
    ptx::tma_load_3d(destination, &args.tensor_map_sfa, full, along_m ? block.m : k_block,
                     along_m ? k_block : block.m, block.a_batch);
}

// Whether a block's SFA can come by TMA: the first element of a box must lie at 16 bytes.
DG_DEVICE bool sfa_comes_by_tma(const BlockCoordinates& block, const GemmArguments& args) {
    return args.sfa_load == SfaLoad::kTmaAlongK ||
           (args.sfa_load == SfaLoad::kTmaAlongM && block.m % 4 == 0);
}

// Copies one group of SFA word by word, a row per lane and turn. What lies outside becomes zero.
//   source     the group's first word
//   rows, ks   rows and k blocks from there to the end of SFA
template <GemmConfig kConfig>
DG_DEVICE void load_sfa_words(float* destination, const float* source, int rows, int ks,
                              const GemmArguments& args) {
    const SfaLayout<kConfig> layout(args.sfa_load);
#pragma unroll
    for (int row = ptx::lane_idx(); row < kConfig.block_m; row += 32) {
#pragma unroll
        for (int k = 0; k < kConfig.kSfGroup; ++k) {
            ptx::cp_async_4(destination + layout.offset(row, k),
                            source + row * args.sfa_stride_m + k * args.sfa_stride_k,
                            row < rows && k < ks ? 4 : 0);
        }
    }
}

// Copies one group of SFB, a word per lane: four k blocks of the columns that the block touches.
//   source        the group's first word
//   columns, ks   rows of SFB and k blocks from there to the end
template <GemmConfig kConfig>
DG_DEVICE void load_sfb_words(float* destination, const float* source, int columns, int ks,
                              const GemmArguments& args) {
    const int column = ptx::lane_idx() / kConfig.kSfGroup;
    const int k = ptx::lane_idx() % kConfig.kSfGroup;
    if (column < kConfig.num_sfb()) {
        ptx::cp_async_4(&destination[column * kConfig.kSfGroup + k],
                        source + column * args.sfb_stride_n + k * args.sfb_stride_k,
                        column < columns && k < ks ? 4 : 0);
    }
}

// A whole warp, for 1D2D.
template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_scale_factors_1d2d(SharedStorage<kConfig>& smem, const GemmArguments& args,
                                       Scheduler scheduler) {
    const SfPipeline<kConfig> pipeline{smem.sf_barriers};
    const int num_sfb_rows = ceil_div<uint32_t>(args.n, kConfig.kGranN);

    typename SfPipeline<kConfig>::State state;
    BlockCoordinates block;
    bool had_words = false;  // whether a group of SFA has come word by word
    while (scheduler.next_block(block)) {
        const bool by_tma = sfa_comes_by_tma(block, args);
        had_words |= !by_tma;
        // The last lane has no word of SFB to copy: where it issues TMA, it arrives with the bytes.
        static_assert(kConfig.num_sfb() * kConfig.kSfGroup < 32);
        const bool issues_tma = by_tma && ptx::lane_idx() == 31;
        const int num_k_blocks = block.num_k_blocks;
        const int sfb_row = block.n / kConfig.kGranN;
        const float* sfa = args.sfa + block.a_batch * args.sfa_stride_batch +
                           static_cast<int64_t>(block.m) * args.sfa_stride_m +
                           block.first_k_block * args.sfa_stride_k;
        const float* sfb = args.sfb + block.b_batch * args.sfb_stride_batch +
                           static_cast<int64_t>(sfb_row) * args.sfb_stride_n +
                           block.first_k_block * args.sfb_stride_k;
        for (int k_block = 0; k_block < num_k_blocks; k_block += kConfig.kSfGroup) {
            const int ks = num_k_blocks - k_block;
            pipeline.producer_acquire(state);
            if (kConfig.grouping == Grouping::kMGrouped && by_tma && had_words) {
                // The slot may hold words that cp.async has written: TMA writes in another proxy.
                ptx::fence_proxy_async();
                __syncwarp();
            }
            if (issues_tma) {
                pipeline.producer_expect(state, sizeof(float) * kConfig.block_m * kConfig.kSfGroup);
                load_sfa_box(smem.sfa[state.stage], pipeline.full_barrier(state), block,
                             block.first_k_block + k_block, args);
            } else {
                if (!by_tma) {
                    load_sfa_words<kConfig>(smem.sfa[state.stage],
                                            sfa + k_block * args.sfa_stride_k, args.m - block.m, ks,
                                            args);
                }
                load_sfb_words<kConfig>(smem.sfb[state.stage], sfb + k_block * args.sfb_stride_k,
                                        num_sfb_rows - sfb_row, ks, args);
                pipeline.producer_commit(state);
            }
            __syncwarp();
            state.advance();
        }
    }
}

// A whole warp, of which one thread issues, for 1D1D.
template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_scale_factors_1d1d(SharedStorage<kConfig>& smem, const GemmArguments& args,
                                       Scheduler scheduler) {
    constexpr uint32_t kBytes =
        sizeof(float) * kConfig.kSfGroup * (kConfig.block_m + kConfig.block_n);
    const SfPipeline<kConfig> pipeline{smem.sf_barriers};
    const bool issues = ptx::elect_one();
    typename SfPipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        const uint32_t end = block.first_k_block + block.num_k_blocks;
        for (uint32_t k_block = block.first_k_block; k_block < end; k_block += kConfig.kSfGroup) {
            if (issues) {
                pipeline.producer_acquire(state);
                pipeline.producer_expect(state, kBytes);
                uint64_t* full = pipeline.full_barrier(state);
                load_sfa_box(smem.sfa[state.stage], full, block, k_block, args);
                ptx::tma_load_3d(smem.sfb[state.stage], &args.tensor_map_sfb, full, block.n,
                                 k_block, block.b_batch);
            }
            __syncwarp();
            state.advance();
        }
    }
}

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_scale_factors(SharedStorage<kConfig>& smem, const GemmArguments& args,
                                  Scheduler scheduler) {
    if constexpr (kConfig.is_1d1d()) {
        load_scale_factors_1d1d<kConfig>(smem, args, scheduler);
    } else {
        load_scale_factors_1d2d<kConfig>(smem, args, scheduler);
    }
}

}  // namespace deep_gemm
