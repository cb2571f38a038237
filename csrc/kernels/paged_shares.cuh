// The small kernel before paged MQA logits: where each CTA's share of the key tiles begins.
//
//   context_lens  [sequences, lens_per_sequence] int32
//   shares        [CTAs + 1, 2] int32: sequence and tile at which CTA i begins; the last row is
//                 where the last one ends
//
// A sequence has as many tiles as its longest length needs. One CTA of this kernel finds one row.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/config.cuh"
#include "ptx/cluster.cuh"
#include "scheduler/tile_shares.cuh"

namespace deep_gemm {

// deep_gemm/kernels/paged_shares.py has the same struct.
struct PagedSharesArguments {
    const int32_t* context_lens;
    int32_t* shares;
    uint32_t num_sequences;
    uint32_t lens_per_sequence;
};

template <int kThreads>
DG_DEVICE void paged_shares(const PagedSharesArguments& args) {
    __shared__ ShareStorage<kThreads> storage;
    ptx::griddepcontrol_wait();
    const auto count = [&](uint32_t sequence) {
        const int32_t* lens =
            args.context_lens + static_cast<int64_t>(sequence) * args.lens_per_sequence;
        int32_t longest = 0;
        for (uint32_t i = 0; i < args.lens_per_sequence; ++i) longest = max(longest, lens[i]);
        return ceil_div<uint32_t>(longest, MqaConfig::kTileKeys);
    };
    TilePosition position[2];
    find_share(storage, count, args.num_sequences, blockIdx.x, gridDim.x - 1, position);
    if (threadIdx.x == 0) {
        args.shares[2 * blockIdx.x] = position[0].block;
        args.shares[2 * blockIdx.x + 1] = position[0].tile;
    }
}

}  // namespace deep_gemm
