// Load role, second warp: walks the CTA's share of the work, and loads for each block of query
// tokens what does not change from key to key: queries, weights, and where the logits go.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/storage.cuh"
#include "mqa/visible_keys.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

// Column c of a block's product is head `head` of its token `token`. On SM90 the tokens of a group
// are interleaved by pairs of heads, which is the order of TMA's box: two heads of the first token,
// two of the second, ... So a quad of lanes, which holds eight columns of a row, two to a lane, has
// a different token in each lane. On SM100 heads come in order, token by token.
template <MqaConfig kConfig>
struct Column {
    static constexpr uint32_t kQuadTokens = kConfig.quad_tokens();

    uint32_t token;
    uint32_t head;

    DG_DEVICE explicit Column(uint32_t c) {
        constexpr uint32_t kGroup = kConfig.group_eights() * 8;
        const uint32_t in_group = c % kGroup;
        token = c / kGroup * kQuadTokens + in_group / 2 % kQuadTokens;
        head = in_group / (2 * kQuadTokens) * 2 + in_group % 2;
    }
};

template <MqaConfig kConfig>
struct QueryLoader {
    static constexpr uint32_t kTokens = kConfig.num_tokens;
    static_assert(kTokens <= 32);

    MqaStorage<kConfig>& smem;
    const MqaArguments& args;
    QueryPipeline<kConfig> pipeline{smem.query_barriers};
    typename QueryPipeline<kConfig>::State state{};

    // The keys of token `first_token` + lane; none for lanes behind the last of `num_tokens`.
    DG_DEVICE VisibleKeys keys_of_lane(uint32_t first_token, uint32_t num_tokens) const {
        const uint32_t lane = ptx::lane_idx();
        if (lane >= min(kTokens, num_tokens)) return {0, 0, 0};
        return visible_keys<kConfig>(args, first_token + lane);
    }

    // The tiles that the tokens of all lanes need.
    DG_DEVICE static TileRange tiles_of(const VisibleKeys& keys) {
        constexpr uint32_t kAll = 0xffffffff;
        const int first = keys.is_empty() ? 0x7fffffff : static_cast<int>(keys.first);
        return tile_range(__reduce_min_sync(kAll, first),
                          __reduce_max_sync(kAll, static_cast<int>(keys.end)));
    }

    // Publishes a run of tiles of the block of tokens from `first_token` on, `num_tokens` of which
    // there are; `keys` are those of the lane's token.
    DG_DEVICE void publish(uint32_t first_token, uint32_t num_tokens, const VisibleKeys& keys,
                           uint32_t sequence, const TileRange& run) {
        pipeline.producer_acquire(state);
        auto& block = smem.blocks[state.stage];
        const uint32_t lane = ptx::lane_idx();
        if (lane < kTokens) {
            const int64_t column =
                static_cast<int64_t>(first_token + lane) * args.logits_stride - keys.shift;
            block.rows[lane] = {
                reinterpret_cast<uint64_t>(args.logits) + column * kConfig.logits_bytes,
                static_cast<uint32_t>(keys.first), static_cast<uint32_t>(keys.end)};
        }
        if (lane == 0) {
            block.first_key = run.first_key;
            block.num_tiles = run.num_tiles;
            block.end_key = run.end_key;
            block.sequence = sequence;
        }
        load_weights(first_token, num_tokens);
        pipeline.producer_commit(state);
        __syncwarp();  // the arrival below speaks for the stores of all lanes
        if (lane == 0) load_queries(first_token);
        __syncwarp();
        state.advance();
    }

    // Tells the others that there is no further block.
    DG_DEVICE void publish_end() {
        pipeline.producer_acquire(state);
        if (ptx::lane_idx() == 0) smem.blocks[state.stage].num_tiles = 0;
        pipeline.producer_commit(state);
        if (ptx::lane_idx() == 0) pipeline.producer_expect(state, 0);
        __syncwarp();
    }

  private:
    // Tokens that there are not get zeros.
    DG_DEVICE void load_weights(uint32_t first_token, uint32_t num_tokens) {
        for (uint32_t c = ptx::lane_idx(); c < kConfig.used_columns(); c += 32) {
            const Column<kConfig> column(c);
            const int64_t row = first_token + static_cast<int64_t>(column.token);
            ptx::cp_async_4(&smem.weights[state.stage][c],
                            args.weights + row * args.weights_stride + column.head,
                            column.token < num_tokens ? 4 : 0);
        }
    }

    // Box by box; queries of tokens behind the last are zeros.
    DG_DEVICE void load_queries(uint32_t first_token) {
        constexpr uint32_t kTokenBytes = kConfig.num_heads * kConfig.head_dim;
        pipeline.producer_expect(state, kTokens * kTokenBytes);
#pragma unroll
        for (uint32_t i = 0; i < kTokens; i += kConfig.box_tokens()) {
            ptx::tma_load_4d(smem.queries[state.stage] + i * kTokenBytes, &args.tensor_map_q,
                             pipeline.full_barrier(state), 0, 0, first_token + i, 0);
        }
    }
};

// The share of a CTA: tiles from one position up to another, of blocks of tokens, or of sequences.
template <MqaConfig kConfig>
DG_DEVICE void load_queries(MqaStorage<kConfig>& smem, const MqaArguments& args,
                            const TilePosition& begin, const TilePosition& end) {
    constexpr uint32_t kTokens = kConfig.num_tokens;
    QueryLoader<kConfig> loader{smem, args};
    // A sequence's tokens may be more than one block: each of them takes the same tiles.
    const uint32_t stride = kConfig.is_paged() ? args.next_n : kTokens;
    const uint32_t num_blocks = ceil_div(args.num_tokens, stride);
    for (uint32_t i = begin.block; i < min(end.block + 1, num_blocks); ++i) {
        const uint32_t first_tile = i == begin.block ? begin.tile : 0;
        const uint32_t last_token = min((i + 1) * stride, args.num_tokens);
        for (uint32_t token = i * stride; token < last_token; token += kTokens) {
            const uint32_t num_tokens = last_token - token;
            const VisibleKeys keys = loader.keys_of_lane(token, num_tokens);
            TileRange run = loader.tiles_of(keys);
            const uint32_t end_tile = i == end.block ? min(end.tile, run.num_tiles) : run.num_tiles;
            if (first_tile >= end_tile) continue;
            run.first_key += first_tile * MqaConfig::kTileKeys;
            run.num_tiles = end_tile - first_tile;
            loader.publish(token, num_tokens, keys, i, run);
        }
    }
    loader.publish_end();
}

}  // namespace deep_gemm
