// Load role, first warp: tiles of keys by TMA, and their scale factors by cp.async, four to a lane.
// Those are read by ordinary loads: written by TMA, a tile could be released only behind a fence.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/storage.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// The pages of one sequence, whose numbers the lanes read 32 at a time. Entries of the table behind
// the last key that any token of the sequence sees may be anything: they are not read.
template <MqaConfig kConfig>
struct PageReader {
    static constexpr uint32_t kPerTile = MqaConfig::kTileKeys / kConfig.page_keys;

    const int32_t* entries;  // of the sequence
    uint32_t num_pages;      // that are read
    uint32_t batch = ~0u;    // which 32 entries the lanes have
    int32_t entry = 0;

    // Makes the lanes have the entries of a tile, which begins with the sequence's page `page`.
    DG_DEVICE void begin_tile(uint32_t page) {
        static_assert(32 % kPerTile == 0);
        if (page / 32 == batch) return;
        batch = page / 32;
        const uint32_t mine = batch * 32 + ptx::lane_idx();
        if (mine < num_pages) entry = entries[mine];
    }

    // The number of the tile's page `page`, which each lane may ask for another of.
    DG_DEVICE int32_t operator[](uint32_t page) const {
        return __shfl_sync(0xffffffff, entry, page % 32);
    }
};

template <MqaConfig kConfig>
struct KeyLoader {
    static constexpr uint32_t kLaneKeys = MqaConfig::kTileKeys / 32;

    MqaStorage<kConfig>& smem;
    const MqaArguments& args;
    KeyPipeline<kConfig> pipeline{smem.key_barriers};
    typename KeyPipeline<kConfig>::State state{};

    // Loads one tile, page by page. Rows whose page is not there keep what they held, and so do
    // their logits, which nobody stores.
    DG_DEVICE void load_pages(PageReader<kConfig>& pages, uint32_t key) {
        constexpr uint32_t kPageKeys = kConfig.page_keys;
        constexpr uint32_t kPageBytes = kPageKeys * kConfig.head_dim;
        const uint32_t first_page = key / kPageKeys;
        const uint32_t num_pages = min(pages.num_pages - first_page, pages.kPerTile);
        pages.begin_tile(first_page);
        begin_tile(num_pages * kPageBytes);
#pragma unroll
        for (uint32_t i = 0; i < pages.kPerTile; ++i) {
            const int32_t page = pages[first_page + i];
            if (i < num_pages && ptx::lane_idx() == 0) {
                ptx::tma_load_3d(smem.keys[state.stage] + i * kPageBytes, &args.tensor_map_keys,
                                 pipeline.full_barrier(state), 0, 0, page, args.policy_keys);
            }
            __syncwarp();
        }
        const uint32_t in_tile = ptx::lane_idx() * kLaneKeys;
        const int64_t page = pages[first_page + in_tile / kPageKeys];
        const uint32_t in_page = in_tile % kPageKeys;
        load_scale_factors(args.key_sf + page * args.page_stride + in_page * sizeof(float),
                           in_tile / kPageKeys < num_pages ? kLaneKeys : 0);
    }

    // Loads the tile of a matrix whose first key is `key`. Keys behind the last are zeros.
    DG_DEVICE void load_rows(uint32_t key) {
        begin_tile(MqaConfig::kTileKeys * kConfig.head_dim);
        if (ptx::lane_idx() == 0) {
            ptx::tma_load_3d(smem.keys[state.stage], &args.tensor_map_keys,
                             pipeline.full_barrier(state), 0, key, 0);
        }
        __syncwarp();
        const uint32_t own = key + ptx::lane_idx() * kLaneKeys;
        load_scale_factors(args.key_sf + static_cast<uint64_t>(own) * sizeof(float),
                           min(args.num_keys - min(own, args.num_keys), kLaneKeys));
    }

  private:
    DG_DEVICE void begin_tile(uint32_t bytes) const {
        pipeline.producer_acquire(state);
        if (ptx::lane_idx() == 0) pipeline.producer_expect(state, bytes);
        __syncwarp();
    }

    // The lane's: `count` from `source` on, and zeros for the others. The tile is complete then.
    DG_DEVICE void load_scale_factors(const uint8_t* source, uint32_t count) {
        ptx::cp_async_16(&smem.key_sf[state.stage][ptx::lane_idx() * kLaneKeys], source,
                         count * sizeof(float));
        pipeline.producer_commit(state);
        state.advance();
    }
};

// A whole warp.
template <MqaConfig kConfig>
DG_DEVICE void load_keys(MqaStorage<kConfig>& smem, const MqaArguments& args) {
    const QueryPipeline<kConfig> blocks{smem.query_barriers};
    typename QueryPipeline<kConfig>::State block_state;
    KeyLoader<kConfig> loader{smem, args};
    while (true) {
        blocks.consumer_wait(block_state);
        const auto& block = smem.blocks[block_state.stage];
        const uint32_t num_tiles = block.num_tiles;
        const uint32_t first_key = block.first_key;
        const uint32_t sequence = block.sequence;
        const uint32_t end_key = block.end_key;
        if (num_tiles == 0) return;
        blocks.consumer_release(blocks.release_address(block_state));
        block_state.advance();

        if constexpr (kConfig.is_paged()) {
            PageReader<kConfig> pages{args.block_table + sequence * args.table_stride,
                                      ceil_div<uint32_t>(end_key, kConfig.page_keys)};
            for (uint32_t i = 0; i < num_tiles; ++i) {
                loader.load_pages(pages, first_key + i * kConfig.kTileKeys);
            }
        } else {
            for (uint32_t i = 0; i < num_tiles; ++i) {
                loader.load_rows(first_key + i * kConfig.kTileKeys);
            }
        }
    }
}

}  // namespace deep_gemm
