// MMA role of SM100: one thread starts the products of keys and queries, tile by tile, into the
// ring of accumulators. It waits for none of them: commits tell who reads the results, and who
// overwrites the operands.
#pragma once

#include "common/types.cuh"
#include "layout/row_descriptor.cuh"
#include "layout/umma_descriptors.cuh"
#include "mqa/storage.cuh"
#include "ptx/tcgen05.cuh"

namespace deep_gemm {

// Where the accumulators lie in tensor memory: row i of a tile's product in lane i.
template <MqaConfig kConfig>
DG_DEVICE uint32_t accumulator_address(const MqaStorage<kConfig>& smem, int idx) {
    return smem.accumulators.tmem + idx * kConfig.columns();
}

// Keys [128, head_dim] @ queries [columns, head_dim].T, without scale factors.
template <MqaConfig kConfig>
DG_DEVICE void start_product(MqaStorage<kConfig>& smem, int accumulator, int key_stage,
                             int query_stage) {
    using Descriptor = RowDescriptor<kConfig.head_dim, true>;
    constexpr uint32_t kInstruction = f8_instruction<MqaConfig::kTileKeys, kConfig.columns()>();
    const Descriptor a(smem.keys[key_stage]);
    const Descriptor b(smem.queries[query_stage]);
#pragma unroll
    for (int k = 0; k < kConfig.head_dim; k += MqaConfig::kMmaK) {
        ptx::tcgen05_mma_f8(accumulator_address(smem, accumulator), a.at(k), b.at(k), kInstruction,
                            k != 0);
    }
}

// All blocks of the CTA's share. Called by one thread. It need not release a block: the math warps
// do when they have the last of its products.
template <MqaConfig kConfig>
DG_DEVICE void multiply_tiles(MqaStorage<kConfig>& smem) {
    const KeyPipeline<kConfig> keys{smem.key_barriers};
    const QueryPipeline<kConfig> blocks{smem.query_barriers};
    const AccumulatorRing<kConfig> accumulators{smem.accumulators.barriers};
    typename KeyPipeline<kConfig>::State key_state;
    typename QueryPipeline<kConfig>::State block_state;
    typename AccumulatorRing<kConfig>::State accumulator;
    while (true) {
        blocks.consumer_wait(block_state);
        const uint32_t num_tiles = smem.blocks[block_state.stage].num_tiles;
        if (num_tiles == 0) return;
        for (uint32_t i = 0; i < num_tiles; ++i) {
            accumulators.producer_acquire(accumulator);
            keys.consumer_wait(key_state);
            ptx::tcgen05_fence_after_sync();
            start_product(smem, accumulator.stage, key_state.stage, block_state.stage);
            ptx::tcgen05_commit<1>(keys.empty_barrier(key_state));
            ptx::tcgen05_commit<1>(accumulators.full_barrier(accumulator));
            key_state.advance();
            accumulator.advance();
        }
        block_state.advance();
    }
}

}  // namespace deep_gemm
