// Epilogue of m-grouped products: a slab that ends where another group's rows begin. TMA cuts boxes
// at the end of D only, so threads copy it, row by row: SM90's store warp, SM100's epilogue warps.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/arguments.cuh"
#include "layout/swizzle.cuh"
#include "ptx/memory.cuh"

namespace deep_gemm {

// Copies a slab's first `rows` rows to D, 16 bytes per thread and turn; `kThreads` share the work,
// from a multiple of so many on.
//   row, column   of D, where the slab lies
template <auto kConfig, int kThreads>
DG_DEVICE void copy_rows(const uint8_t* slab, int rows, uint32_t batch, uint32_t row,
                         uint32_t column, const GemmArguments& args) {
    constexpr int kSlabBytes = kConfig.d_swizzle_bytes();
    constexpr int kChunks = kSlabBytes / 16;
    const int chunks = min<int>((args.n - column) * kConfig.d_bytes / 16, kChunks);
    uint8_t* destination = static_cast<uint8_t*>(args.d) + batch * args.d_stride_batch +
                           row * args.d_stride_m + column * kConfig.d_bytes;
    for (int i = threadIdx.x % kThreads; i < rows * kChunks; i += kThreads) {
        const int chunk = i % kChunks;
        if (chunk >= chunks) continue;
        ptx::copy_16_to_global(destination + i / kChunks * args.d_stride_m + chunk * 16,
                               slab + swizzle<kSlabBytes>(i * 16));
    }
}

}  // namespace deep_gemm
