// The 64-bit descriptor that tells WGMMA where an operand tile lies. PTX ISA 9.7.15.5.1.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// A K-major FP8 tile of 128-byte rows under the 128-byte swizzle, as TMA writes it.
//   bits 0-13   start address / 16
//   bits 16-29  leading-dimension offset: unused, since one swizzle row holds all of the tile's K
//   bits 32-45  stride between groups of eight rows / 16 = 1024 / 16
//   bits 62-63  layout: 1 = 128-byte swizzle
// The tile starts at a multiple of 1024, so the base offset (bits 49-51) is zero. Only the low word
// differs from tile to tile, and no offset carries out of it: it is all that is kept.
struct SmemDescriptor {
    static constexpr uint64_t kHigh = (1u << 30) | (1024 / 16);

    uint32_t low;

    DG_DEVICE explicit SmemDescriptor(const void* tile)
        : low((ptx::shared_address(tile) & 0x3ffff) / 16) {}

    DG_DEVICE void advance(int bytes) { low += bytes / 16; }

    // The descriptor `bytes` further on: along K inside a row, or by whole groups of eight rows.
    DG_DEVICE uint64_t at(int bytes) const { return (kHigh << 32) | (low + bytes / 16); }
};

}  // namespace deep_gemm
