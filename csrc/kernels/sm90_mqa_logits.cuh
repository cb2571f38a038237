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

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/clean_logits.cuh"
#include "mqa/config.cuh"
#include "mqa/load_keys.cuh"
#include "mqa/load_queries.cuh"
#include "mqa/score.cuh"
#include "mqa/storage.cuh"
#include "mqa/visible_keys.cuh"
#include "ptx/cluster.cuh"
#include "ptx/copy.cuh"
#include "ptx/thread.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

// Registers per thread of each role: 2 * 128 * 232 + 128 * 40 = 64512 of the SM's 65536.
constexpr int kScoreRegisters = 232;
constexpr int kMqaLoadRegisters = 40;

// How many tiles take as long as what comes with each block: its keys have to be known before its
// queries can be asked for. The first tokens of a long sequence see few keys: a CTA that had as
// many tiles of them as another has of the last would be at work several times as long.
constexpr uint32_t kLeastTiles = 4;

// The CTA's share of the tiles: from position[0] up to position[1]. Called by all threads.
template <MqaConfig kConfig>
DG_DEVICE void find_share(MqaStorage<kConfig>& smem, const MqaArguments& args,
                          TilePosition (&position)[2]) {
    if constexpr (kConfig.is_paged()) {
        const int32_t* schedule = args.schedule + 2 * blockIdx.x;
        position[0] = {static_cast<uint32_t>(schedule[0]), static_cast<uint32_t>(schedule[1])};
        position[1] = {static_cast<uint32_t>(schedule[2]), static_cast<uint32_t>(schedule[3])};
    } else {
        const auto count = [&](uint32_t block) {
            int64_t first = 0x7fffffff;
            int64_t end = 0;
#pragma unroll
            for (uint32_t i = 0; i < kConfig.num_tokens; ++i) {
                const uint32_t token = block * kConfig.num_tokens + i;
                if (token >= args.num_tokens) continue;
                const VisibleKeys keys = visible_keys<kConfig>(args, token);
                if (keys.is_empty()) continue;
                first = min(first, keys.first);
                end = max(end, keys.end);
            }
            return tile_range(first, end).num_tiles;
        };
        find_share<MqaConfig::kThreads, kLeastTiles>(
            smem.share, count, ceil_div<uint32_t>(args.num_tokens, kConfig.num_tokens), blockIdx.x,
            gridDim.x, position);
    }
}

template <MqaConfig kConfig>
DG_DEVICE void sm90_mqa_logits(const MqaArguments& args) {
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& smem = *reinterpret_cast<MqaStorage<kConfig>*>(dynamic_smem);
    const int warp_idx = ptx::warp_idx();
    const int load_warp = warp_idx - MqaConfig::kMathWarpgroups * 4;

    if (load_warp == 0 && ptx::elect_one()) {
        ptx::prefetch_tensormap(&args.tensor_map_q);
        ptx::prefetch_tensormap(&args.tensor_map_keys);
        ptx::prefetch_tensormap(&args.tensor_map_key_sf);
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
