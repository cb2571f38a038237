// Equal shares of tiles: all tiles of all blocks stand in one line, block by block, and CTA i of n
// takes those from total * i / n to total * (i + 1) / n. So no CTA has more than one tile more than
// another, however unequal the blocks are. A short block may count as more tiles than it has: what
// comes with each block takes its time too.
//
// A whole CTA finds where a share begins: each thread counts the tiles of a run of blocks, the
// counts are summed up, and the thread whose run has the place walks it.
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
    uint32_t warp_sums[kThreads / 32];
    TilePosition position[2];
};

// What all threads before this one have together, and all threads: `own` is this one's.
template <int kThreads>
DG_DEVICE uint32_t sum_of_threads_before(ShareStorage<kThreads>& smem, uint32_t own,
                                         uint32_t& total) {
    const uint32_t lane = ptx::lane_idx();
    uint32_t inclusive = own;
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        const uint32_t below = __shfl_up_sync(0xffffffff, inclusive, distance);
        if (lane >= distance) inclusive += below;
    }
    if (lane == 31) smem.warp_sums[threadIdx.x / 32] = inclusive;
    __syncthreads();
    uint32_t before = inclusive - own;
    total = 0;
#pragma unroll
    for (uint32_t warp = 0; warp < kThreads / 32; ++warp) {
        if (warp == threadIdx.x / 32) before += total;
        total += smem.warp_sums[warp];
    }
    return before;
}

// Where share `share` of `num_shares` begins, and the one behind it. Called by all threads.
//   kLeast   the tiles that a block counts as, if it has any
//   count    uint32_t count(uint32_t block): the tiles of a block
template <int kThreads, uint32_t kLeast = 1, typename Count>
DG_DEVICE void find_share(ShareStorage<kThreads>& smem, Count count, uint32_t num_blocks,
                          uint32_t share, uint32_t num_shares, TilePosition (&position)[2]) {
    const auto cost = [&](uint32_t block) {
        const uint32_t tiles = count(block);
        return tiles == 0 ? 0 : max(tiles, kLeast);
    };
    const uint32_t run = ceil_div<uint32_t>(num_blocks, kThreads);
    const uint32_t first = min(threadIdx.x * run, num_blocks);
    const uint32_t end = min(first + run, num_blocks);
    uint32_t costs = 0;
    for (uint32_t block = first; block < end; ++block) costs += cost(block);

    uint32_t total;
    const uint32_t before = sum_of_threads_before(smem, costs, total);
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
        const uint32_t target =
            static_cast<uint64_t>(total) * min(share + i, num_shares) / num_shares;
        if (target == total && threadIdx.x == 0) smem.position[i] = {num_blocks, 0};
        if (target >= before && target - before < costs) {
            uint32_t left = target - before;
            uint32_t block = first;
            for (uint32_t n; left >= (n = cost(block)); ++block) left -= n;
            const bool is_behind = left >= count(block);
            smem.position[i] = {block + is_behind, is_behind ? 0 : left};
        }
    }
    __syncthreads();
    position[0] = smem.position[0];
    position[1] = smem.position[1];
}

}  // namespace deep_gemm
