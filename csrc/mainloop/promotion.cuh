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
#include "pipeline/shared_storage.cuh"

namespace deep_gemm {

// The scale factors that one thread needs for one k block of one M64 slice.
template <GemmConfig kConfig>
struct ScaleFactors {
    float a[2];                  // of the thread's two rows, 8 apart
    float b[kConfig.num_sfb()];  // of the columns that the block touches, 128 columns each

    DG_DEVICE ScaleFactors(const SharedStorage<kConfig>& smem, int stage, int row)
        : a{smem.sfa[stage][row], smem.sfa[stage][row + 8]} {
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) b[i] = smem.sfb[stage][i];
    }

    // The scale factor of B at `column`, counted from the origin of b[0].
    DG_DEVICE float b_at(uint32_t column) const {
        float selected = b[0];
#pragma unroll
        for (int i = 1; i < kConfig.num_sfb(); ++i) {
            if (column >= static_cast<uint32_t>(i * kConfig.kGranN)) selected = b[i];
        }
        return selected;
    }
};

// final += sfa * sfb * partial, for one M64 slice.
//   n_offset   columns between the origin of the first SFB and the block's first column
template <GemmConfig kConfig>
DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2],
                       const float (&accum)[kConfig.block_n / 2], const ScaleFactors<kConfig>& sf,
                       uint32_t n_offset) {
    constexpr int kSegment = kConfig.sf_segment();
#pragma unroll
    for (int column = 0; column < kConfig.block_n; column += kSegment) {
        const float sfb = sf.b_at(n_offset + column);
        const float scale[2] = {sf.a[0] * sfb, sf.a[1] * sfb};
#pragma unroll
        for (int i = column / 2; i < (column + kSegment) / 2; ++i) {
            final_accum[i] += scale[i / 2 % 2] * accum[i];
        }
    }
}

}  // namespace deep_gemm
