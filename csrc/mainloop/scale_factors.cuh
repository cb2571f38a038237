// Math role: the scale factors of one k block after the other, out of the scale-factor ring.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/memory.cuh"

namespace deep_gemm {

// Where a group of SFA in shared memory has the scale factor of (row, k block), in floats: it is
// [row][4 k blocks], but for an SFA that is loaded along M, [row / 4][4 k blocks][row %
// 4]. In both, eight rows on are 32 floats on, and the eight rows that a warp reads have no bank in
// common.
struct SfaLayout {
    static constexpr int kRowStride = GemmConfig::kSfGroup;  // on average over eight rows

    // The first k block's.
    static DG_DEVICE int row_offset(SfaLoad load, int row) {
        return load == SfaLoad::kTmaAlongM ? row / 4 * 16 + row % 4 : row * kRowStride;
    }
    static DG_DEVICE int k_stride(SfaLoad load) { return load == SfaLoad::kTmaAlongM ? 4 : 1; }
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
    int row_offset;  // of the thread's first row in a group of SFA
    int k_stride;
    int k_in_group = 0;  // of the next k block
    typename SfPipeline<kConfig>::State state;

    DG_DEVICE ScaleFactorReader(SharedStorage<kConfig>& smem, SfaLoad sfa_load, int row)
        : smem(smem),
          pipeline{smem.sf_barriers},
          row_offset(SfaLayout::row_offset(sfa_load, row)),
          k_stride(SfaLayout::k_stride(sfa_load)) {}

    // The next k block's. The last k block of a block ends its group, full or not.
    DG_DEVICE ScaleFactors<kConfig> read(bool is_last) {
        if (k_in_group == 0) pipeline.consumer_wait(state);
        const float* sfa = smem.sfa[state.stage] + row_offset + k_in_group * k_stride;
        ScaleFactors<kConfig> sf;
#pragma unroll
        for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
            const float* rows = sfa + wave * kConfig.kMmaM * SfaLayout::kRowStride;
            sf.a[wave][0] = ptx::load_shared(rows);
            sf.a[wave][1] = ptx::load_shared(rows + 8 * SfaLayout::kRowStride);
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
