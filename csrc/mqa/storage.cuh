// The shared memory of the kernel for MQA logits, as one struct: its size is the launch's.
#pragma once

#include "common/types.cuh"
#include "mqa/config.cuh"
#include "pipeline/pipeline.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

// Where the logits of one token go.
struct alignas(16) LogitRow {
    uint64_t address;  // of the column that key 0 would have, which need not be there
    uint32_t first;    // the keys that the token sees: first .. end - 1
    uint32_t end;
};

// What is done for a block of query tokens: a run of key tiles.
template <int kTokens>
struct QueryBlock {
    LogitRow rows[kTokens];
    uint32_t first_key;  // of the run's first tile
    uint32_t num_tiles;  // 0: there is no further block
    uint32_t end_key;    // behind the last key that one of the tokens sees
    uint32_t sequence;   // whose pages hold the keys
};

// The ring of key tiles: `full` takes an arrival of each lane of the load warp, when its scale
// factors have landed, and one with the bytes of TMA.
template <MqaConfig kConfig>
using KeyPipeline = Pipeline<kConfig.num_stages, 32 + 1, kConfig.key_readers(), 1>;

// The ring of query blocks: `full` takes an arrival of each lane of the warp that copies weights,
// when its copies have landed, and one with the bytes of TMA. The math warps read, and the warp
// that loads keys.
template <MqaConfig kConfig>
using QueryPipeline =
    Pipeline<kConfig.num_query_stages, 32 + 1, kConfig.kMathWarpgroups * 4 + 1, 1>;

// SM100's accumulators: a commit fills one, the warps of one warpgroup read it.
template <MqaConfig kConfig>
using AccumulatorRing = Pipeline<kConfig.num_accumulators(), 1, MqaConfig::kWarpgroup / 32, 1>;

template <MqaConfig kConfig, bool kIsSm100 = kConfig.is_sm100>
struct AccumulatorStorage {
    PipelineBarriers<kConfig.num_accumulators()> barriers;
    uint32_t tmem;  // address of the first column
};
template <MqaConfig kConfig>
struct AccumulatorStorage<kConfig, false> {};

template <MqaConfig kConfig>
struct MqaStorage {
    static constexpr int kStages = kConfig.num_stages;
    static constexpr int kQueryStages = kConfig.num_query_stages;

    // Rows of head_dim bytes, swizzled by their width: the pattern repeats every 8 rows.
    alignas(1024) uint8_t keys[kStages][kConfig.key_tile_bytes()];
    alignas(1024) uint8_t queries[kQueryStages][kConfig.query_tile_bytes()];

    alignas(16) float key_sf[kStages][MqaConfig::kTileKeys];
    alignas(128) float weights[kQueryStages][kConfig.columns()];  // in the order of columns
    QueryBlock<kConfig.num_tokens> blocks[kQueryStages];

    PipelineBarriers<kStages> key_barriers;
    PipelineBarriers<kQueryStages> query_barriers;
    [[no_unique_address]] AccumulatorStorage<kConfig> accumulators;
    ShareStorage<MqaConfig::kThreads> share;
};

}  // namespace deep_gemm
