// Load role, second warp: scale factors, gathered with cp.async.
//
// TMA would need SFA to be M-major with rows padded to 16 bytes, and most callers hold it K-major.
// A gather takes either layout, or any slice, as it is: no transposing kernel runs before the GEMM.
// Scale factors have a ring of their own, in groups of four k blocks, so that the tiles never wait
// for a slow one, and where four of them are adjacent in memory, in either direction, one copy of
// 16 bytes loads them. A group of SFA keeps the order that it was loaded in: see SfaLayout.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Copies one group of SFA: block_m rows by four k blocks. What lies outside becomes zero.
//   source     the group's first word
//   rows, ks   rows and k blocks from there to the end of SFA
template <GemmConfig kConfig>
DG_DEVICE void load_sfa_group(float* destination, const float* source, int rows, int ks,
                              const DenseArguments& args) {
    if (args.sfa_quads == SfQuads::kAlongM) {
        constexpr int kRowQuads = kConfig.block_m / 4;
#pragma unroll
        for (int i = ptx::lane_idx(); i < kRowQuads * kConfig.kSfGroup; i += 32) {
            const int row = i / kConfig.kSfGroup * 4;
            const int k = i % kConfig.kSfGroup;
            const int words = k < ks ? min(max(rows - row, 0), 4) : 0;
            ptx::cp_async_16(destination + i * 4, source + row + k * args.sfa_stride_k, 4 * words);
        }
        return;
    }
#pragma unroll
    for (int row = ptx::lane_idx(); row < kConfig.block_m; row += 32) {
        float* row_destination = destination + row * kConfig.kSfGroup;
        const float* words = source + row * args.sfa_stride_m;
        if (args.sfa_quads == SfQuads::kAlongK) {
            ptx::cp_async_16(row_destination, words, row < rows ? 4 * min(ks, 4) : 0);
        } else {
#pragma unroll
            for (int k = 0; k < kConfig.kSfGroup; ++k) {
                ptx::cp_async_4(row_destination + k, words + k * args.sfa_stride_k,
                                row < rows && k < ks ? 4 : 0);
            }
        }
    }
}

// Copies one group of SFB, a word per lane: four k blocks of the columns that the block touches.
//   source        the group's first word
//   columns, ks   rows of SFB and k blocks from there to the end
template <GemmConfig kConfig>
DG_DEVICE void load_sfb_group(float (&destination)[kConfig.num_sfb()][kConfig.kSfGroup],
                              const float* source, int columns, int ks,
                              const DenseArguments& args) {
    const int column = ptx::lane_idx() / kConfig.kSfGroup;
    const int k = ptx::lane_idx() % kConfig.kSfGroup;
    if (column < kConfig.num_sfb()) {
        ptx::cp_async_4(&destination[column][k],
                        source + column * args.sfb_stride_n + k * args.sfb_stride_k,
                        column < columns && k < ks ? 4 : 0);
    }
}

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_scale_factors(SharedStorage<kConfig>& smem, const DenseArguments& args,
                                  Scheduler scheduler) {
    const SfPipeline<kConfig> pipeline{smem.sf_barriers};
    const int num_k_blocks = ceil_div<uint32_t>(args.k, kConfig.kBlockK);
    const int num_sfb_rows = ceil_div<uint32_t>(args.n, kConfig.kGranN);

    typename SfPipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        const int sfb_row = block.n / kConfig.kGranN;
        const float* sfa = args.sfa + static_cast<int64_t>(block.m) * args.sfa_stride_m;
        const float* sfb = args.sfb + static_cast<int64_t>(sfb_row) * args.sfb_stride_n;
        for (int left = num_k_blocks; left > 0; left -= kConfig.kSfGroup) {
            pipeline.producer_acquire(state);
            load_sfa_group<kConfig>(smem.sfa[state.stage], sfa, args.m - block.m, left, args);
            load_sfb_group<kConfig>(smem.sfb[state.stage], sfb, num_sfb_rows - sfb_row, left, args);
            pipeline.producer_commit(state);
            sfa += kConfig.kSfGroup * args.sfa_stride_k;
            sfb += kConfig.kSfGroup * args.sfb_stride_k;
            state.advance();
        }
    }
}

}  // namespace deep_gemm
