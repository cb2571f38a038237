// Math role: the scale factors of one k block after the other, out of the scale-factor ring.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"

namespace deep_gemm {

// Where a group of SFA in shared memory has the scale factor of (row, k block), in floats: it is
// [row][4 k blocks], but for an SFA that is loaded in quads along M, [row / 4][4 k blocks][row %
// 4]. In both, eight rows on are 32 floats on, and the eight rows that a warp reads have no bank in
// common.
struct SfaLayout {
    static constexpr int kRowStride = GemmConfig::kSfGroup;  // on average over eight rows

    // The first k block's.
    static DG_DEVICE int row_offset(SfQuads quads, int row) {
        return quads == SfQuads::kAlongM ? row / 4 * 16 + row % 4 : row * kRowStride;
    }
    static DG_DEVICE int k_stride(SfQuads quads) { return quads == SfQuads::kAlongM ? 4 : 1; }
};

// What one thread multiplies its partial sums of one k block and M64 slice by: sfa * sfb.
template <GemmConfig kConfig>
struct ScaleFactors {
    // Of the columns that the block touches, 128 each, and of the thread's two rows, 8 apart.
    float product[kConfig.num_sfb()][2];

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

// Walks the ring, group by group, for one thread.
template <GemmConfig kConfig>
struct ScaleFactorReader {
    const SharedStorage<kConfig>& smem;
    SfPipeline<kConfig> pipeline;
    int row_offset;  // of the thread's first row in a group of SFA
    int k_stride;
    typename SfPipeline<kConfig>::State state;

    DG_DEVICE ScaleFactorReader(SharedStorage<kConfig>& smem, SfQuads sfa_quads, int row)
        : smem(smem),
          pipeline{smem.sf_barriers},
          row_offset(SfaLayout::row_offset(sfa_quads, row)),
          k_stride(SfaLayout::k_stride(sfa_quads)) {}

    DG_DEVICE void wait() const { pipeline.consumer_wait(state); }

    // The scale factors of B of the group's k block `k`.
    DG_DEVICE void read_b(float (&sfb)[kConfig.num_sfb()], int k) const {
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) sfb[i] = smem.sfb[state.stage][i][k];
    }

    // Those of A for one M64 slice, times those of B.
    DG_DEVICE ScaleFactors<kConfig> read(const float (&sfb)[kConfig.num_sfb()], int k,
                                         int wave) const {
        const float* sfa = smem.sfa[state.stage] + row_offset + k * k_stride +
                           wave * kConfig.kMmaM * SfaLayout::kRowStride;
        const float rows[2] = {sfa[0], sfa[8 * SfaLayout::kRowStride]};
        ScaleFactors<kConfig> sf;
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) {
            sf.product[i][0] = rows[0] * sfb[i];
            sf.product[i][1] = rows[1] * sfb[i];
        }
        return sf;
    }

    // Goes on to the next group.
    DG_DEVICE void advance() {
        pipeline.consumer_release(pipeline.release_address(state));
        state.advance();
    }
};

}  // namespace deep_gemm
