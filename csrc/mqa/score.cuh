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
    bool is_seen;  // whether a token sees any key of the warp's rows
    uint32_t release_address;
};

template <MqaConfig kConfig>
struct Scorer {
    static constexpr int kHalf = kConfig.half_columns();
    static constexpr int kHalfEights = kHalf / 8;
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
    typename QueryPipeline<kConfig>::State block_state{};   // of the next tile to start
    typename QueryPipeline<kConfig>::State summed_state{};  // of what is summed up
    int query_stage = 0;                                    // of what is multiplied
    uint32_t next_key = 0;
    uint32_t end_key = 0;
    uint32_t tiles_left = 0;
    Descriptor keys_of_warps;  // the warpgroup's, in the first stage
    Descriptor queries;
    float weights[kConfig.columns() / 4];
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

    // All blocks of the CTA's share. While one half of a tile's columns is summed up, the tensor
    // cores work on the other, across tiles and blocks. Between two halves they turn to the other
    // warpgroup, so it costs nothing that each waits for its one half in flight to end.
    DG_DEVICE void run() {
        float lower[kHalf / 2], upper[kHalf / 2];
        if (!enter_block()) return;
        KeyTile tile = start_tile(lower);
        load_weights();
        while (true) {
            ptx::wgmma_wait_group<0>(lower);
            start_half<1>(upper);
            const bool goes_on = has_next_tile();
            if (tile.is_seen) sum_half<0>(lower, tile);
            ptx::wgmma_wait_group<0>(upper);
            keys.consumer_release_loaded(tile.release_address);
            if (!goes_on) break;
            const KeyTile next = start_tile(lower);
            if (tile.is_seen) sum_half<1>(upper, tile);
            if (summed_state.stage != query_stage) {
                blocks.consumer_release(blocks.release_address(summed_state));
                __syncwarp();  // WGMMA wants the lane that has arrived back among the others
                summed_state.advance();
                load_weights();
            }
            tile = next;
        }
        if (tile.is_seen) sum_half<1>(upper, tile);
    }

  private:
    // Whether there is a tile to start; at the end of a block this waits for the next one.
    DG_DEVICE bool has_next_tile() {
        if (tiles_left != 0) return true;
        block_state.advance();
        return enter_block();
    }

    // Waits for the next block; false if there is none.
    DG_DEVICE bool enter_block() {
        blocks.consumer_wait(block_state);
        const auto& block = smem.blocks[block_state.stage];
        tiles_left = ptx::uniform(block.num_tiles);
        next_key = block.first_key;
        end_key = block.end_key;
        return tiles_left != 0;
    }

    // Starts the tensor cores on the first half of the next tile's columns.
    DG_DEVICE KeyTile start_tile(float (&accum)[kHalf / 2]) {
        keys.consumer_wait(key_state);
        query_stage = block_state.stage;
        start_half<0>(accum);
        KeyTile tile;
        tile.key = next_key + first_row;
        tile.is_seen = next_key + warp_row < end_key;
        const float* sf = smem.key_sf[key_state.stage] + kConfig.sf_place(first_row);
        tile.sf[0] = ptx::load_shared(sf);
        tile.sf[1] = ptx::load_shared(sf + 8);
        tile.release_address = keys.release_address(key_state);
        next_key += MqaConfig::kTileKeys;
        --tiles_left;
        return tile;
    }

    // Keys [64, head_dim] @ half of the queries [kHalf, head_dim].T. The second half of a tile
    // leaves its stage behind.
    template <int kIndex>
    DG_DEVICE void start_half(float (&accum)[kHalf / 2]) {
        const Descriptor a = keys_of_warps.template tile<kConfig.key_tile_bytes()>(key_state.stage);
        const Descriptor b = queries.template tile<kConfig.query_tile_bytes()>(query_stage);
        ptx::wgmma_fence();
        ptx::WgmmaFp8<kHalf>::mma_async(accum, a, 0, b, kIndex * kHalf * kConfig.head_dim);
        ptx::wgmma_commit_group();
        if (kIndex == 1) key_state.advance();
    }

    DG_DEVICE void load_weights() {
        const float* source = smem.weights[summed_state.stage] + accumulator_column(thread);
#pragma unroll
        for (int i = 0; i < kConfig.used_columns() / 8; ++i) {
            ptx::load_shared(source + 8 * i, weights[2 * i], weights[2 * i + 1]);
        }
    }

    // Adds up one half of a tile's columns, and stores the logits of groups that it completes.
    template <int kIndex>
    DG_DEVICE void sum_half(const float (&accum)[kHalf / 2], const KeyTile& tile) {
#pragma unroll
        for (int j = 0; j < kHalfEights; ++j) {
            const int eight = kIndex * kHalfEights + j;
            if (eight * 8 >= kConfig.used_columns()) break;
            const int in_group = eight % kGroupEights;
            const int chain = in_group % kQuadTokens;
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const float weight = weights[2 * eight + i];
#pragma unroll
                for (int row = 0; row < 2; ++row) {
                    const float x = ptx::relu(accum[4 * j + 2 * row + i]);
                    const bool is_first = in_group < kQuadTokens && i == 0;
                    float& sum = chains[row][chain];
                    sum = is_first ? __fmul_rn(weight, x) : __fmaf_rn(weight, x, sum);
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
        const LogitRow row = smem.blocks[summed_state.stage].rows[token];
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
