// csrc/ptx/thread.cuh for the warp of warp.cuh, as far as schedulers use it.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

inline uint32_t lane_idx() { return threadIdx.x; }

inline int find_first_set(uint32_t bits) { return __builtin_ffs(bits) - 1; }

}  // namespace deep_gemm::ptx
