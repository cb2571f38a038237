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

// final += sfa * sfb * partial, for one M64 slice.
//   n_offset   columns between the origin of the first SFB and the block's first column
template <GemmConfig kConfig>
DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2],
                       const float (&accum)[kConfig.block_n / 2],
                       const ScaleProducts<kConfig>& products, uint32_t n_offset) {
    constexpr int kSegment = kConfig.sf_segment();
#pragma unroll
    for (int column = 0; column < kConfig.block_n; column += kSegment) {
        const float scale[2] = {products.at(0, n_offset + column),
                                products.at(1, n_offset + column)};
#pragma unroll
        for (int i = column / 2; i < (column + kSegment) / 2; ++i) {
            final_accum[i] += scale[i / 2 % 2] * accum[i];
        }
    }
}

}  // namespace deep_gemm
