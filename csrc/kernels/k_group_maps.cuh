// What a k-grouped GEMM has to know about its groups, made from their sizes in one small kernel
// before it.
//
// A holds one [m, k_i] matrix per group, row-major, one behind the other, so the rows of each group
// have a length and a stride of their own. TMA has both in the tensor map: each group needs a map,
// for A and for B. Sizes are known on the device only, so the maps are made there, out of one that
// the host has encoded. They are made once, before anybody uses them: a map that is changed while
// copies use it is how such kernels go wrong.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "ptx/tensormap.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

struct KGroupMapsArguments {
    TensorMap patterns[2];  // maps of A and B, right but for address, k and row stride
    const uint8_t* operands[2];
    uint32_t rows[2];            // m and n
    const int32_t* ks;           // [num_groups], multiples of 128
    TensorMap (*group_maps)[2];  // [num_groups, 2]
    KGroup* k_groups;            // [num_groups]
    uint32_t num_groups;
    uint32_t total_k;  // groups that reach beyond it are cut off
};

// K blocks of a group. Its size may be anything: less than 0 is 0, what is left of a block counts
// not at all.
DG_DEVICE uint32_t num_k_blocks(const KGroupMapsArguments& args, uint32_t group) {
    return max(args.ks[group], 0) / GemmConfig::kBlockK;
}

// One warp per group.
DG_DEVICE void k_group_maps(const KGroupMapsArguments& args) {
    const uint32_t group = blockIdx.x;
    const uint32_t lane = ptx::lane_idx();
    const uint32_t total = args.total_k / GemmConfig::kBlockK;
    uint32_t before = 0;
    for (uint32_t i = lane; i < group; i += 32) before = min(before + num_k_blocks(args, i), total);
    before = min(__reduce_add_sync(0xffffffff, before), total);
    const uint32_t blocks = min(num_k_blocks(args, group), total - before);

    // 32 lanes, 8 bytes each: both patterns.
    TensorMap(&maps)[2] = args.group_maps[group];
    maps[lane / 16].opaque[lane % 16] = args.patterns[lane / 16].opaque[lane % 16];
    __syncwarp();
    if (lane < 2 && blocks > 0) {
        const uint64_t offset =
            static_cast<uint64_t>(args.rows[lane]) * before * GemmConfig::kBlockK;
        const uint32_t k = blocks * GemmConfig::kBlockK;
        ptx::tensormap_replace_global_address(&maps[lane], args.operands[lane] + offset);
        ptx::tensormap_replace_inner_dim(&maps[lane], k);
        ptx::tensormap_replace_middle_stride(&maps[lane], k);
    }
    ptx::fence_proxy_tensormap_release();

    if (lane == 0) args.k_groups[group] = {before, blocks};
}

}  // namespace deep_gemm
