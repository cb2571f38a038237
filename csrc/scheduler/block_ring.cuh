// Grouped products: the group sizes lie in global memory, so a warp of its own finds the blocks,
// ahead of time, and hands them to all other roles through a small ring in shared memory.
//
//   scheduler warp: next_block --> slot --> [full]  --> load warps, math warps: next_block
//                                   ^------ [empty] <-- every thread that has read the slot
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/pipeline.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// In the place of b_batch: there are no more blocks.
constexpr uint32_t kNoMoreBlocks = 0xffffffff;

// Scheduler warp: publishes all of this CTA's blocks.
template <GemmConfig kConfig, typename Scheduler>
DG_DEVICE void publish_blocks(SharedStorage<kConfig>& smem, Scheduler scheduler) {
    const BlockPipeline<kConfig> pipeline{smem.block_ring.barriers};
    typename BlockPipeline<kConfig>::State state;
    BlockCoordinates block;
    bool more = true;
    while (more) {
        more = scheduler.next_block(block);
        if (!more) block.b_batch = kNoMoreBlocks;
        pipeline.producer_acquire(state);
        if (ptx::lane_idx() == 0) {
            smem.block_ring.blocks[state.stage] = block;
            pipeline.producer_arrive(state);
        }
        __syncwarp();
        state.advance();
    }
}

// Every other role: the scheduler, as one thread sees it.
template <GemmConfig kConfig>
struct BlockReader {
    SharedStorage<kConfig>& smem;
    typename BlockPipeline<kConfig>::State state;

    DG_DEVICE explicit BlockReader(SharedStorage<kConfig>& smem) : smem(smem) {}

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        const BlockPipeline<kConfig> pipeline{smem.block_ring.barriers};
        pipeline.consumer_wait(state);
        block = smem.block_ring.blocks[state.stage];
        pipeline.consumer_arrive(state);
        state.advance();
        return block.b_batch != kNoMoreBlocks;
    }
};

}  // namespace deep_gemm
