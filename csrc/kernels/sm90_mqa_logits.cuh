// MQA logits for Hopper, the scores of DeepSeek's lightning indexer:
//
//   logits[i, j] = (sum over heads h of weights[i, h] * relu(q[i, h] . k[j])) * sf[j]
//
//   q       [tokens, heads, head_dim] e4m3      weights [tokens, heads] FP32
//   k       [keys, head_dim] e4m3               sf      [keys] FP32; or both in pages of a cache
//   logits  [tokens, width] FP32 or BF16, for the keys that a token sees
//
// A block is a few query tokens with all their heads: it stays in shared memory while tiles of 128
// keys pass by. All tiles of all blocks stand in a line, and each CTA takes an equal share of them
// (scheduler/tile_shares.cuh): keys in one matrix, it finds its share itself; in pages, the share
// was found before by kernels/paged_shares.cuh.
//
// Roles, by warpgroup:
//   0, 1   math: 64 keys of each tile: WGMMA, relu, weighted sum over the heads, store
//   2      load: warp 0 tiles of keys, warp 1 blocks of queries, warps 2 and 3 write -inf where a
//          token sees no key
//
//   k, sf ------ TMA ------------> [full] stage --> WGMMA --> relu, sum --> logits
//                ^                                    | ^
//                '--- [empty] <--- each math warp ----' |
//                                                       |
//   q, weights - TMA, cp.async --> [full] block --------'--> warp 0: which keys to load
//                ^                                |
//                '--- [empty] <--- each reader ---'
//
// Read mqa/load_queries.cuh, mqa/load_keys.cuh and mqa/score.cuh next; docs/mqa_logits.md says what
// bounds it.
#pragma once

#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/clean_logits.cuh"
#include "mqa/config.cuh"
#include "mqa/load_keys.cuh"
#include "mqa/load_queries.cuh"
#include "mqa/score.cuh"
#include "mqa/share.cuh"
#include "mqa/storage.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

// Registers per thread of each role: 2 * 128 * 232 + 128 * 40 = 64512 of the SM's 65536.
constexpr int kScoreRegisters = 232;
constexpr int kMqaLoadRegisters = 40;

template <MqaConfig kConfig>
DG_DEVICE void sm90_mqa_logits(const MqaArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<MqaStorage<kConfig>*>(dynamic_smem);
    const int warp_idx = ptx::warp_idx();
    const int load_warp = warp_idx - MqaConfig::kMathWarpgroups * 4;

    if (load_warp == 0 && ptx::elect_one()) {
        ptx::prefetch_tensormap(&args.tensor_map_q);
        ptx::prefetch_tensormap(&args.tensor_map_keys);
        KeyPipeline<kConfig>{smem.key_barriers}.init();
        QueryPipeline<kConfig>{smem.query_barriers}.init();
    }
    __syncthreads();
    ptx::griddepcontrol_wait();
    TilePosition position[2];
    find_share<kConfig>(smem, args, position);

    if (load_warp < 0) {
        ptx::setmaxnreg_inc<kScoreRegisters>();
        Scorer<kConfig>(smem, warp_idx / 4).run();
        return;
    }
    ptx::setmaxnreg_dec<kMqaLoadRegisters>();
    if (load_warp == 0) {
        load_keys<kConfig>(smem, args);
        ptx::griddepcontrol_launch_dependents();
    } else if (load_warp == 1) {
        load_queries<kConfig>(smem, args, position[0], position[1]);
    } else if (args.cleans) {
        clean_logits<kConfig>(args, blockIdx.x * 2 + load_warp - 2, gridDim.x * 2);
    }
}

}  // namespace deep_gemm
