// Load role, first warp: tiles of keys and their scale factors, by TMA.
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

    // The number of the sequence's page `page`, in all lanes.
    DG_DEVICE int32_t operator[](uint32_t page) {
        if (page / 32 != batch) {
            batch = page / 32;
            const uint32_t mine = batch * 32 + ptx::lane_idx();
            if (mine < num_pages) entry = entries[mine];
        }
        return __shfl_sync(0xffffffff, entry, page % 32);
    }
};

// Loads one tile, page by page. Rows whose page is not there keep what they held, and so do their
// logits, which nobody stores.
template <MqaConfig kConfig>
DG_DEVICE void load_pages(MqaStorage<kConfig>& smem, const MqaArguments& args,
                          PageReader<kConfig>& pages,
                          const typename KeyPipeline<kConfig>::State& state, uint32_t key) {
    constexpr uint32_t kPageKeys = kConfig.page_keys;
    constexpr uint32_t kPageBytes = kPageKeys * (kConfig.head_dim + sizeof(float));
    const KeyPipeline<kConfig> pipeline{smem.key_barriers};
    const uint32_t first_page = key / kPageKeys;
    const uint32_t num_pages = min(pages.num_pages - first_page, PageReader<kConfig>::kPerTile);
    const bool issues = ptx::lane_idx() == 0;
    if (issues) {
        pipeline.producer_acquire(state);
        pipeline.producer_expect(state, num_pages * kPageBytes);
    }
    __syncwarp();
    for (uint32_t i = 0; i < num_pages; ++i) {
        const int32_t page = pages[first_page + i];
        if (issues) {
            uint64_t* full = pipeline.full_barrier(state);
            uint8_t* keys = smem.keys[state.stage] + i * kPageKeys * kConfig.head_dim;
            ptx::tma_load_3d(keys, &args.tensor_map_keys, full, 0, 0, page, args.policy_keys);
            float* key_sf = smem.key_sf[state.stage] + kConfig.sf_place(i * kPageKeys);
            ptx::tma_load_3d(key_sf, &args.tensor_map_key_sf, full, 0, 0, page, args.policy_keys);
        }
        __syncwarp();
    }
}

// Loads the tile of a matrix whose first key is `key`. Keys behind the last are zeros.
template <MqaConfig kConfig>
DG_DEVICE void load_key_rows(MqaStorage<kConfig>& smem, const MqaArguments& args,
                             const typename KeyPipeline<kConfig>::State& state, uint32_t key) {
    constexpr uint32_t kBytes = MqaConfig::kTileKeys * (kConfig.head_dim + sizeof(float));
    const KeyPipeline<kConfig> pipeline{smem.key_barriers};
    if (ptx::lane_idx() == 0) {
        pipeline.producer_acquire(state);
        pipeline.producer_expect(state, kBytes);
        uint64_t* full = pipeline.full_barrier(state);
        ptx::tma_load_3d(smem.keys[state.stage], &args.tensor_map_keys, full, 0, key, 0);
        ptx::tma_load_3d(smem.key_sf[state.stage], &args.tensor_map_key_sf, full, key, 0, 0);
    }
    __syncwarp();
}

// A whole warp.
template <MqaConfig kConfig>
DG_DEVICE void load_keys(MqaStorage<kConfig>& smem, const MqaArguments& args) {
    const QueryPipeline<kConfig> blocks{smem.query_barriers};
    typename QueryPipeline<kConfig>::State block_state;
    typename KeyPipeline<kConfig>::State state;
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
            for (uint32_t i = 0; i < num_tiles; ++i, state.advance()) {
                load_pages<kConfig>(smem, args, pages, state, first_key + i * kConfig.kTileKeys);
            }
        } else {
            for (uint32_t i = 0; i < num_tiles; ++i, state.advance()) {
                load_key_rows<kConfig>(smem, args, state, first_key + i * kConfig.kTileKeys);
            }
        }
    }
}

}  // namespace deep_gemm
