// Where a group of SFA in shared memory has the scale factor of (row, k block).
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"

namespace deep_gemm {

// [block_m][4], or for an SFA that is loaded along M, [4][block_m]. The eight rows that a warp
// reads have no bank in common in either.
template <GemmConfig kConfig>
struct SfaLayout {
    int row_stride;
    int k_stride;

    DG_DEVICE explicit SfaLayout(SfaLoad load)
        : row_stride(load == SfaLoad::kTmaAlongM ? 1 : kConfig.kSfGroup),
          k_stride(load == SfaLoad::kTmaAlongM ? kConfig.block_m : 1) {}

    DG_DEVICE int offset(int row, int k) const { return row * row_stride + k * k_stride; }
};

}  // namespace deep_gemm
