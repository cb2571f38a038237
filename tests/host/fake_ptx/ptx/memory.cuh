// csrc/ptx/memory.cuh for a host. "BF16" is the number itself, which must be an integer of 16 bits.
#pragma once

#include "ptx/thread.cuh"

namespace deep_gemm::ptx {

inline uint32_t cvt_bf16x2(float low, float high) {
    return static_cast<uint32_t>(low) | static_cast<uint32_t>(high) << 16;
}

inline void stmatrix_x4(void* row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
    log_event('S', reinterpret_cast<int64_t>(row), m0, m1, m2, m3);
}

inline void store_shared(void* destination, float first, float second) {
    log_event('V', reinterpret_cast<int64_t>(destination), static_cast<int64_t>(first),
              static_cast<int64_t>(second));
}

inline void copy_16_to_global(void* destination, const void* source) {
    log_event('G', reinterpret_cast<int64_t>(source), reinterpret_cast<int64_t>(destination));
}

inline void fence_proxy_async() { log_event('F'); }

}  // namespace deep_gemm::ptx
