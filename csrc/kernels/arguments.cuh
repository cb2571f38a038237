// The one kernel parameter of an FP8 GEMM. deep_gemm/kernels/arguments.py has the same struct.
#pragma once

#include "common/types.cuh"
#include "ptx/copy.cuh"

namespace deep_gemm {

// How SFA is loaded: word by word, which takes any strides, or by TMA, where every four scale
// factors along one dimension, from a multiple of four on, are 16 aligned bytes.
enum class SfaLoad : uint32_t { kWords, kTmaAlongK, kTmaAlongM };

// What grouped_layout holds in an m-grouped product.
enum class GroupedLayout : uint32_t {
    kRowIds,     // [m]: each row's group; anything but 0 .. num_groups - 1 is padding
    kRowEnds,    // [num_groups]: the row behind each group's last; groups begin aligned
    kRowCounts,  // [num_groups]: rows of each group, which has a matrix of A and D for itself
};

// A group of a k-grouped product.
struct KGroup {
    uint32_t first_k_block;  // in the scale factors; on SM100, where they are packed, a word
    uint32_t num_k_blocks;
};

struct GemmArguments {
    TensorMap tensor_map_a;  // [batch, m, k], box [block_m / cluster_n, 128]
    TensorMap tensor_map_b;  // [batch, n, k], box [block_n / cluster_m, 128]
    TensorMap tensor_map_d;  // [batch, m, n], box [min(block_m, 64), one slab]
    // For kTmaAlongK [batch, m, num_k_blocks], box [block_m, 4]; for kTmaAlongM
    // [batch, num_k_blocks, m], box [4, block_m].
    TensorMap tensor_map_sfa;
    TensorMap tensor_map_sfb;  // 1D1D: [batch, num_k_blocks, n], box [4, block_n]
    const float* sfa;          // [batch, m, ceil(k / 128)], any strides; for copies word by word
    const float* sfb;          // 1D2D: [batch, ceil(n / 128), ceil(k / 128)], any strides
    int64_t sfa_stride_batch;  // strides in elements
    int64_t sfa_stride_m;
    int64_t sfa_stride_k;
    int64_t sfb_stride_batch;
    int64_t sfb_stride_n;
    int64_t sfb_stride_k;
    uint64_t policy_a;  // of L2, for the lines of A and B: kept as others are, or let go first
    uint64_t policy_b;
    uint32_t m;  // rows of D, in one batch
    uint32_t n;
    uint32_t k;     // not for k-grouped products
    uint32_t band;  // of the block order, see scheduler/block_order.cuh
    SfaLoad sfa_load;
    bool accumulates;   // D += product
    bool prefetches_b;  // B is asked for before the kernel before has ended; see load_tiles.cuh
    // With gaps between heads: D's columns lie in runs of head_left and head_right in turn, with
    // head_mid columns between the two that are not written.
    uint32_t head_left;
    uint32_t head_mid;
    uint32_t head_right;
    // Grouped products.
    uint32_t num_groups;
    // m-grouped.
    const int32_t* grouped_layout;
    void* d;
    int64_t d_stride_batch;  // in bytes
    int64_t d_stride_m;
    GroupedLayout layout;
    uint32_t alignment;   // of the rows at which groups begin; for kRowEnds
    bool clears_padding;  // kRowEnds: D's rows up to the next aligned one become zero
    // k-grouped, made by kernels/k_group_maps.cuh or kernels/sm100_k_group_maps.cuh.
    const KGroup* k_groups;       // [num_groups]
    const TensorMap* group_maps;  // [num_groups, 2]: of the group's A and B
};

}  // namespace deep_gemm
