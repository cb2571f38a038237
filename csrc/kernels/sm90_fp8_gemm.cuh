// FP8 GEMM for Hopper: D[m, n] = A[m, k] @ B[n, k].T in BF16 or FP32, with fine-grained scaling.
//
//   A  [m, k] e4m3, K-major     SFA [m, ceil(k / 128)]: one FP32 scale factor per 1 x 128
//   B  [n, k] e4m3, K-major     SFB [ceil(n / 128), ceil(k / 128)]: one per 128 x 128 (1D2D), or
//                                   [n, ceil(k / 128)]: one per 1 x 128 (1D1D)
//   D  [m, n], rows contiguous; overwritten, or added to
//
// One product, or many in one launch: m-grouped, where rows of A have different B, or k-grouped,
// where stretches of K have different D. They differ by their scheduler, and by little else:
// padding and partial rows of m-grouped blocks, the tensor maps of k-grouped ones.
//
// Roles, by warpgroup:
//   0 .. num_math_warpgroups - 1   math: wait, WGMMA, promote, release; then stage the block
//   the last                       load: warp 0 issues TMA for A and B, warp 1 loads SFA and SFB;
//                                  warps 2 and 3 store a math warpgroup's part of D each; but of
//                                  grouped products warp 2 finds the blocks for all the others,
//                                  and warp 3 stores both
//
// Two rings feed the math, each with a full and an empty barrier per slot, and one takes D away:
//
//   A, B ------ TMA, bytes --------> [full] stage --> WGMMA --> accum --promote--> final
//                ^                                      |                 ^
//                '--- [empty] <--- each warp, each CTA -'                 |
//                                                                         |
//   SFA, SFB -- TMA, cp.async ----> [full] group of 4 k blocks -----------'
//                ^                                    |
//                '--- [empty] <--- each warp ---------'
//
//   final --- stmatrix ---> [full] staging memory --- TMA ---> D
//                ^                                      |
//                '--- [empty] <--- store warp ----------'
//
// Read mainloop/load_tiles.cuh, mainloop/multiply.cuh, mainloop/promotion.cuh,
// epilogue/stage_block.cuh and epilogue/store_block.cuh next, in that order; then scheduler/ for
// grouped products.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "epilogue/stage_block.cuh"
#include "epilogue/store_block.cuh"
#include "epilogue/sum_parts.cuh"
#include "kernels/arguments.cuh"
#include "mainloop/load_scale_factors.cuh"
#include "mainloop/load_tiles.cuh"
#include "mainloop/multiply.cuh"
#include "pipeline/pipeline.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block_ring.cuh"
#include "scheduler/dense.cuh"
#include "scheduler/group_rows.cuh"
#include "scheduler/k_grouped.cuh"
#include "scheduler/persistent.cuh"
#include "scheduler/row_ids.cuh"

namespace deep_gemm {

// Registers per thread of each role. Two math warpgroups and the load warpgroup start with an equal
// share of the SM's 65536 and trade: 2 * 128 * 232 + 128 * 40 = 64512.
constexpr int kMathRegisters = 232;
constexpr int kLoadRegisters = 40;

// The scheduler as all roles but the scheduler warp see it.
template <GemmConfig kConfig>
DG_DEVICE auto make_scheduler(SharedStorage<kConfig>& smem, const GemmArguments& args) {
    if constexpr (kConfig.grouping == Grouping::kDense) {
        return DenseScheduler<kConfig>(args.m, args.n, args.k, args.band, blockIdx.x, gridDim.x);
    } else {
        return BlockReader<kConfig>(smem.block_ring);
    }
}

template <GemmConfig kConfig>
DG_DEVICE void schedule_role(SharedStorage<kConfig>& smem, const GemmArguments& args) {
    if constexpr (kConfig.grouping == Grouping::kKGrouped) {
        publish_blocks<kConfig>(smem.block_ring,
                                KGroupedScheduler<kConfig>(args, blockIdx.x, gridDim.x));
    } else if constexpr (kConfig.grouping == Grouping::kMGrouped) {
        if (args.layout == GroupedLayout::kRowIds) {
            publish_blocks<kConfig>(smem.block_ring,
                                    RowIdScheduler<kConfig>(args, blockIdx.x, gridDim.x));
        } else {
            publish_blocks<kConfig>(smem.block_ring,
                                    GroupRowsScheduler<kConfig>(args, blockIdx.x, gridDim.x));
        }
    }
}

template <GemmConfig kConfig>
DG_DEVICE void load_role(SharedStorage<kConfig>& smem, const GemmArguments& args, int warp) {
    if constexpr (kConfig.num_math_warpgroups > 1) ptx::setmaxnreg_dec<kLoadRegisters>();
    constexpr int kFirstStoreWarp = kConfig.grouping == Grouping::kDense ? 2 : 3;
    const PersistentCta<kConfig> cta(blockIdx.x, gridDim.x);
    if constexpr (kConfig.grouping == Grouping::kDense) {
        if (warp == 0 && args.prefetches_b) {
            prefetch_b<kConfig>(args, make_scheduler(smem, args), cta.rank_m);
        }
    }
    // Only these warps read or write global memory.
    ptx::griddepcontrol_wait();
    if (warp == 0) {
        load_tiles<kConfig>(smem, args, make_scheduler(smem, args), cta.rank_m, cta.rank_n);
        ptx::griddepcontrol_launch_dependents();
    } else if (warp == 1) {
        load_scale_factors<kConfig>(smem, args, make_scheduler(smem, args));
    } else if (kConfig.grouping != Grouping::kDense && warp == 2) {
        schedule_role(smem, args);
    } else if (warp >= kFirstStoreWarp && warp < kFirstStoreWarp + kConfig.num_store_warps()) {
        store_blocks<kConfig>(smem, args, make_scheduler(smem, args), cta.rank_k,
                              warp - kFirstStoreWarp);
    }
}

template <GemmConfig kConfig>
DG_DEVICE void math_role(SharedStorage<kConfig>& smem, const GemmArguments& args,
                         int warpgroup_idx) {
    if constexpr (kConfig.num_math_warpgroups > 1) ptx::setmaxnreg_inc<kMathRegisters>();
    auto scheduler = make_scheduler(smem, args);
    Multiplier<kConfig> multiplier(smem, args.sfa_load, warpgroup_idx);
    BlockStaging<kConfig> staging(smem, warpgroup_idx);
    PartSum<kConfig> part_sum(smem, warpgroup_idx,
                              PersistentCta<kConfig>(blockIdx.x, gridDim.x).rank_k);
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        float accum[kConfig.num_waves()][kConfig.block_n / 2] = {};
        multiplier.multiply(accum, block.num_k_blocks, block.n % kConfig.kGranN);
        if constexpr (kConfig.grouping == Grouping::kMGrouped) {
            const int first_row = warpgroup_idx * kConfig.num_waves() * kConfig.kMmaM;
            if (block.valid_rows < block.stored_rows) {
                clear_padding<kConfig>(accum, static_cast<int>(block.valid_rows) - first_row);
            }
        }
        if constexpr (kConfig.cluster_k > 1) {
            float sum[kConfig.num_waves()][kConfig.d_columns() / 2];
            part_sum.sum(sum, accum);
            staging.stage(sum);
        } else if (kConfig.grouping == Grouping::kDense || block.stored_rows > 0) {
            staging.stage(accum);
        }
    }
    part_sum.finish();
}

template <GemmConfig kConfig>
DG_DEVICE void sm90_fp8_gemm(const GemmArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<SharedStorage<kConfig>*>(dynamic_smem);
    const int warp_idx = ptx::warp_idx();
    const int load_warp = warp_idx - kConfig.num_math_warpgroups * 4;

    if (load_warp == 0 && ptx::elect_one()) {
        if constexpr (kConfig.grouping != Grouping::kKGrouped) {
            ptx::prefetch_tensormap(&args.tensor_map_a);
            ptx::prefetch_tensormap(&args.tensor_map_b);
        }
        ptx::prefetch_tensormap(&args.tensor_map_d);
        if (args.sfa_load != SfaLoad::kWords) ptx::prefetch_tensormap(&args.tensor_map_sfa);
        if constexpr (kConfig.is_1d1d()) ptx::prefetch_tensormap(&args.tensor_map_sfb);
        TilePipeline<kConfig>{smem.barriers}.init();
        SfPipeline<kConfig>{smem.sf_barriers}.init();
        for (auto& barriers : smem.store_barriers) StorePipeline<kConfig>{barriers}.init();
        if constexpr (kConfig.cluster_k > 1) {
            for (auto& barriers : smem.sum.barriers) SumPipeline<kConfig>{barriers}.init();
        }
        if constexpr (kConfig.grouping != Grouping::kDense) {
            BlockPipeline<kConfig>{smem.block_ring.barriers}.init();
        }
    }
    if constexpr (kConfig.cluster_size() > 1) {
        ptx::cluster_sync();
    } else {
        __syncwarp();  // the lane that was elected, and the others
        __syncthreads();
    }

    if (load_warp >= 0) {
        load_role<kConfig>(smem, args, load_warp);
    } else {
        math_role<kConfig>(smem, args, warp_idx / 4);
    }
}

}  // namespace deep_gemm
