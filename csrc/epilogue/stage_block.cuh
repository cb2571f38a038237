// Epilogue, math warps: accumulators -> BF16, if D is -> swizzled staging memory. From there the
// store role takes them, under the next block's main loop (epilogue/store_block.cuh).
//
//   math warpgroup: accumulators --stmatrix--> [full] staging memory --TMA--> D
//                                       ^                              |
//                                       '--------- [empty] <-----------' store warp, when read
//
// Each warpgroup stages its own M64 slices, so the two never wait for each other.
//
// A slice is cut into slabs of d_swizzle_bytes columns, [64 rows, d_swizzle_bytes] each, one TMA
// box. Eight rows of a 16-byte column chunk, which one stmatrix phase writes, fall into eight
// different bank groups thanks to the swizzle.
//
// The staging memory holds one round: all of the warpgroup's slabs, or an equal part of them where
// another stage of the main loop is worth more than a short epilogue.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "layout/accumulator.cuh"
#include "layout/swizzle.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// Sets the thread's accumulators to zero in all rows from `valid_rows` on: rows of padding, whose
// operands may be anything. Rows are counted from the warpgroup's first.
template <GemmConfig kConfig>
DG_DEVICE void clear_padding(float (&accum)[kConfig.num_waves()][kConfig.block_n / 2],
                             int valid_rows) {
#pragma unroll
    for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
        const int row = wave * kConfig.kMmaM + accumulator_row(threadIdx.x % kConfig.kWarpgroup);
#pragma unroll
        for (int i = 0; i < kConfig.block_n / 2; ++i) {
            if (row + i / 2 % 2 * 8 >= valid_rows) accum[wave][i] = 0;
        }
    }
}

// Writes one slab of BF16 to shared memory. Each lane addresses one row of 16 bytes: lanes 0-15 the
// 16 rows of the warp at one 8-column chunk, lanes 16-31 the same rows at the next chunk.
//   accum   the thread's accumulators of the slab's columns
template <int kSlabBytes>
DG_DEVICE void write_bf16_slab(uint8_t* slab, const float* accum) {
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

// The same for FP32: each lane writes its pairs of columns, of both its rows.
template <int kSlabBytes>
DG_DEVICE void write_fp32_slab(uint8_t* slab, const float* accum) {
    const uint32_t row = accumulator_row(threadIdx.x % GemmConfig::kWarpgroup);
    const uint32_t column = accumulator_column(threadIdx.x);
#pragma unroll
    for (int i = 0; i < kSlabBytes / 8; i += 2) {
        const uint32_t offset =
            (row + i / 2 % 2 * 8) * kSlabBytes + (i / 4 * 8 + column) * sizeof(float);
        ptx::store_shared(slab + swizzle<kSlabBytes>(offset), accum[i], accum[i + 1]);
    }
}

// Puts the warpgroup's slices of blocks of D into its staging memory.
template <GemmConfig kConfig>
struct BlockStaging {
    static constexpr int kAccumSize = kConfig.d_columns() / 2;
    static constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    static constexpr int kSlabColumns = kSlabBytes / kConfig.d_bytes;
    static constexpr int kSlabsPerSlice = kConfig.d_columns() / kSlabColumns;
    static constexpr int kSlabs = kConfig.slabs_per_round();

    uint8_t (&staging)[kSlabs][kConfig.kMmaM * kSlabBytes];  // the warpgroup's
    StorePipeline<kConfig> pipeline;
    typename StorePipeline<kConfig>::State state;

    DG_DEVICE BlockStaging(SharedStorage<kConfig>& smem, int warpgroup_idx)
        : staging(smem.d[warpgroup_idx]), pipeline{smem.store_barriers[warpgroup_idx]} {}

    // Returns once the block is written; it may still lie there.
    DG_DEVICE void stage(const float (&accum)[kConfig.num_waves()][kAccumSize]) {
#pragma unroll
        for (int first = 0; first < kConfig.num_waves() * kSlabsPerSlice; first += kSlabs) {
            pipeline.producer_acquire(state);
            write_slabs(accum, first);
            ptx::fence_proxy_async();
            __syncwarp();
            if (ptx::lane_idx() == 0) pipeline.producer_arrive(state);
            __syncwarp();  // else the next block's main loop may count as diverged
            state.advance();
        }
    }

  private:
    DG_DEVICE void write_slabs(const float (&accum)[kConfig.num_waves()][kAccumSize], int first) {
#pragma unroll
        for (int i = 0; i < kSlabs; ++i) {
            const int column = (first + i) % kSlabsPerSlice * kSlabColumns;
            const float* source = accum[(first + i) / kSlabsPerSlice] + column / 2;
            if constexpr (kConfig.d_bytes == 2) {
                write_bf16_slab<kSlabBytes>(staging[i], source);
            } else {
                write_fp32_slab<kSlabBytes>(staging[i], source);
            }
        }
    }
};

}  // namespace deep_gemm
