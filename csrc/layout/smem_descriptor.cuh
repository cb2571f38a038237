// The 64-bit descriptor that tells WGMMA where an operand tile lies. PTX ISA 9.7.15.5.1.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// Descriptor of a K-major FP8 tile of 128-byte rows under the 128-byte swizzle, as TMA writes it.
//   bits 0-13   start address / 16
//   bits 16-29  leading-dimension offset: unused, since one swizzle row holds all of the tile's K
//   bits 32-45  stride between groups of eight rows / 16 = 1024 / 16
//   bits 62-63  layout: 1 = 128-byte swizzle
// The tile starts at a multiple of 1024, so the base offset (bits 49-51) is zero.
DG_DEVICE uint64_t make_smem_descriptor(const void* tile) {
    constexpr uint64_t kStride = 1024 / 16;
    constexpr uint64_t kSwizzle128 = 1;
    return (kSwizzle128 << 62) | (kStride << 32) | ((ptx::shared_address(tile) & 0x3ffff) >> 4);
}

// Moves a descriptor `bytes` further along K, inside its 128-byte row.
DG_DEVICE uint64_t advance_k(uint64_t descriptor, int bytes) {
    return descriptor + static_cast<uint64_t>(bytes / 16);
}

}  // namespace deep_gemm
