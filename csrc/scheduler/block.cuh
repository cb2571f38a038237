// What every scheduler hands out.
#pragma once

#include "common/types.cuh"

namespace deep_gemm {

// A block's place in D, in elements. It may lie outside D where a cluster hangs over the edge: TMA
// then loads zeros and nothing is stored.
struct BlockCoordinates {
    uint32_t m;
    uint32_t n;
};

}  // namespace deep_gemm
