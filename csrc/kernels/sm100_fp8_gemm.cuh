// FP8 GEMM for Blackwell: D[m, n] = A[m, k] @ B[n, k].T in BF16 or FP32, with UE8M0 scale factors.
//
//   A  [m, k] e4m3, K-major or M-major    SFA [m, ceil(k / 4 gran_k)]: words of four UE8M0, one for
//   B  [n, k] e4m3, K-major or N-major    SFB [n, ceil(k / 4 gran_k)]  each gran_k of a row
//   D  [m, n], rows contiguous; overwritten, or added to
//
// One product, or many in one launch, as on SM90: m-grouped, or k-grouped, where stretches of K
// have different D, and tensor maps of their own.
//
// Roles, by warp:
//   0      issues TMA for A and B
//   1      starts the MMAs, one thread of it
//   2      loads scale factors
//   3      takes and gives back the tensor memory; finds the blocks of grouped products
//   4..7   epilogue: tensor memory -> D
//
//   A, B ---- TMA, bytes ----> [full] stage --------.
//              ^                                    |--> MMA --> accumulator --> [full] --> D
//              '--- [empty] <-- commit -------------'                 ^             |
//                                                   |                 '-- [empty] <-'
//   SFA, SFB - cp.async -----> [full] group -- cp --'
//              ^                                    |
//              '--- [empty] <-- commit -------------'
//
// Two CTAs of a cluster, one above the other, may be a pair and share each MMA: sm100/pair.cuh.
//
// Read sm100/load_tiles.cuh, sm100/load_scale_factors.cuh, sm100/multiply.cuh and
// sm100/store_block.cuh next, in that order.
#pragma once

#include "common/types.cuh"
#include "kernels/arguments.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/tcgen05.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block_ring.cuh"
#include "scheduler/dense.cuh"
#include "scheduler/group_rows.cuh"
#include "scheduler/k_grouped.cuh"
#include "scheduler/row_ids.cuh"
#include "sm100/gemm_config.cuh"
#include "sm100/load_scale_factors.cuh"
#include "sm100/load_tiles.cuh"
#include "sm100/multiply.cuh"
#include "sm100/pair.cuh"
#include "sm100/storage.cuh"
#include "sm100/store_block.cuh"

namespace deep_gemm {

// The scheduler as all roles but the scheduler warp see it.
template <Sm100GemmConfig kConfig>
DG_DEVICE auto make_sm100_scheduler(Sm100Storage<kConfig>& smem, const GemmArguments& args) {
    if constexpr (kConfig.grouping == Grouping::kDense) {
        return DenseScheduler<kConfig>(args.m, args.n, args.k, args.band, blockIdx.x, gridDim.x);
    } else {
        return BlockReader<kConfig>(smem.block_ring);
    }
}

template <Sm100GemmConfig kConfig>
DG_DEVICE void sm100_schedule_role(Sm100Storage<kConfig>& smem, const GemmArguments& args) {
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

template <Sm100GemmConfig kConfig>
DG_DEVICE void mma_role(Sm100Storage<kConfig>& smem, const GemmArguments& args) {
    auto scheduler = make_sm100_scheduler(smem, args);
    Sm100Multiplier<kConfig> multiplier(smem);
    const bool issues = rank_in_pair<kConfig>() == 0 && ptx::elect_one();
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        if (issues && block.num_k_blocks > 0) multiplier.multiply(block.num_k_blocks);
        __syncwarp();
    }
    if (kConfig.shares_mmas() && issues) multiplier.finish();
}

template <Sm100GemmConfig kConfig>
DG_DEVICE void epilogue_role(Sm100Storage<kConfig>& smem, const GemmArguments& args) {
    auto scheduler = make_sm100_scheduler(smem, args);
    const AccumulatorPipeline<kConfig> accumulators{smem.accumulator_barriers};
    typename AccumulatorPipeline<kConfig>::State accumulator;
    Sm100BlockStore<kConfig> block_store(smem, args);
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        // A group without K, where D is added to.
        if (kConfig.grouping == Grouping::kKGrouped && block.stored_rows == 0) continue;
        if (block.num_k_blocks > 0) {
            accumulators.consumer_wait(accumulator);
            ptx::tcgen05_fence_after_sync();
        }
        block_store.store(block, accumulator.stage, [&] {
            if (block.num_k_blocks == 0) return;
            ptx::tcgen05_fence_before_sync();
            __syncwarp();
            if (ptx::lane_idx() == 0) {
                arrive_at_leader<kConfig>(accumulators.empty_barrier(accumulator));
            }
        });
        if (block.num_k_blocks > 0) accumulator.advance();
    }
    if (threadIdx.x % kConfig.kWarpgroup == 0) ptx::tma_store_wait_read<0>();
    __syncwarp();
}

template <Sm100GemmConfig kConfig>
DG_DEVICE void sm100_fp8_gemm(const GemmArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<Sm100Storage<kConfig>*>(dynamic_smem);
    const int warp = ptx::warp_idx();

    if (warp == 0 && ptx::elect_one()) {
        if constexpr (kConfig.grouping != Grouping::kKGrouped) {
            ptx::prefetch_tensormap(&args.tensor_map_a);
            ptx::prefetch_tensormap(&args.tensor_map_b);
        }
        ptx::prefetch_tensormap(&args.tensor_map_d);
        Sm100TilePipeline<kConfig>{smem.barriers}.init();
        Sm100SfPipeline<kConfig>{smem.sf_barriers}.init();
        AccumulatorPipeline<kConfig>{smem.accumulator_barriers}.init();
        if constexpr (kConfig.grouping != Grouping::kDense) {
            BlockPipeline<kConfig>{smem.block_ring.barriers}.init();
        }
    }
    if (warp == 3) ptx::tcgen05_alloc<kConfig.cluster_m, kConfig.tmem_columns()>(&smem.tmem);
    ptx::tcgen05_fence_before_sync();
    sync_pair<kConfig>();
    ptx::tcgen05_fence_after_sync();

    if (warp < 4) ptx::griddepcontrol_wait();
    if (warp == 0) {
        sm100_load_tiles<kConfig>(smem, args, make_sm100_scheduler(smem, args));
        ptx::griddepcontrol_launch_dependents();
    } else if (warp == 1) {
        mma_role<kConfig>(smem, args);
    } else if (warp == 2) {
        sm100_load_scale_factors<kConfig>(smem, args, make_sm100_scheduler(smem, args));
    } else if (warp == 3) {
        sm100_schedule_role(smem, args);
    } else if (warp >= 4) {
        epilogue_role<kConfig>(smem, args);
    }
    ptx::tcgen05_fence_before_sync();
    sync_pair<kConfig>();
    ptx::tcgen05_fence_after_sync();
    if (warp == 3) ptx::tcgen05_dealloc<kConfig.cluster_m, kConfig.tmem_columns()>(smem.tmem);
}

}  // namespace deep_gemm
