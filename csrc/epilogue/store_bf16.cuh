// Epilogue: accumulators -> BF16 -> swizzled shared memory -> TMA store.
//
// Each warpgroup stores its own M64 slices, so the two never wait for each other, and the store
// runs under the next block's main loop: shared memory is only waited for when it is written again.
//
// A slice is cut into slabs of d_swizzle_bytes columns, [64 rows, d_swizzle_bytes] each, one TMA
// box. Eight rows of a 16-byte column chunk, which one stmatrix phase writes, fall into eight
// different bank groups thanks to the swizzle.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"
#include "layout/swizzle.cuh"
#include "ptx/copy.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// Writes one M64 slice to shared memory. Each lane addresses one row of 16 bytes: lanes 0-15 the 16
// rows of the warp at one 8-column chunk, lanes 16-31 the same rows at the next chunk.
template <GemmConfig kConfig>
DG_DEVICE void store_slice(uint8_t* slice, const float (&accum)[kConfig.block_n / 2]) {
    constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    constexpr int kChunksPerSlab = kSlabBytes / 16;
    const uint32_t lane = ptx::lane_idx();
    const uint32_t row = threadIdx.x % kConfig.kWarpgroup / 32 * 16 + lane % 16;
#pragma unroll
    for (int chunk = 0; chunk < kConfig.block_n / 8; chunk += 2) {
        const float* pair = accum + chunk * 4;
        uint8_t* slab = slice + chunk / kChunksPerSlab * (kConfig.kMmaM * kSlabBytes);
        const uint32_t offset = row * kSlabBytes + (chunk % kChunksPerSlab + lane / 16) * 16;
        ptx::stmatrix_x4(slab + swizzle<kSlabBytes>(offset), ptx::cvt_bf16x2(pair[0], pair[1]),
                         ptx::cvt_bf16x2(pair[2], pair[3]), ptx::cvt_bf16x2(pair[4], pair[5]),
                         ptx::cvt_bf16x2(pair[6], pair[7]));
    }
}

// Stores the warpgroup's slices of the block at (m, n) of D.
//   d                the CTA's staging memory, [M64 slice][slab][64, d_swizzle_bytes]
//   rows, columns    size of D
template <GemmConfig kConfig>
DG_DEVICE void store_block(uint16_t* d, const TensorMap* map, uint32_t m, uint32_t n, uint32_t rows,
                           uint32_t columns,
                           const float (&accum)[kConfig.num_waves()][kConfig.block_n / 2],
                           int warpgroup_idx) {
    constexpr int kSlabColumns = kConfig.d_swizzle_bytes() / 2;
    constexpr int kSliceElements = kConfig.kMmaM * kConfig.block_n;
    const int first_slice = warpgroup_idx * kConfig.num_waves();
    const bool issues_stores = threadIdx.x % kConfig.kWarpgroup == 0;

    if (issues_stores) ptx::tma_store_wait_read();
    ptx::named_barrier_sync(1 + warpgroup_idx, kConfig.kWarpgroup);
#pragma unroll
    for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
        uint16_t* slice = d + (first_slice + wave) * kSliceElements;
        store_slice<kConfig>(reinterpret_cast<uint8_t*>(slice), accum[wave]);
    }
    ptx::fence_proxy_async();
    ptx::named_barrier_sync(1 + warpgroup_idx, kConfig.kWarpgroup);

    if (!issues_stores) return;
#pragma unroll
    for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
        const uint32_t row = m + (first_slice + wave) * kConfig.kMmaM;
        const uint16_t* slice = d + (first_slice + wave) * kSliceElements;
        for (int slab = 0; slab < kConfig.block_n / kSlabColumns; ++slab) {
            const uint32_t column = n + slab * kSlabColumns;
            if (row >= rows || column >= columns) break;
            ptx::tma_store_2d(map, slice + slab * kConfig.kMmaM * kSlabColumns, column, row);
        }
    }
    ptx::tma_store_commit_group();
}

}  // namespace deep_gemm
