// Promotion: the second level of two-level accumulation.
//
// Hopper's tensor cores add FP8 products with 13 fractional bits, aligned to the largest term, and
// truncate: over a long K the sum drifts. So the tensor cores only ever add the 128 products of one
// k block, and their partial sum then goes, times its scale factors, into an FP32 register by an
// FMA that rounds to nearest. 128 is also the granularity of the scale factors along K, so the
// scaling itself costs nothing extra.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "mainloop/scale_factors.cuh"

namespace deep_gemm {

// final += sfa * sfb * partial, for one piece of an M64 slice.
//   first_column   of the piece, in the block
//   n_offset       columns between the origin of the first SFB and the block's first column
template <GemmConfig kConfig>
DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2], int first_column,
                       const float (&accum)[kConfig.piece_n() / 2], const ScaleFactors<kConfig>& sf,
                       uint32_t n_offset) {
    constexpr int kSegment = kConfig.sf_segment();
#pragma unroll
    for (int i = 0; i < kConfig.piece_n() / 2; ++i) {
        const int column = first_column + i / 4 * 8;
        const uint32_t segment = n_offset + column / kSegment * kSegment;
        final_accum[first_column / 2 + i] += sf.at(i / 2 % 2, segment) * accum[i];
    }
}

}  // namespace deep_gemm
