// Math role: products of keys and queries, and their weighted sum over the heads.
//
// Keys are the rows of a product and heads its columns, so a thread holds, for its two rows, all
// heads of a token, or half of them, or a quarter (mqa/load_queries.cuh says in which order the
// columns lie). What it does with an element takes two instructions, relu and a fused
// multiply-add: no weight, no head and no token needs to be moved between lanes on the way.
//
// The order of a sum is fixed, whatever the number of tokens: head pair p goes to chain p % 4, in
// order, and the chains are added as (0 + 2) + (1 + 3). A lane has all four chains, or two, or one.
#pragma once

#include "common/types.cuh"
#include "layout/accumulator.cuh"
#include "layout/row_descriptor.cuh"
#include "mqa/storage.cuh"
#include "mqa/store_logit.cuh"
#include "ptx/convert.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"
#include "ptx/wgmma.cuh"

namespace deep_gemm {

// A tile of keys as one thread sees it.
struct KeyTile {
    uint32_t key;  // of its first row; the second is 8 further on
    float sf[2];
};

template <MqaConfig kConfig>
struct Scorer {
    static constexpr int kColumns = kConfig.columns();
    static constexpr int kQuadTokens = kConfig.quad_tokens();
    static constexpr int kGroupEights = kConfig.group_eights();
    using Descriptor = RowDescriptor<kConfig.head_dim>;

    MqaStorage<kConfig>& smem;
    int thread;     // of the warpgroup
    int warp_row;   // the warp's first row of a tile
    int first_row;  // the thread's
    KeyPipeline<kConfig> keys;
    QueryPipeline<kConfig> blocks;
    typename KeyPipeline<kConfig>::State key_state{};
    typename QueryPipeline<kConfig>::State block_state{};
    Descriptor keys_of_warps;  // the warpgroup's, in the first stage
    Descriptor queries;
    float weights[kColumns / 4];
    float chains[2][kQuadTokens];  // of both rows

    DG_DEVICE Scorer(MqaStorage<kConfig>& smem, int warpgroup_idx)
        : smem(smem),
          thread(threadIdx.x % MqaConfig::kWarpgroup),
          warp_row(ptx::warp_idx() * 16),
          first_row(warpgroup_idx * MqaConfig::kMmaM + accumulator_row(thread)),
          keys{smem.key_barriers},
          blocks{smem.query_barriers},
          keys_of_warps(smem.keys[0] + warpgroup_idx * MqaConfig::kMmaM * kConfig.head_dim),
          queries(smem.queries[0]) {}

    // All blocks of the CTA's share. While one warpgroup sums up, the tensor cores may work for the
    // other one.
    DG_DEVICE void run() {
        while (true) {
            blocks.consumer_wait(block_state);
            const auto& block = smem.blocks[block_state.stage];
            const uint32_t num_tiles = ptx::uniform(block.num_tiles);
            if (num_tiles == 0) break;
            load_weights();
            const uint32_t first_key = block.first_key;
            const uint32_t end_key = block.end_key;
            for (uint32_t i = 0; i < num_tiles; ++i) {
                score_tile(first_key + i * MqaConfig::kTileKeys, end_key);
            }
            blocks.consumer_release(blocks.release_address(block_state));
            block_state.advance();
        }
    }

  private:
    // The tile whose first key is `key`, for a block whose tokens see none from `end_key` on.
    DG_DEVICE void score_tile(uint32_t key, uint32_t end_key) {
        float accum[kColumns / 2];
        keys.consumer_wait(key_state);
        multiply(accum);
        const float* sf = smem.key_sf[key_state.stage] + first_row;
        const KeyTile tile{key + first_row, {ptx::load_shared(sf), ptx::load_shared(sf + 8)}};
        const uint32_t release_address = keys.release_address(key_state);
        key_state.advance();
        ptx::wgmma_wait_group<0>(accum);
        keys.consumer_release(release_address);
        if (key + warp_row < end_key) sum(accum, tile);
    }

    // Keys [64, head_dim] @ queries [columns, head_dim].T.
    DG_DEVICE void multiply(float (&accum)[kColumns / 2]) const {
        const Descriptor a = keys_of_warps.template tile<kConfig.key_tile_bytes()>(key_state.stage);
        const Descriptor b = queries.template tile<kConfig.query_tile_bytes()>(block_state.stage);
        ptx::wgmma_fence();
        ptx::WgmmaFp8<kColumns>::mma_async(accum, a, 0, b, 0);
        ptx::wgmma_commit_group();
    }

    DG_DEVICE void load_weights() {
        const float* source = smem.weights[block_state.stage] + accumulator_column(thread);
#pragma unroll
        for (int i = 0; i < kConfig.used_columns() / 8; ++i) {
            ptx::load_shared(source + 8 * i, weights[2 * i], weights[2 * i + 1]);
        }
    }

    // Adds up the columns of a tile, and stores the logits.
    DG_DEVICE void sum(const float (&accum)[kColumns / 2], const KeyTile& tile) {
#pragma unroll
        for (int eight = 0; eight < kConfig.used_columns() / 8; ++eight) {
            const int in_group = eight % kGroupEights;
            const int chain = in_group % kQuadTokens;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float weight = weights[2 * eight + i];
#pragma unroll
                for (int row = 0; row < 2; ++row) {
                    const float x = ptx::relu(accum[4 * eight + 2 * row + i]);
                    const bool is_first = in_group < kQuadTokens && i == 0;
                    float& partial = chains[row][chain];
                    partial = is_first ? __fmul_rn(weight, x) : __fmaf_rn(weight, x, partial);
                }
            }
            if (in_group == kGroupEights - 1) store_group(eight / kGroupEights, tile);
        }
    }

    // Completes the sums of one group of tokens, and stores those of this thread.
    DG_DEVICE void store_group(int group, const KeyTile& tile) const {
        float sums[2];
#pragma unroll
        for (int row = 0; row < 2; ++row) {
            const auto& c = chains[row];
            if constexpr (kQuadTokens == 4) {
                sums[row] = (c[0] + c[2]) + (c[1] + c[3]);
            } else if constexpr (kQuadTokens == 2) {
                sums[row] = c[0] + c[1];
            } else {
                sums[row] = c[0];
            }
        }
        const int token = group * kQuadTokens + thread % kQuadTokens;
        const LogitRow row = smem.blocks[block_state.stage].rows[token];
        if constexpr (kQuadTokens == 4) {
            store_logit<kConfig>(row, tile.key, sums[0] * tile.sf[0]);
            store_logit<kConfig>(row, tile.key + 8, sums[1] * tile.sf[1]);
        } else {
            // Lanes two apart have half of a token's heads each: each takes one of the rows.
            const bool is_second = thread & 2;
            float sum = is_second ? sums[1] : sums[0];
            sum += __shfl_xor_sync(0xffffffff, is_second ? sums[0] : sums[1], 2);
            if constexpr (kQuadTokens == 1) sum += __shfl_xor_sync(0xffffffff, sum, 1);
            if (kQuadTokens == 2 || thread % 2 == 0) {
                const float sf = is_second ? tile.sf[1] : tile.sf[0];
                store_logit<kConfig>(row, tile.key + (is_second ? 8 : 0), sum * sf);
            }
        }
    }
};

}  // namespace deep_gemm
