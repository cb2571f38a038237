// Math role: the scale factors of one k block after the other, out of the scale-factor ring.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/memory.cuh"

namespace deep_gemm {

// Where a group of SFA in shared memory has the scale factor of (row, k block): [block_m][4], or
// for an SFA that is loaded along M, [4][block_m]. The eight rows that a warp reads have no bank in
// common in either.
template <GemmConfig kConfig>
struct SfaLayout {
    int row_stride;
    int k_stride;

    DG_DEVICE explicit SfaLayout(SfaLoad load)
        : row_stride(load == SfaLoad::kTmaAlongM ? 1 : kConfig.kSfGroup),
          k_stride(load == SfaLoad::kTmaAlongM ? kConfig.block_m : 1) {}
};

// What one thread multiplies its partial sums of one k block and M64 slice by: sfa * sfb.
template <GemmConfig kConfig>
struct ScaleProducts {
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

// The scale factors that one thread needs for one k block.
template <GemmConfig kConfig>
struct ScaleFactors {
    float a[kConfig.num_waves()][2];
    float b[kConfig.num_sfb()];

    DG_DEVICE ScaleProducts<kConfig> products(int wave) const {
        ScaleProducts<kConfig> result;
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) {
            result.product[i][0] = a[wave][0] * b[i];
            result.product[i][1] = a[wave][1] * b[i];
        }
        return result;
    }
};

// Walks the ring, k block by k block, for one thread.
template <GemmConfig kConfig>
struct ScaleFactorReader {
    const SharedStorage<kConfig>& smem;
    SfPipeline<kConfig> pipeline;
    SfaLayout<kConfig> layout;
    int row_offset;      // of the thread's first row in a group of SFA
    int k_in_group = 0;  // of the next k block
    typename SfPipeline<kConfig>::State state;

    DG_DEVICE ScaleFactorReader(SharedStorage<kConfig>& smem, SfaLoad sfa_load, int row)
        : smem(smem),
          pipeline{smem.sf_barriers},
          layout(sfa_load),
          row_offset(row * layout.row_stride) {}

    // The next k block's. The last k block of a block ends its group, full or not.
    DG_DEVICE ScaleFactors<kConfig> read(bool is_last) {
        if (k_in_group == 0) pipeline.consumer_wait(state);
        const float* sfa = smem.sfa[state.stage] + row_offset + k_in_group * layout.k_stride;
        ScaleFactors<kConfig> sf;
#pragma unroll
        for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = wave * kConfig.kMmaM + half * 8;
                sf.a[wave][half] = ptx::load_shared(sfa + row * layout.row_stride);
            }
        }
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) {
            sf.b[i] = ptx::load_shared(&smem.sfb[state.stage][i][k_in_group]);
        }
        if (++k_in_group == kConfig.kSfGroup || is_last) {
            pipeline.consumer_release(pipeline.release_address(state));
            state.advance();
            k_in_group = 0;
        }
        return sf;
    }
};

}  // namespace deep_gemm
