// MQA logits for Blackwell, the scores of DeepSeek's lightning indexer:
//
//   logits[i, j] = (sum over heads h of weights[i, h] * relu(q[i, h] . k[j])) * sf[j]
//
// Operands, blocks, tiles and shares are those of kernels/sm90_mqa_logits.cuh, and so are the warps
// that load and clean. What differs is who multiplies, and where the products lie.
//
// Roles, by warpgroup:
//   0, 1   math: every other tile each: relu, weighted sum over the heads, store
//   2      warp 0 loads tiles of keys, warp 1 blocks of queries; warp 2 starts the MMAs, one thread
//          of it; warp 3 takes and gives back the tensor memory, and writes -inf where a token sees
//          no key
//
//   k, sf ------ TMA ----------> [full] stage --> MMA --> accumulator --> [full] --> relu, sum
//                ^                                | ^     ^                          | ^     |
//                '--- [empty] <-- commit, warps --' |     '------- [empty] <---------' |   logits
//                                                   |                                  |
//   q, weights - TMA, cp.async -> [full] block -----'----------------------------------'
//                ^                                                                     |
//                '--- [empty] <--- math warps, load warp 0 ----------------------------'
//
// Read mqa/multiply.cuh and mqa/sum_heads.cuh next, after what sm90_mqa_logits.cuh names.
#pragma once

#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/clean_logits.cuh"
#include "mqa/config.cuh"
#include "mqa/load_keys.cuh"
#include "mqa/load_queries.cuh"
#include "mqa/multiply.cuh"
#include "mqa/share.cuh"
#include "mqa/storage.cuh"
#include "mqa/sum_heads.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/tcgen05.cuh"
#include "ptx/thread.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

template <MqaConfig kConfig>
DG_DEVICE void sm100_mqa_logits(const MqaArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<MqaStorage<kConfig>*>(dynamic_smem);
    const int warp_idx = ptx::warp_idx();
    const int load_warp = warp_idx - MqaConfig::kMathWarpgroups * 4;

    if (load_warp == 0 && ptx::elect_one()) {
        ptx::prefetch_tensormap(&args.tensor_map_q);
        ptx::prefetch_tensormap(&args.tensor_map_keys);
        KeyPipeline<kConfig>{smem.key_barriers}.init();
        QueryPipeline<kConfig>{smem.query_barriers}.init();
        AccumulatorRing<kConfig>{smem.accumulators.barriers}.init();
    }
    if (load_warp == 3) ptx::tcgen05_alloc<1, kConfig.tmem_columns()>(&smem.accumulators.tmem);
    ptx::tcgen05_fence_before_sync();
    __syncthreads();
    ptx::tcgen05_fence_after_sync();
    ptx::griddepcontrol_wait();
    TilePosition position[2];
    find_share<kConfig>(smem, args, position);

    if (load_warp < 0) {
        HeadSummer<kConfig>(smem, warp_idx / 4).run();
    } else if (load_warp == 0) {
        load_keys<kConfig>(smem, args);
        ptx::griddepcontrol_launch_dependents();
    } else if (load_warp == 1) {
        load_queries<kConfig>(smem, args, position[0], position[1]);
    } else if (load_warp == 2) {
        if (ptx::elect_one()) multiply_tiles(smem);
        __syncwarp();
    } else if (args.cleans) {
        clean_logits<kConfig>(args, blockIdx.x, gridDim.x);
    }
    ptx::tcgen05_fence_before_sync();
    __syncthreads();
    ptx::tcgen05_fence_after_sync();
    if (load_warp == 3) ptx::tcgen05_dealloc<1, kConfig.tmem_columns()>(smem.accumulators.tmem);
}

}  // namespace deep_gemm
