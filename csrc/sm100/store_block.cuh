// Epilogue: TMEM -> BF16, if D is -> swizzled shared memory -> TMA store, or TMA addition.
//
// A thread has a row of the block: lane 32 * (warp % 4) + its own. A slab is d_swizzle_bytes of all
// 128 rows, one TMA box. There is room for two: while one is stored, the next is written.
#pragma once

#include "common/types.cuh"
#include "epilogue/copy_rows.cuh"
#include "epilogue/head_gaps.cuh"
#include "kernels/arguments.cuh"
#include "layout/swizzle.cuh"
#include "ptx/copy.cuh"
#include "ptx/memory.cuh"
#include "ptx/tcgen05.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "sm100/multiply.cuh"
#include "sm100/storage.cuh"

namespace deep_gemm {

template <Sm100GemmConfig kConfig>
struct Sm100BlockStore {
    static constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    static constexpr int kSlabColumns = kSlabBytes / kConfig.d_bytes;
    static constexpr int kColumns = 16;  // that a thread takes out of TMEM at a time
    static constexpr int kBarrier = 1;

    Sm100Storage<kConfig>& smem;
    const GemmArguments& args;
    TmemMap<kConfig> tmem;
    int slab = 0;  // next of the staging memory

    DG_DEVICE Sm100BlockStore(Sm100Storage<kConfig>& smem, const GemmArguments& args)
        : smem(smem), args(args), tmem{smem.tmem} {}

    // Stores a block out of accumulator `idx`. Rows without a product become zero.
    //   release   called when the accumulator has been read
    template <typename Release>
    DG_DEVICE void store(const BlockCoordinates& block, int idx, Release release) {
        const bool issues = thread() == 0;
#pragma unroll 1
        for (int column = 0; column < kConfig.block_n; column += kSlabColumns) {
            if (issues) ptx::tma_store_wait_read<kConfig.kSlabs - 1>();
            ptx::named_barrier_sync(kBarrier, kConfig.kWarpgroup);
            write_slab(block, tmem.accumulator(idx) + column);
            if (column + kSlabColumns >= kConfig.block_n) release();
            ptx::fence_proxy_async();
            ptx::named_barrier_sync(kBarrier, kConfig.kWarpgroup);
            store_slab(block, block.n + column, issues);
            if (issues) ptx::tma_store_commit_group();
            slab = (slab + 1) % kConfig.kSlabs;
        }
    }

  private:
    static DG_DEVICE uint32_t thread() { return threadIdx.x % kConfig.kWarpgroup; }

    DG_DEVICE void write_slab(const BlockCoordinates& block, uint32_t column) {
        const uint32_t lane_base = thread() / 32 * 32 << 16;
#pragma unroll
        for (int i = 0; i < kSlabColumns; i += kColumns) {
            float value[kColumns] = {};
            // Without a product the accumulator belongs to another block.
            if (block.num_k_blocks > 0) {
                ptx::tcgen05_ld_16_columns(lane_base + column + i, value);
                ptx::tcgen05_wait_ld(value);
#pragma unroll
                for (int j = 0; j < kColumns; ++j) {
                    value[j] = thread() < block.valid_rows ? value[j] : 0;
                }
            }
            write_columns(i, value);
        }
    }

    // Writes columns i .. i + 15 of the thread's row of the slab, 16 bytes at a time.
    DG_DEVICE void write_columns(int i, const float (&value)[kColumns]) {
        constexpr int kPerChunk = 16 / kConfig.d_bytes;
#pragma unroll
        for (int j = 0; j < kColumns; j += kPerChunk) {
            const uint32_t offset = thread() * kSlabBytes + (i + j) * kConfig.d_bytes;
            uint8_t* place = smem.d[slab] + swizzle<kSlabBytes>(offset);
            const float* from = value + j;
            if constexpr (kConfig.d_bytes == 2) {
                ptx::store_shared(
                    place, ptx::cvt_bf16x2(from[0], from[1]), ptx::cvt_bf16x2(from[2], from[3]),
                    ptx::cvt_bf16x2(from[4], from[5]), ptx::cvt_bf16x2(from[6], from[7]));
            } else {
                ptx::store_shared(place, __float_as_uint(from[0]), __float_as_uint(from[1]),
                                  __float_as_uint(from[2]), __float_as_uint(from[3]));
            }
        }
    }

    DG_DEVICE void store_slab(const BlockCoordinates& block, uint32_t column, bool issues) {
        if (column >= args.n) return;
        if (kConfig.grouping == Grouping::kMGrouped && block.stored_rows < kConfig.block_m) {
            copy_rows<kConfig, kConfig.kWarpgroup>(smem.d[slab], block.stored_rows, block.d_batch,
                                                   block.m, column, args);
            return;
        }
        if (!issues) return;
        const uint32_t d_column = column_in_d(column, args);
        if (args.accumulates) {
            ptx::tma_reduce_add_3d(&args.tensor_map_d, smem.d[slab], d_column, block.m,
                                   block.d_batch);
        } else {
            ptx::tma_store_3d(&args.tensor_map_d, smem.d[slab], d_column, block.m, block.d_batch);
        }
    }
};

}  // namespace deep_gemm
