// The shared memory of an SM90 FP8 GEMM, as one struct: its size is the launch's.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/pipeline.cuh"

namespace deep_gemm {

template <GemmConfig kConfig>
struct SharedStorage {
    static constexpr int kStages = kConfig.num_stages;

    // Stages, [rows, 128 bytes of K] under the 128-byte swizzle, whose pattern repeats every 1024.
    alignas(1024) uint8_t a[kStages][kConfig.a_tile_bytes()];
    alignas(1024) uint8_t b[kStages][kConfig.b_tile_bytes()];

    // D as BF16, [M64 slice][slab][64 rows, d_swizzle_bytes]; see epilogue/store_bf16.cuh.
    alignas(1024) uint16_t d[kConfig.mma_rows() * kConfig.block_n];

    PipelineBarriers<kStages> barriers;

    float sfa[kStages][kConfig.mma_rows()];  // one per row of A
    float sfb[kStages][kConfig.num_sfb()];   // one per 128 columns that the block touches
};

}  // namespace deep_gemm
