// Math role of SM100: from accumulators in tensor memory to logits.
//
// Keys are the rows of a product, so a thread has one key and all heads of all tokens, in order:
// nothing is ever moved between lanes. The two warpgroups take turns with the tiles: while one sums
// up a tile, the tensor cores fill an accumulator of the other.
//
// The order of a sum is fixed: head h goes to chain h % 4, in order, and the chains are added as
// (0 + 2) + (1 + 3). Two chains are a pair of registers, which one instruction serves.
#pragma once

#include "common/types.cuh"
#include "mqa/multiply.cuh"
#include "mqa/storage.cuh"
#include "mqa/store_logit.cuh"
#include "ptx/convert.cuh"
#include "ptx/memory.cuh"
#include "ptx/tcgen05.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

template <MqaConfig kConfig>
struct HeadSummer {
    static constexpr int kChunk = 16;  // columns that a thread takes out of tensor memory at a time
    static constexpr int kNumChunks = kConfig.columns() / kChunk;
    using Block = QueryBlock<kConfig.num_tokens>;

    MqaStorage<kConfig>& smem;
    uint32_t turn;  // tiles until the warpgroup's next, from the first of a block on
    uint32_t row;   // of a tile, the thread's; also its lane of tensor memory
    KeyPipeline<kConfig> keys;
    QueryPipeline<kConfig> blocks;
    AccumulatorRing<kConfig> accumulators;
    typename KeyPipeline<kConfig>::State key_state{};
    typename QueryPipeline<kConfig>::State block_state{};
    typename AccumulatorRing<kConfig>::State accumulator{};
    float chains[2][2];

    DG_DEVICE HeadSummer(MqaStorage<kConfig>& smem, uint32_t warpgroup)
        : smem(smem),
          turn(warpgroup),
          row(threadIdx.x % MqaConfig::kWarpgroup),
          keys{smem.key_barriers},
          blocks{smem.query_barriers},
          accumulators{smem.accumulators.barriers} {
        for (uint32_t i = 0; i < warpgroup; ++i) pass_tile();
    }

    // All blocks of the CTA's share.
    DG_DEVICE void run() {
        while (true) {
            blocks.consumer_wait(block_state);
            const Block& block = smem.blocks[block_state.stage];
            const uint32_t num_tiles = ptx::uniform(block.num_tiles);
            if (num_tiles == 0) return;
            for (; turn < num_tiles; turn += MqaConfig::kMathWarpgroups) {
                sum_tile(block, block.first_key + turn * MqaConfig::kTileKeys);
                for (int i = 0; i < MqaConfig::kMathWarpgroups; ++i) pass_tile();
            }
            turn -= num_tiles;
            blocks.consumer_release(blocks.release_address(block_state));
            block_state.advance();
        }
    }

  private:
    DG_DEVICE void pass_tile() {
        key_state.advance();
        accumulator.advance();
    }

    DG_DEVICE void sum_tile(const Block& block, uint32_t first_key) {
        keys.consumer_wait(key_state);
        const float sf = ptx::load_shared(smem.key_sf[key_state.stage] + row);
        keys.consumer_release(keys.release_address(key_state));
        accumulators.consumer_wait(accumulator);
        ptx::tcgen05_fence_after_sync();
        // Whether a token sees any key of the warp's rows.
        const bool is_seen = first_key + row / 32 * 32 < ptx::uniform(block.end_key);
        if (is_seen) {
            sum_columns(block, first_key + row, sf);
        } else {
            release_accumulator();
        }
    }

    DG_DEVICE void release_accumulator() {
        ptx::tcgen05_fence_before_sync();
        accumulators.consumer_release(accumulators.release_address(accumulator));
    }

    // While a chunk is summed up, the next one is on its way out of tensor memory.
    DG_DEVICE void sum_columns(const Block& block, uint32_t key, float sf) {
        const uint32_t address =
            accumulator_address(smem, accumulator.stage) + (row / 32 * 32 << 16);
        float chunk[2][kChunk];
        ptx::tcgen05_ld_16_columns(address, chunk[0]);
#pragma unroll
        for (int i = 0; i < kNumChunks; ++i) {
            ptx::tcgen05_wait_ld(chunk[i % 2]);
            if (i + 1 < kNumChunks) {
                ptx::tcgen05_ld_16_columns(address + (i + 1) * kChunk, chunk[(i + 1) % 2]);
            } else {
                release_accumulator();
            }
            sum_chunk(i * kChunk, chunk[i % 2], block, key, sf);
        }
    }

    // Adds up columns `first` .. `first` + kChunk - 1, and stores the logits of tokens that they
    // complete.
    DG_DEVICE void sum_chunk(int first, const float (&products)[kChunk], const Block& block,
                             uint32_t key, float sf) {
#pragma unroll
        for (int i = 0; i < kChunk; i += 4) {
            const int column = first + i;
            if (column >= kConfig.used_columns()) break;
            const int head = column % kConfig.num_heads;
            float weights[4];
            ptx::load_shared(smem.weights[block_state.stage] + column, weights);
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                float (&sums)[2] = chains[pair];
                if (head == 0) sums[0] = sums[1] = 0;
                const int j = 2 * pair;
                ptx::fma_pair(sums, weights[j], weights[j + 1], ptx::relu(products[i + j]),
                              ptx::relu(products[i + j + 1]));
            }
            if (head + 4 == kConfig.num_heads) {
                const float sum = (chains[0][0] + chains[1][0]) + (chains[0][1] + chains[1][1]);
                store_logit<kConfig>(block.rows[column / kConfig.num_heads], key, sum * sf);
            }
        }
    }
};

}  // namespace deep_gemm
