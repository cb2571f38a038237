// Math role: the scale factors of one k block after the other, out of the scale-factor ring.
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

// Walks the ring, k block by k block, for one thread.
template <GemmConfig kConfig>
struct ScaleFactorReader {
    const SharedStorage<kConfig>& smem;
    SfPipeline<kConfig> pipeline;
    int row;             // the thread's first row in the block
    int k_in_group = 0;  // of the present k block
    typename SfPipeline<kConfig>::State state;

    DG_DEVICE ScaleFactorReader(SharedStorage<kConfig>& smem, int row)
        : smem(smem), pipeline{smem.sf_barriers}, row(row) {}

    // Waits for the present k block's group, which only its first k block may have to do.
    DG_DEVICE void wait() const {
        if (k_in_group == 0) pipeline.consumer_wait(state);
    }

    // The present k block's scale factors for one M64 slice.
    DG_DEVICE ScaleFactors<kConfig> read(int wave) const {
        const auto& sfa = smem.sfa[state.stage];
        const int slice_row = row + wave * kConfig.kMmaM;
        ScaleFactors<kConfig> sf;
        sf.a[0] = sfa[slice_row][k_in_group];
        sf.a[1] = sfa[slice_row + 8][k_in_group];
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) sf.b[i] = smem.sfb[state.stage][i][k_in_group];
        return sf;
    }

    // Goes on to the next k block. The last one of a block ends its group, full or not.
    DG_DEVICE void advance(bool is_last) {
        if (++k_in_group == kConfig.kSfGroup || is_last) {
            pipeline.consumer_release(pipeline.release_address(state));
            state.advance();
            k_in_group = 0;
        }
    }
};

}  // namespace deep_gemm
