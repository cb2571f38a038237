// A CTA's share of the tiles, read from the schedule, or found.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/config.cuh"
#include "mqa/storage.cuh"
#include "mqa/visible_keys.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

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

}  // namespace deep_gemm
