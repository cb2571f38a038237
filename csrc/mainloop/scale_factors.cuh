// Math role: the scale factors of one k block after the other, out of the scale-factor ring.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "layout/accumulator.cuh"
#include "layout/scale_factors.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/memory.cuh"

namespace deep_gemm {

// 1D2D: the scale factors of B that a block touches, 128 columns each.
template <GemmConfig kConfig>
struct ColumnScales128 {
    float value[kConfig.num_sfb()];

    DG_DEVICE void read(const float* group, int k_in_group) {
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) {
            value[i] = ptx::load_shared(group + i * kConfig.kSfGroup + k_in_group);
        }
    }
};

// 1D1D: those of the thread's own columns, 8j + 2(t % 4) and the one behind, for all j.
template <GemmConfig kConfig>
struct ColumnScales1 {
    float value[kConfig.block_n / 4];

    DG_DEVICE void read(const float* group, int k_in_group) {
        const float* row = group + k_in_group * kConfig.block_n + accumulator_column(threadIdx.x);
#pragma unroll
        for (int j = 0; j < kConfig.block_n / 8; ++j) {
            ptx::load_shared(row + 8 * j, value[2 * j], value[2 * j + 1]);
        }
    }
};

template <GemmConfig kConfig, bool kIs1d1d = kConfig.is_1d1d()>
struct ColumnScales : ColumnScales128<kConfig> {};
template <GemmConfig kConfig>
struct ColumnScales<kConfig, true> : ColumnScales1<kConfig> {};

// The scale factors that one thread needs for one k block.
template <GemmConfig kConfig>
struct ScaleFactors {
    float a[kConfig.num_waves()][2];  // of the thread's two rows, 8 apart, in each M64 slice
    ColumnScales<kConfig> b;
};

// Walks the ring for one thread: group by group, or k block by k block.
template <GemmConfig kConfig>
struct ScaleFactorReader {
    const SharedStorage<kConfig>& smem;
    SfPipeline<kConfig> pipeline;
    SfaLayout<kConfig> layout;
    int row;             // the thread's first one in a group of SFA
    int k_in_group = 0;  // of the next k block, for `next`
    typename SfPipeline<kConfig>::State state;

    DG_DEVICE ScaleFactorReader(SharedStorage<kConfig>& smem, SfaLoad sfa_load, int row)
        : smem(smem), pipeline{smem.sf_barriers}, layout(sfa_load), row(row) {}

    DG_DEVICE void begin_group() const { pipeline.consumer_wait(state); }

    // Those of the present group's k block `k`.
    DG_DEVICE ScaleFactors<kConfig> read(int k) const {
        const float* sfa = smem.sfa[state.stage] + layout.offset(row, k);
        ScaleFactors<kConfig> sf;
#pragma unroll
        for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int further = wave * kConfig.kMmaM + half * 8;
                sf.a[wave][half] = ptx::load_shared(sfa + layout.offset(further, 0));
            }
        }
        sf.b.read(smem.sfb[state.stage], k);
        return sf;
    }

    DG_DEVICE void end_group() {
        pipeline.consumer_release_loaded(pipeline.release_address(state));
        state.advance();
    }

    // The next k block's. The last k block of a block ends its group, full or not.
    DG_DEVICE ScaleFactors<kConfig> next(bool is_last) {
        if (k_in_group == 0) begin_group();
        const ScaleFactors<kConfig> sf = read(k_in_group);
        if (++k_in_group == kConfig.kSfGroup || is_last) {
            end_group();
            k_in_group = 0;
        }
        return sf;
    }
};

}  // namespace deep_gemm
