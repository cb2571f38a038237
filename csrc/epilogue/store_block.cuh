// Store role: takes blocks of D out of the staging memory, by TMA store or TMA addition, while the
// math warps are at the next block. epilogue/stage_block.cuh puts them there.
//
// One thread issues the stores of a round and waits until they have read the staging memory, which
// then is free. Rows that TMA must not store as a box are copied by all lanes.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "epilogue/copy_rows.cuh"
#include "epilogue/head_gaps.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Stores the slices of one math warpgroup, as one warp.
template <GemmConfig kConfig>
struct BlockStore {
    static constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    static constexpr int kSlabColumns = kSlabBytes / kConfig.d_bytes;
    static constexpr int kSlabsPerSlice = kConfig.d_columns() / kSlabColumns;
    static constexpr int kSlabs = kConfig.slabs_per_round();
    static constexpr int kSlabRows = min(kConfig.block_m, kConfig.kMmaM);

    const uint8_t (&staging)[kSlabs][kConfig.kMmaM * kSlabBytes];  // the warpgroup's
    StorePipeline<kConfig> pipeline;
    const GemmArguments& args;
    int warpgroup_idx;

    DG_DEVICE BlockStore(SharedStorage<kConfig>& smem, const GemmArguments& args, int warpgroup_idx)
        : staging(smem.d[warpgroup_idx]),
          pipeline{smem.store_barriers[warpgroup_idx]},
          args(args),
          warpgroup_idx(warpgroup_idx) {}

    // Stores round `round` of a block.
    DG_DEVICE void store(const BlockCoordinates& block, int round,
                         const typename StorePipeline<kConfig>::State& state) const {
        pipeline.consumer_wait(state);
        for (int i = 0; i < kSlabs; ++i) store_slab(block, i, round * kSlabs + i);
        if (ptx::lane_idx() == 0) {
            ptx::tma_store_commit_group();
            ptx::tma_store_wait_read();
        }
        pipeline.consumer_release(pipeline.release_address(state));
    }

  private:
    // Slab `idx` of the block, out of the `staged`-th place of the staging memory.
    DG_DEVICE void store_slab(const BlockCoordinates& block, int staged, int idx) const {
        const uint32_t row =
            (warpgroup_idx * kConfig.num_waves() + idx / kSlabsPerSlice) * kConfig.kMmaM;
        const uint32_t column = block.n + idx % kSlabsPerSlice * kSlabColumns;
        if (block.m + row >= args.m || column >= args.n) return;
        if constexpr (kConfig.grouping == Grouping::kMGrouped) {
            if (row >= block.stored_rows) return;
            if (row + kSlabRows > block.stored_rows) {
                copy_rows<kConfig, 32>(staging[staged], block.stored_rows - row, block.d_batch,
                                       block.m + row, column, args);
                return;
            }
        }
        if (ptx::lane_idx() != 0) return;
        const uint32_t d_column = column_in_d(column, args);
        if (args.accumulates) {
            ptx::tma_reduce_add_3d(&args.tensor_map_d, staging[staged], d_column, block.m + row,
                                   block.d_batch);
        } else {
            ptx::tma_store_3d(&args.tensor_map_d, staging[staged], d_column, block.m + row,
                              block.d_batch);
        }
    }
};

// One of num_store_warps() warps, which have the math warpgroups in turn.
template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void store_blocks(SharedStorage<kConfig>& smem, const GemmArguments& args,
                            Scheduler scheduler, uint32_t rank_k, int warp) {
    typename StorePipeline<kConfig>::State state;
    BlockCoordinates block;
    while (scheduler.next_block(block)) {
        if (kConfig.grouping != Grouping::kDense && block.stored_rows == 0) continue;
        block.n += rank_k * kConfig.d_columns();
#pragma unroll 1
        for (int round = 0; round < kConfig.num_store_rounds; ++round) {
            for (int i = warp; i < kConfig.num_math_warpgroups; i += kConfig.num_store_warps()) {
                BlockStore<kConfig>(smem, args, i).store(block, round, state);
            }
            state.advance();
        }
    }
}

}  // namespace deep_gemm
