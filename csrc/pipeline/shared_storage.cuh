// The shared memory of an SM90 FP8 GEMM, as one struct: its size is the launch's.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/pipeline.cuh"

namespace deep_gemm {

// The tile ring: one thread issues TMA, and a stage may be multicast to the whole cluster.
template <GemmConfig kConfig>
using TilePipeline =
    Pipeline<kConfig.num_stages, 1, kConfig.num_math_warpgroups * 4, kConfig.cluster_size()>;

// The scale-factor ring: all lanes of a warp load, for this CTA alone.
template <GemmConfig kConfig>
using SfPipeline = Pipeline<kConfig.num_sf_groups(), 32, kConfig.num_math_warpgroups * 4, 1>;

template <GemmConfig kConfig>
struct SharedStorage {
    static constexpr int kStages = kConfig.num_stages;
    static constexpr int kSfGroups = kConfig.num_sf_groups();

    // Stages, [rows, 128 bytes of K] under the 128-byte swizzle, whose pattern repeats every 1024.
    alignas(1024) uint8_t a[kStages][kConfig.a_tile_bytes()];
    alignas(1024) uint8_t b[kStages][kConfig.b_tile_bytes()];

    // A round of D as BF16, [warpgroup][slab][64 rows, d_swizzle_bytes]; see
    // epilogue/store_bf16.cuh.
    alignas(1024) uint8_t d[kConfig.num_math_warpgroups][kConfig.slabs_per_round()]
                           [kConfig.kMmaM * kConfig.d_swizzle_bytes()];

    // Scale factors of kSfGroup k blocks; SFA in the order of SfaLayout.
    alignas(128) float sfa[kSfGroups][kConfig.mma_rows() * kConfig.kSfGroup];
    alignas(16) float sfb[kSfGroups][kConfig.num_sfb()][kConfig.kSfGroup];

    PipelineBarriers<kStages> barriers;
    PipelineBarriers<kSfGroups> sf_barriers;
};

}  // namespace deep_gemm
