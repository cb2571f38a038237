// Equal shares of tiles: all tiles of all blocks stand in one line, block by block, and CTA i of n
// takes those from total * i / n to total * (i + 1) / n. So no CTA has more than one tile more than
// another, however unequal the blocks are. A short block may count as more tiles than it has: what
// comes with each block takes its time too.
//
// A whole CTA finds where a share begins: each warp counts the tiles of a run of blocks, lane by
// lane, so that what lies side by side is read together; the warp whose run has the place walks it.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// Tile `tile` of block `block`; behind the last tile: (number of blocks, 0).
struct TilePosition {
    uint32_t block;
    uint32_t tile;
};

template <int kThreads>
struct ShareStorage {
    uint32_t warp_costs[kThreads / 32];
    TilePosition position[2];
};

// What a block of so many tiles counts as: kLeast at least, if it has any.
template <uint32_t kLeast>
DG_DEVICE uint32_t cost_of(uint32_t tiles) {
    return tiles == 0 ? 0 : max(tiles, kLeast);
}

// Where one of the tiles of blocks first .. end - 1 lies, the `left`-th by what blocks count as:
// it is one of them. Called by a whole warp, of which one lane writes the place.
template <uint32_t kLeast, typename Count>
DG_DEVICE void find_tile(Count count, uint32_t first, uint32_t end, uint32_t left,
                         TilePosition& place) {
    const uint32_t lane = ptx::lane_idx();
    for (uint32_t block = first + lane;; block += 32) {
        const uint32_t tiles = block < end ? count(block) : 0;
        const uint32_t own = cost_of<kLeast>(tiles);
        uint32_t up_to = own;  // of the lanes up to this one
#pragma unroll
        for (uint32_t distance = 1; distance < 32; distance *= 2) {
            const uint32_t below = __shfl_up_sync(0xffffffff, up_to, distance);
            if (lane >= distance) up_to += below;
        }
        if (left >= up_to - own && left < up_to) {
            const uint32_t tile = left - (up_to - own);
            // What a short block counts as beyond its tiles lies behind it.
            const bool is_behind = tile >= tiles;
            place = {block + is_behind, is_behind ? 0 : tile};
        }
        const uint32_t sum = __shfl_sync(0xffffffff, up_to, 31);
        if (left < sum) return;
        left -= sum;
    }
}

// Where share `share` of `num_shares` begins, and the one behind it. Called by all threads.
//   kLeast   the tiles that a block counts as, if it has any
//   count    uint32_t count(uint32_t block): the tiles of a block
template <int kThreads, uint32_t kLeast = 1, typename Count>
DG_DEVICE void find_share(ShareStorage<kThreads>& smem, Count count, uint32_t num_blocks,
                          uint32_t share, uint32_t num_shares, TilePosition (&position)[2]) {
    constexpr uint32_t kWarps = kThreads / 32;
    const uint32_t warp = ptx::warp_idx();
    const uint32_t lane = ptx::lane_idx();
    const uint32_t run = align(ceil_div(num_blocks, kWarps), 32u);
    const uint32_t first = min(warp * run, num_blocks);
    const uint32_t end = min(first + run, num_blocks);
    uint32_t costs = 0;
    // Two at a time: it is the loads that take long.
#pragma unroll 2
    for (uint32_t block = first + lane; block < end; block += 32) {
        costs += cost_of<kLeast>(count(block));
    }
    costs = __reduce_add_sync(0xffffffff, costs);
    if (lane == 0) smem.warp_costs[warp] = costs;
    __syncthreads();
    uint32_t before = 0;  // of the warps before this one
    uint32_t total = 0;
#pragma unroll
    for (uint32_t i = 0; i < kWarps; ++i) {
        if (i == warp) before = total;
        total += smem.warp_costs[i];
    }
#pragma unroll 1
    for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t target =
            static_cast<uint64_t>(total) * min(share + i, num_shares) / num_shares;
        if (target == total && threadIdx.x == 0) smem.position[i] = {num_blocks, 0};
        if (target >= before && target - before < costs) {
            find_tile<kLeast>(count, first, end, target - before, smem.position[i]);
        }
    }
    __syncthreads();
    position[0] = smem.position[0];
    position[1] = smem.position[1];
}

}  // namespace deep_gemm
