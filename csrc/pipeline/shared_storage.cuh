// The shared memory of an SM90 FP8 GEMM, as one struct: its size is the launch's.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/pipeline.cuh"
#include "scheduler/block_ring.cuh"

namespace deep_gemm {

// The tile ring: one thread issues TMA, and a stage may be multicast to the whole cluster.
template <GemmConfig kConfig>
using TilePipeline =
    Pipeline<kConfig.num_stages, 1, kConfig.num_math_warpgroups * 4, kConfig.multicast_size()>;

// The scale-factor ring, for this CTA alone: all lanes of a warp load, or for 1D1D one thread.
template <GemmConfig kConfig>
using SfPipeline = Pipeline<kConfig.num_sf_groups(), kConfig.is_1d1d() ? 1 : 32,
                            kConfig.num_math_warpgroups * 4, 1>;

// The staging memory of D, one stage of one math warpgroup: its four warps fill it, and a store
// warp empties it.
template <GemmConfig kConfig>
using StorePipeline = Pipeline<1, 4, 1, 1>;

// The memory into which the CTAs of a cluster along K send their sums, one stage of one math
// warpgroup (epilogue/sum_parts.cuh): one thread announces the bytes, all four warps read them.
template <GemmConfig kConfig>
using SumPipeline = Pipeline<1, 1, 4, kConfig.cluster_k>;

struct alignas(16) FourSums {
    float value[4];
};

// [part of K][M64 slice][four columns' accumulators][thread]: no two threads meet in a bank.
template <GemmConfig kConfig>
using SumParts =
    FourSums[kConfig.cluster_k][kConfig.num_waves()][kConfig.d_columns() / 8][kConfig.kWarpgroup];

template <GemmConfig kConfig, bool kIsSplit = (kConfig.cluster_k > 1)>
struct SumStorage {
    SumParts<kConfig> parts[kConfig.num_math_warpgroups];
    PipelineBarriers<1> barriers[kConfig.num_math_warpgroups];
};
template <GemmConfig kConfig>
struct SumStorage<kConfig, false> {};

template <GemmConfig kConfig>
struct SharedStorage {
    static constexpr int kStages = kConfig.num_stages;
    static constexpr int kSfGroups = kConfig.num_sf_groups();

    // Stages, [rows, 128 bytes of K] under the 128-byte swizzle, whose pattern repeats every 1024.
    alignas(1024) uint8_t a[kStages][kConfig.a_tile_bytes()];
    alignas(1024) uint8_t b[kStages][kConfig.b_tile_bytes()];

    // A round of D, [warpgroup][slab][64 rows, d_swizzle_bytes]; see epilogue/stage_block.cuh.
    alignas(1024) uint8_t d[kConfig.num_math_warpgroups][kConfig.slabs_per_round()]
                           [kConfig.kMmaM * kConfig.d_swizzle_bytes()];

    // Scale factors of kSfGroup k blocks; SFA in the order of SfaLayout, SFB as
    // [num_sfb][kSfGroup], or for 1D1D as [kSfGroup][block_n].
    alignas(128) float sfa[kSfGroups][kConfig.mma_rows() * kConfig.kSfGroup];
    alignas(128) float sfb[kSfGroups][kConfig.sfb_group()];

    [[no_unique_address]] SumStorage<kConfig> sum;

    PipelineBarriers<kStages> barriers;
    PipelineBarriers<kSfGroups> sf_barriers;
    PipelineBarriers<1> store_barriers[kConfig.num_math_warpgroups];
    BlockRing<kConfig.grouping != Grouping::kDense> block_ring;
};

}  // namespace deep_gemm
