// Epilogue: accumulators -> BF16 -> swizzled shared memory -> TMA store.
//
// Each warpgroup stores its own M64 slices, so the two never wait for each other, and the store
// runs under the next block's main loop: shared memory is only waited for when it is written again.
//
// A slice is cut into slabs of d_swizzle_bytes columns, [64 rows, d_swizzle_bytes] each, one TMA
// box. Eight rows of a 16-byte column chunk, which one stmatrix phase writes, fall into eight
// different bank groups thanks to the swizzle.
//
// The staging memory holds one round: all of the warpgroup's slabs, or an equal part of them where
// another stage of the main loop is worth more than a short epilogue.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "layout/swizzle.cuh"
#include "ptx/copy.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"

namespace deep_gemm {

// Writes one slab to shared memory. Each lane addresses one row of 16 bytes: lanes 0-15 the 16 rows
// of the warp at one 8-column chunk, lanes 16-31 the same rows at the next chunk.
//   accum   the thread's accumulators of the slab's columns
template <int kSlabBytes>
DG_DEVICE void write_slab(uint8_t* slab, const float* accum) {
    const uint32_t lane = ptx::lane_idx();
    const uint32_t row = threadIdx.x % GemmConfig::kWarpgroup / 32 * 16 + lane % 16;
#pragma unroll
    for (int chunk = 0; chunk < kSlabBytes / 16; chunk += 2) {
        const float* pair = accum + chunk * 4;
        const uint32_t offset = row * kSlabBytes + (chunk + lane / 16) * 16;
        ptx::stmatrix_x4(slab + swizzle<kSlabBytes>(offset), ptx::cvt_bf16x2(pair[0], pair[1]),
                         ptx::cvt_bf16x2(pair[2], pair[3]), ptx::cvt_bf16x2(pair[4], pair[5]),
                         ptx::cvt_bf16x2(pair[6], pair[7]));
    }
}

// Stores the warpgroup's slices of a block of D.
//   staging          the warpgroup's staging memory
//   rows, columns    size of D
template <GemmConfig kConfig, int kSlabs, int kSize>
DG_DEVICE void store_block(uint8_t (&staging)[kSlabs][kSize], const TensorMap* map,
                           const BlockCoordinates& block, uint32_t rows, uint32_t columns,
                           const float (&accum)[kConfig.num_waves()][kConfig.block_n / 2],
                           int warpgroup_idx) {
    constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    constexpr int kSlabColumns = kSlabBytes / 2;
    constexpr int kSlabsPerSlice = kConfig.block_n / kSlabColumns;
    const uint32_t first_row = block.m + warpgroup_idx * kConfig.num_waves() * kConfig.kMmaM;
    const bool issues_stores = threadIdx.x % kConfig.kWarpgroup == 0;

#pragma unroll
    for (int first = 0; first < kConfig.num_waves() * kSlabsPerSlice; first += kSlabs) {
        if (issues_stores) ptx::tma_store_wait_read();
        ptx::named_barrier_sync(1 + warpgroup_idx, kConfig.kWarpgroup);
#pragma unroll
        for (int i = 0; i < kSlabs; ++i) {
            const int wave = (first + i) / kSlabsPerSlice;
            const int column = (first + i) % kSlabsPerSlice * kSlabColumns;
            write_slab<kSlabBytes>(staging[i], accum[wave] + column / 2);
        }
        ptx::fence_proxy_async();
        ptx::named_barrier_sync(1 + warpgroup_idx, kConfig.kWarpgroup);

        if (!issues_stores) continue;
#pragma unroll
        for (int i = 0; i < kSlabs; ++i) {
            const uint32_t row = first_row + (first + i) / kSlabsPerSlice * kConfig.kMmaM;
            const uint32_t column = block.n + (first + i) % kSlabsPerSlice * kSlabColumns;
            if (row < rows && column < columns) ptx::tma_store_2d(map, staging[i], column, row);
        }
        ptx::tma_store_commit_group();
    }
}

}  // namespace deep_gemm
