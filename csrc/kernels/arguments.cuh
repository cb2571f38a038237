// The one kernel parameter of a dense FP8 GEMM. deep_gemm/kernels/arguments.py has the same struct.
#pragma once

#include "common/types.cuh"
#include "ptx/copy.cuh"

namespace deep_gemm {

// How SFA is loaded: word by word, which takes any strides, or by TMA, where every four scale
// factors along one dimension, from a multiple of four on, are 16 aligned bytes.
enum class SfaLoad : uint32_t { kWords, kTmaAlongK, kTmaAlongM };

struct DenseArguments {
    TensorMap tensor_map_a;  // [m, k], box [block_m / cluster_n, 128]
    TensorMap tensor_map_b;  // [n, k], box [block_n / cluster_m, 128]
    TensorMap tensor_map_d;  // [m, n], box [min(block_m, 64), one slab]
    // For kTmaAlongK [m, num_k_blocks], box [block_m, 4]; for kTmaAlongM [ceil(m / 4),
    // num_k_blocks, 4], box [block_m / 4, 4, 4]. Either box arrives in the order of SfaLayout.
    TensorMap tensor_map_sfa;
    const float* sfa;      // [m, ceil(k / 128)], any strides; for kWords only
    const float* sfb;      // [ceil(n / 128), ceil(k / 128)], any strides
    int64_t sfa_stride_m;  // strides in elements
    int64_t sfa_stride_k;
    int64_t sfb_stride_n;
    int64_t sfb_stride_k;
    uint32_t m;
    uint32_t n;
    uint32_t k;
    uint32_t band;  // of the block order, see scheduler/dense.cuh
    SfaLoad sfa_load;
};

}  // namespace deep_gemm
