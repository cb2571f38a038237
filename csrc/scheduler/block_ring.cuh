// Grouped products: the group sizes lie in global memory, so a warp of its own finds the blocks,
// ahead of time, and hands them to all other roles through a small ring in shared memory.
//
//   scheduler warp: next_block --> slot --> [full]  --> load warps, math warps: next_block
//                                   ^------ [empty] <-- every warp that has read the slot
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/pipeline.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

struct BlockSlot {
    BlockCoordinates block;
    uint32_t is_last = 0;
};

template <bool kIsGrouped>
struct BlockRing {
    BlockSlot slots[GemmConfig::kBlockSlots];
    PipelineBarriers<GemmConfig::kBlockSlots> barriers;
};

// A dense product's blocks need no ring.
template <>
struct BlockRing<false> {};

// One thread fills it, several warps read it.
template <auto kConfig>
using BlockPipeline = Pipeline<GemmConfig::kBlockSlots, 1, kConfig.num_block_readers(), 1>;

// Scheduler warp: publishes all of this CTA's blocks, and an empty one that ends them.
template <auto kConfig, typename Scheduler>
DG_DEVICE void publish_blocks(BlockRing<true>& ring, Scheduler scheduler) {
    const BlockPipeline<kConfig> pipeline{ring.barriers};
    typename BlockPipeline<kConfig>::State state;
    BlockCoordinates block;
    bool more = true;
    while (more) {
        more = scheduler.next_block(block);
        if (!more) block = {};
        pipeline.producer_acquire(state);
        if (ptx::lane_idx() == 0) {
            ring.slots[state.stage] = {block, more ? 0u : 1u};
            pipeline.producer_arrive(state);
        }
        __syncwarp();
        state.advance();
    }
}

// Every other role: the scheduler, as one warp sees it.
//
// What the compiler does not know to be the same in all lanes costs the main loop dearly:
// descriptors in ordinary registers, and a vote at each branch. So all lanes take lane 0's values;
// and a block says itself whether it is the last, since a loop that is left right behind a wait
// counts as left by each lane for itself.
template <auto kConfig>
struct BlockReader {
    BlockRing<true>& ring;
    typename BlockPipeline<kConfig>::State state;
    uint32_t is_last = 0;

    DG_DEVICE explicit BlockReader(BlockRing<true>& ring) : ring(ring) {}

    DG_DEVICE bool next_block(BlockCoordinates& block) {
        if (is_last) return false;
        const BlockPipeline<kConfig> pipeline{ring.barriers};
        pipeline.consumer_wait(state);
        const BlockSlot slot = ring.slots[state.stage];
        pipeline.consumer_release(pipeline.release_address(state));
        state.advance();
        block = {.m = ptx::uniform(slot.block.m),
                 .n = ptx::uniform(slot.block.n),
                 .a_batch = ptx::uniform(slot.block.a_batch),
                 .b_batch = ptx::uniform(slot.block.b_batch),
                 .d_batch = ptx::uniform(slot.block.d_batch),
                 .first_k_block = ptx::uniform(slot.block.first_k_block),
                 .num_k_blocks = ptx::uniform(slot.block.num_k_blocks),
                 .valid_rows = ptx::uniform(slot.block.valid_rows),
                 .stored_rows = ptx::uniform(slot.block.stored_rows),
                 .shares_b = ptx::uniform(slot.block.shares_b)};
        is_last = ptx::uniform(slot.is_last);
        return true;
    }
};

}  // namespace deep_gemm
