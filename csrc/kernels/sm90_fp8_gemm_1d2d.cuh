// FP8 GEMM for Hopper: D[m, n] = A[m, k] @ B[n, k].T in BF16, with 1D2D scaling.
//
//   A  [m, k] e4m3, K-major     SFA [m, ceil(k / 128)]: one FP32 scale factor per 1 x 128
//   B  [n, k] e4m3, K-major     SFB [ceil(n / 128), ceil(k / 128)]: one per 128 x 128
//   D  [m, n] BF16, rows contiguous
//
// Roles, by warpgroup:
//   0 .. num_math_warpgroups - 1   math: wait, WGMMA, promote, release; then store the block
//   the last                       load: warp 0 issues TMA for A and B, warp 1 loads SFA and SFB
//
// Two rings feed the math, each with a full and an empty barrier per slot:
//
//   A, B ------ TMA, bytes --------> [full] stage --> WGMMA --> accum --promote--> final --> D
//                ^                                      |                 ^
//                '--- [empty] <--- each warp, each CTA -'                 |
//                                                                         |
//   SFA, SFB -- TMA, cp.async ----> [full] group of 4 k blocks -----------'
//                ^                                    |
//                '--- [empty] <--- each warp ---------'
//
// Read mainloop/load_tiles.cuh, mainloop/multiply.cuh, mainloop/promotion.cuh and
// epilogue/store_bf16.cuh next, in that order.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "epilogue/store_bf16.cuh"
#include "kernels/arguments.cuh"
#include "mainloop/load_scale_factors.cuh"
#include "mainloop/load_tiles.cuh"
#include "mainloop/multiply.cuh"
#include "pipeline/pipeline.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/dense.cuh"

namespace deep_gemm {

// Registers per thread of each role. Two math warpgroups and the load warpgroup start with an equal
// share of the SM's 65536 and trade: 2 * 128 * 232 + 128 * 40 = 64512.
constexpr int kMathRegisters = 232;
constexpr int kLoadRegisters = 40;

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void load_role(SharedStorage<kConfig>& smem, const DenseArguments& args,
                         Scheduler scheduler, int warp) {
    if constexpr (kConfig.num_math_warpgroups > 1) ptx::setmaxnreg_dec<kLoadRegisters>();
    if (warp == 0) {
        if (ptx::elect_one()) load_tiles<kConfig>(smem, args, scheduler);
        __syncwarp();
    } else if (warp == 1) {
        load_scale_factors<kConfig>(smem, args, scheduler);
    }
}

template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void math_role(SharedStorage<kConfig>& smem, const DenseArguments& args,
                         Scheduler scheduler, int warpgroup_idx) {
    if constexpr (kConfig.num_math_warpgroups > 1) ptx::setmaxnreg_inc<kMathRegisters>();
    const uint32_t num_k_blocks = ceil_div<uint32_t>(args.k, kConfig.kBlockK);
    Multiplier<kConfig> multiplier(smem, args.sfa_load, warpgroup_idx);
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        float accum[kConfig.num_waves()][kConfig.block_n / 2] = {};
        multiplier.multiply(accum, num_k_blocks, block.n % kConfig.kGranN);
        store_block<kConfig>(smem.d[warpgroup_idx], &args.tensor_map_d, block, args.m, args.n,
                             accum, warpgroup_idx);
    }
    if (threadIdx.x % kConfig.kWarpgroup == 0) ptx::tma_store_wait_read();
    __syncwarp();
}

template <GemmConfig kConfig>
DG_DEVICE void sm90_fp8_gemm_1d2d(const DenseArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<SharedStorage<kConfig>*>(dynamic_smem);
    const int warp_idx = ptx::warp_idx();
    const int load_warp = warp_idx - kConfig.num_math_warpgroups * 4;

    if (load_warp == 0 && ptx::elect_one()) {
        ptx::prefetch_tensormap(&args.tensor_map_a);
        ptx::prefetch_tensormap(&args.tensor_map_b);
        ptx::prefetch_tensormap(&args.tensor_map_d);
        if (args.sfa_load != SfaLoad::kWords) ptx::prefetch_tensormap(&args.tensor_map_sfa);
        TilePipeline<kConfig>{smem.barriers}.init();
        SfPipeline<kConfig>{smem.sf_barriers}.init();
    }
    if constexpr (kConfig.cluster_size() > 1) {
        ptx::cluster_sync();
    } else {
        __syncthreads();
    }

    const DenseScheduler<kConfig> scheduler(args.m, args.n, args.band, blockIdx.x, gridDim.x);
    if (load_warp >= 0) {
        load_role<kConfig>(smem, args, scheduler, load_warp);
    } else {
        math_role<kConfig>(smem, args, scheduler, warp_idx / 4);
    }
    // A peer's loads and arrivals reach into this CTA's shared memory: none may leave before all
    // are done.
    if constexpr (kConfig.cluster_size() > 1) ptx::cluster_sync();
}

}  // namespace deep_gemm
