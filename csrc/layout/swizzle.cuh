// The swizzle that TMA applies to shared-memory tiles, as address arithmetic.
#pragma once

#include "common/types.cuh"

namespace deep_gemm {

// Byte offset, in a tile of rows kSwizzleBytes wide, of the byte that an unswizzled tile has at
// `offset`: 16-byte chunks of a row are permuted by the row's number, so that the same chunk of
// eight consecutive rows lies in eight different bank groups. Bits 4.. are XORed with bits 7..; the
// tile must start at a multiple of 8 * kSwizzleBytes.
template <int kSwizzleBytes>
DG_HOST_DEVICE constexpr uint32_t swizzle(uint32_t offset) {
    static_assert(kSwizzleBytes == 32 || kSwizzleBytes == 64 || kSwizzleBytes == 128);
    constexpr uint32_t kChunkMask = kSwizzleBytes / 16 - 1;
    return offset ^ (((offset >> 7) & kChunkMask) << 4);
}

}  // namespace deep_gemm
