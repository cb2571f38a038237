// Load role, second warp: scale factors, gathered word by word with cp.async.
//
// TMA would need SFA to be M-major with rows padded to 16 bytes, and most callers hold it K-major.
// A gather takes either layout, or any slice, as it is: no transposing kernel runs before the GEMM.
// It is as deep in flight as the tiles, since it uses the same ring.
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

template <GemmConfig kConfig, typename Pipeline, typename Scheduler>
DG_DEVICE void load_scale_factors(SharedStorage<kConfig>& smem, const DenseArguments& args,
                                  Pipeline pipeline, Scheduler scheduler) {
    const uint32_t lane = ptx::lane_idx();
    const uint32_t num_sfb_rows = ceil_div<uint32_t>(args.n, kConfig.kGranN);
    const uint32_t num_k_blocks = ceil_div<uint32_t>(args.k, kConfig.kBlockK);

    typename Pipeline::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        const uint32_t sfb_row = block.n / kConfig.kGranN + lane;
        const float* sfa = args.sfa + static_cast<int64_t>(block.m + lane) * args.sfa_stride_m;
        const float* sfb = args.sfb + static_cast<int64_t>(sfb_row) * args.sfb_stride_n;
        for (uint32_t k_block_idx = 0; k_block_idx < num_k_blocks; ++k_block_idx) {
            pipeline.producer_acquire(state);
#pragma unroll
            for (uint32_t row = 0; row < kConfig.block_m; row += 32) {
                if (kConfig.block_m % 32 == 0 || lane < kConfig.block_m % 32) {
                    ptx::cp_async_word(&smem.sfa[state.stage][row + lane],
                                       sfa + row * args.sfa_stride_m,
                                       block.m + row + lane < args.m);
                }
            }
            if (lane < kConfig.num_sfb()) {
                ptx::cp_async_word(&smem.sfb[state.stage][lane], sfb, sfb_row < num_sfb_rows);
            }
            ptx::cp_async_mbarrier_arrive(pipeline.full_barrier(state));
            sfa += args.sfa_stride_k;
            sfb += args.sfb_stride_k;
            state.advance();
        }
    }
}

}  // namespace deep_gemm
