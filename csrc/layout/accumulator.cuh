// Which element of the 64 x N accumulator a thread of the warpgroup holds. PTX ISA 9.7.15.5.1.
#pragma once

#include "common/types.cuh"

namespace deep_gemm {

// Register 4j + 2h + i of thread `t` is element (row_of(t) + 8h, 8j + 2(t % 4) + i) of the tile.
DG_HOST_DEVICE constexpr int accumulator_row(int thread_in_warpgroup) {
    return 16 * (thread_in_warpgroup / 32) + thread_in_warpgroup % 32 / 4;
}

// The first of the thread's columns: 2(t % 4).
DG_HOST_DEVICE constexpr int accumulator_column(int thread) { return thread % 4 * 2; }

}  // namespace deep_gemm
