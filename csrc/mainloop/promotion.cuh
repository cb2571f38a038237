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

namespace deep_gemm {

// Picks the scale factor of B for a run of columns that starts `column` past the first one's origin.
template <int kNumSfb>
DG_DEVICE float select_sfb(const float (&sfb)[kNumSfb], uint32_t column) {
    float selected = sfb[0];
#pragma unroll
    for (int i = 1; i < kNumSfb; ++i) {
        if (column >= static_cast<uint32_t>(i * GemmConfig::kGranN)) selected = sfb[i];
    }
    return selected;
}

// final += sfa * sfb * partial, for one M64 slice.
//   sfa       of the thread's two rows, r and r + 8
//   sfb       of the columns that the block touches, 128 columns each
//   n_offset  columns between the first SFB's origin and the block's first column
template <GemmConfig kConfig>
DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2],
                       const float (&accum)[kConfig.block_n / 2], const float (&sfa)[2],
                       const float (&sfb)[kConfig.num_sfb()], uint32_t n_offset) {
    constexpr int kSegment = kConfig.sf_segment();
#pragma unroll
    for (int column = 0; column < kConfig.block_n; column += kSegment) {
        const float segment_sfb = select_sfb(sfb, n_offset + column);
        const float scale[2] = {sfa[0] * segment_sfb, sfa[1] * segment_sfb};
#pragma unroll
        for (int i = column / 2; i < (column + kSegment) / 2; ++i) {
            final_accum[i] += scale[i / 2 % 2] * accum[i];
        }
    }
}

}  // namespace deep_gemm
