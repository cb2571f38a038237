// What SM100's k-grouped GEMM has to know about its groups, made in one small kernel before it, as
// kernels/k_group_maps.cuh does for SM90.
//
// Each group's tensor maps begin and end with the group along K, so that TMA puts zeros behind its
// last k: then a group may have any size, whatever lies behind it. Operands are either
//
//   K-major   one [rows, k_i] matrix per group, one behind the other; a group's whole blocks count
//   MN-major  [k, rows], groups below each other, with gaps between them if they have ends
//
// and scale factors are packed, [words, rows]: every group begins with a new row of words.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "ptx/tensormap.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// deep_gemm/kernels/sm100_k_grouped.py has the same struct.
struct Sm100KGroupMapsArguments {
    TensorMap patterns[2];  // maps of A and B, right but for address, k and K-major rows' stride
    const uint8_t* operands[2];
    uint32_t bytes_per_k[2];        // that each k of the groups before takes
    const int32_t* grouped_layout;  // [num_groups]: k_i; or, has_ends, each group's end along K
    TensorMap (*group_maps)[2];     // [num_groups, 2]
    KGroup* k_groups;               // [num_groups]
    uint32_t num_groups;
    uint32_t total_k;    // groups that reach beyond it are cut off,
    uint32_t num_words;  // and beyond that many rows of words
    uint32_t gran_k;
    uint32_t alignment;  // of the places along K where groups begin, if they have ends
    bool has_ends;
    bool is_mn_major;
};

// A group's size, which may be anything on the device: less than 0 is 0.
DG_DEVICE uint32_t size_along_k(const Sm100KGroupMapsArguments& args, uint32_t group) {
    const uint32_t number = max(args.grouped_layout[group], 0);
    if (!args.has_ends) {
        return args.is_mn_major ? number : number / GemmConfig::kBlockK * GemmConfig::kBlockK;
    }
    if (group == 0) return number;
    const uint32_t begin =
        align(static_cast<uint32_t>(max(args.grouped_layout[group - 1], 0)), args.alignment);
    return number - min(number, begin);
}

// The sum of all lanes' numbers, or `limit` if that is less; all of them are at most `limit`.
DG_DEVICE uint32_t limited_sum(uint32_t number, uint32_t limit) {
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
        number = min(number + __shfl_xor_sync(0xffffffff, number, distance), limit);
    }
    return number;
}

// Changes one pattern into a group's map: `begin` and `size` are its own along K.
DG_DEVICE void make_group_map(const Sm100KGroupMapsArguments& args, TensorMap* map, uint32_t which,
                              uint32_t begin, uint32_t size) {
    const uint64_t offset = static_cast<uint64_t>(args.bytes_per_k[which]) * begin;
    ptx::tensormap_replace_global_address(map, args.operands[which] + offset);
    if (args.is_mn_major) {
        ptx::tensormap_replace_middle_dim(map, size);
    } else {
        ptx::tensormap_replace_inner_dim(map, size);
        ptx::tensormap_replace_middle_stride(map, size);
    }
}

// One warp per group.
DG_DEVICE void sm100_k_group_maps(const Sm100KGroupMapsArguments& args) {
    const uint32_t group = blockIdx.x;
    const uint32_t lane = ptx::lane_idx();
    const uint32_t word_k = 4 * args.gran_k;
    uint32_t sizes = 0, words = 0;
    for (uint32_t i = lane; i < group; i += 32) {
        const uint32_t size = min(size_along_k(args, i), args.total_k);
        sizes = min(sizes + size, args.total_k);
        words = min(words + ceil_div(size, word_k), args.num_words);
    }
    uint32_t begin = limited_sum(sizes, args.total_k);
    const uint32_t first_word = limited_sum(words, args.num_words);
    if (args.has_ends && group > 0) {
        const uint32_t before = max(args.grouped_layout[group - 1], 0);
        begin = min(align(before, args.alignment), args.total_k);
    }
    uint32_t size = min(size_along_k(args, group), args.total_k - begin);
    if (ceil_div(size, word_k) > args.num_words - first_word) {
        size = (args.num_words - first_word) * word_k;
    }

    // 32 lanes, 8 bytes each: both patterns.
    TensorMap(&maps)[2] = args.group_maps[group];
    maps[lane / 16].opaque[lane % 16] = args.patterns[lane / 16].opaque[lane % 16];
    __syncwarp();
    if (lane < 2 && size > 0) make_group_map(args, &maps[lane], lane, begin, size);
    ptx::fence_proxy_tensormap_release();

    if (lane == 0) {
        args.k_groups[group] = {first_word, ceil_div<uint32_t>(size, GemmConfig::kBlockK)};
    }
}

}  // namespace deep_gemm
