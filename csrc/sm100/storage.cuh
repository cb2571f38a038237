// The shared memory of an SM100 FP8 GEMM, as one struct: its size is the launch's.
#pragma once

#include "common/types.cuh"
#include "pipeline/pipeline.cuh"
#include "scheduler/block_ring.cuh"
#include "sm100/gemm_config.cuh"

namespace deep_gemm {

// What fills a stage, in either CTA of a pair, completes `full` of the leader; a commit completes
// `empty` of both. See sm100/pair.cuh.

// Tiles of A and B: one thread loads, and a commit of the MMAs that read a stage releases it.
template <Sm100GemmConfig kConfig>
using Sm100TilePipeline = Pipeline<kConfig.num_stages, 1, 1, 1>;

// Scale factors: a warp loads them, and a commit of the MMAs that use them releases both the shared
// memory and the columns of TMEM that they were copied to.
template <Sm100GemmConfig kConfig>
using Sm100SfPipeline = Pipeline<kConfig.num_sf_groups(), 32 * kConfig.cluster_m, 1, 1>;

// Accumulators in TMEM: a commit fills one, `full` of both; the four warps of each CTA's epilogue
// read it, and arrive on `empty` of the leader.
template <Sm100GemmConfig kConfig>
using AccumulatorPipeline = Pipeline<kConfig.num_accumulators(), 1, 4 * kConfig.cluster_m, 1>;

template <Sm100GemmConfig kConfig>
struct Sm100Storage {
    static constexpr int kStages = kConfig.num_stages;
    static constexpr int kSfGroups = kConfig.num_sf_groups();

    // K-major: [rows, 128 bytes of K]; MN-major: [128 of MN][k, 128 bytes of MN]; both under the
    // 128-byte swizzle, whose pattern repeats every 1024 bytes.
    alignas(1024) uint8_t a[kStages][kConfig.a_tile_bytes()];
    alignas(1024) uint8_t b[kStages][kConfig.b_tile_bytes()];

    // Slabs of D, [128 rows, d_swizzle_bytes].
    alignas(1024) uint8_t d[kConfig.kSlabs][kConfig.kMmaM * kConfig.d_swizzle_bytes()];

    // Words of four scale factors, [chunk of 128 rows][row % 32][row / 32]: one copy into TMEM then
    // brings 32 rows into each column. The first chunk is A's.
    alignas(128) uint32_t sf[kSfGroups][1 + kConfig.sfb_chunks()][kConfig.kSfChunk];

    PipelineBarriers<kStages> barriers;
    PipelineBarriers<kSfGroups> sf_barriers;
    PipelineBarriers<kConfig.num_accumulators()> accumulator_barriers;
    [[no_unique_address]] BlockRing<kConfig.grouping != Grouping::kDense> block_ring;
    uint32_t tmem;  // address of the first column
};

}  // namespace deep_gemm
