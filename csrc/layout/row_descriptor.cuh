// The descriptor of an operand of WGMMA or tcgen05.mma whose rows are 32, 64 or 128 bytes wide.
// PTX ISA 9.7.15.5.1 and 9.7.16.4.1.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// A K-major FP8 tile under the swizzle of its rows' width, as TMA writes it.
//   bits 0-13   start address / 16
//   bits 32-45  stride between groups of eight rows / 16
//   bit  46     1 for tcgen05
//   bits 62-63  layout: 1, 2 and 3 for a swizzle of 128, 64 and 32 bytes
// The tile starts where the pattern does, so the base offset is zero. Only the low word differs
// from tile to tile.
template <int kRowBytes, bool kIsTcgen05 = false>
struct RowDescriptor {
    static_assert(kRowBytes == 32 || kRowBytes == 64 || kRowBytes == 128);
    static constexpr uint64_t kLayout = kRowBytes == 128 ? 1 : kRowBytes == 64 ? 2 : 3;
    static constexpr uint64_t kHigh =
        (kLayout << 30) | (kIsTcgen05 ? 1 << 14 : 0) | (8 * kRowBytes / 16);

    uint32_t low;

    DG_DEVICE explicit RowDescriptor(const void* tile)
        : low((ptx::shared_address(tile) & 0x3ffff) / 16) {}

    // Tile `i` of those that lie side by side from this one on.
    template <int kTileBytes>
    DG_DEVICE RowDescriptor tile(int i) const {
        RowDescriptor result = *this;
        result.low += i * (kTileBytes / 16);
        return result;
    }

    // The descriptor `bytes` further on: along K inside a row, or by whole groups of eight rows.
    DG_DEVICE uint64_t at(int bytes) const { return (kHigh << 32) | (low + bytes / 16); }
};

}  // namespace deep_gemm
