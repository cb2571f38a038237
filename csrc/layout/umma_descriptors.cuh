// What tells tcgen05.mma and tcgen05.cp where operands lie, and what to compute. PTX ISA 9.7.16.4.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// Shared memory, 64 bits:
//   bits 0-13   start address / 16
//   bits 16-29  leading-dimension offset / 16
//   bits 32-45  stride offset / 16
//   bits 46-48  1
//   bits 61-63  layout: 2 = 128-byte swizzle, 0 = none
// Only the low word differs from tile to tile.
struct UmmaDescriptor {
    uint32_t low;
    uint32_t high;

    DG_DEVICE uint64_t at(int bytes) const {
        return (static_cast<uint64_t>(high) << 32) | (low + bytes / 16);
    }
    DG_DEVICE UmmaDescriptor moved(int bytes) const { return {low + bytes / 16, high}; }
};

// A tile of FP8 in rows of 128 bytes under the 128-byte swizzle, groups of eight rows 1024 bytes
// apart. K-major: a row is a row of the operand. MN-major: a row is one k, and every further 128 of
// MN lie `kBlockK` rows on.
template <bool kIsMnMajor, int kBlockK>
DG_DEVICE UmmaDescriptor tile_descriptor(const void* tile) {
    constexpr uint32_t kLeading = kIsMnMajor ? kBlockK * 128 / 16 : 0;
    return {((ptx::shared_address(tile) & 0x3ffff) / 16) | (kLeading << 16),
            (2u << 29) | (1u << 14) | (1024 / 16)};
}

// 32 rows of 16 bytes, one behind the other.
DG_DEVICE UmmaDescriptor rows_of_16_bytes(const void* rows) {
    return {(ptx::shared_address(rows) & 0x3ffff) / 16, (1u << 14) | (128 / 16)};
}

// The instruction, 32 bits, of kind mxf8f6f4 for E4M3 and UE8M0:
//   bits 4-5    which byte of a word of SFB
//   bits 15-16  whether A and B are MN-major
//   bits 17-22  N / 8
//   bit  23     scale factors are UE8M0
//   bits 27-28  M / 128
//   bits 29-30  which byte of a word of SFA
template <int kM, int kN, bool kAIsMnMajor, bool kBIsMnMajor>
DG_HOST_DEVICE constexpr uint32_t mxf8_instruction(uint32_t sfa_byte, uint32_t sfb_byte) {
    constexpr uint32_t kShape = (kN / 8 << 17) | (1u << 23) | (kM / 128 << 27);
    constexpr uint32_t kMajors = (kAIsMnMajor ? 1u << 15 : 0) | (kBIsMnMajor ? 1u << 16 : 0);
    return kShape | kMajors | (sfb_byte << 4) | (sfa_byte << 29);
}

// The same of kind f8f6f4 for E4M3, both operands K-major:
//   bits 4-5    1: D is FP32
//   bits 17-22  N / 8
//   bits 24-28  M / 16
template <int kM, int kN>
DG_HOST_DEVICE constexpr uint32_t f8_instruction() {
    return (1u << 4) | (kN / 8 << 17) | (kM / 16 << 24);
}

}  // namespace deep_gemm
