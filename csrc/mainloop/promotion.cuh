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

// 1D2D: what one thread multiplies its partial sums of one k block and M64 slice by, sfa * sfb.
// There are so few of them that they are computed while the tensor cores work.
template <GemmConfig kConfig>
struct ProductsPerRow {
    // Of the columns that the block touches, 128 each, and of the thread's two rows.
    float product[kConfig.num_sfb()][2];

    DG_DEVICE ProductsPerRow(const ScaleFactors<kConfig>& sf, int wave) {
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) {
            product[i][0] = sf.a[wave][0] * sf.b.value[i];
            product[i][1] = sf.a[wave][1] * sf.b.value[i];
        }
    }

    // final += sfa * sfb * partial.
    //   n_offset   columns between the origin of the first SFB and the block's first column
    DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2],
                           const float (&accum)[kConfig.block_n / 2], uint32_t n_offset) const {
        constexpr int kSegment = kConfig.sf_segment();
#pragma unroll
        for (int column = 0; column < kConfig.block_n; column += kSegment) {
            const float scale[2] = {at(0, n_offset + column), at(1, n_offset + column)};
#pragma unroll
            for (int i = column / 2; i < (column + kSegment) / 2; ++i) {
                final_accum[i] += scale[i / 2 % 2] * accum[i];
            }
        }
    }

  private:
    // For row `half` at `column`, counted from the origin of the block's first scale factor of B.
    DG_DEVICE float at(int half, uint32_t column) const {
        float selected = product[0][half];
#pragma unroll
        for (int i = 1; i < kConfig.num_sfb(); ++i) {
            if (column >= static_cast<uint32_t>(i * kConfig.kGranN)) selected = product[i][half];
        }
        return selected;
    }
};

// 1D1D: every element has its own product, made when it is needed: registers are scarcer than
// multiplications.
template <GemmConfig kConfig>
struct ProductsPerElement {
    const ScaleFactors<kConfig>& sf;
    int wave;

    DG_DEVICE ProductsPerElement(const ScaleFactors<kConfig>& sf, int wave) : sf(sf), wave(wave) {}

    DG_DEVICE void promote(float (&final_accum)[kConfig.block_n / 2],
                           const float (&accum)[kConfig.block_n / 2], uint32_t) const {
#pragma unroll
        for (int i = 0; i < kConfig.block_n / 2; ++i) {
            final_accum[i] += sf.a[wave][i / 2 % 2] * sf.b.value[i / 4 * 2 + i % 2] * accum[i];
        }
    }
};

template <GemmConfig kConfig, bool kIs1d1d = kConfig.is_1d1d()>
struct ScaleProducts : ProductsPerRow<kConfig> {
    using ProductsPerRow<kConfig>::ProductsPerRow;
};
template <GemmConfig kConfig>
struct ScaleProducts<kConfig, true> : ProductsPerElement<kConfig> {
    using ProductsPerElement<kConfig>::ProductsPerElement;
};

}  // namespace deep_gemm
