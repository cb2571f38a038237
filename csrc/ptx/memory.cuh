// Shared-memory loads and stores, stores by matrix, number packing, the fence between the two
// proxies, and words for the host. PTX ISA 9.7.9.22, 9.7.14.5, 9.7.13.4 and 9.7.9.12.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm::ptx {

// Reads shared memory in this very place among the other asm statements: the compiler would move an
// ordinary load to where its value is used, and then wait for it.
DG_DEVICE float load_shared(const float* source) {
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(shared_address(source)) : "memory");
    return value;
}

// Two floats at a multiple of 8 bytes, likewise.
DG_DEVICE void load_shared(const float* source, float& first, float& second) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(first), "=f"(second)
                 : "r"(shared_address(source))
                 : "memory");
}

// Four floats at a multiple of 16 bytes, likewise.
DG_DEVICE void load_shared(const float* source, float (&value)[4]) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(value[0]), "=f"(value[1]), "=f"(value[2]), "=f"(value[3])
                 : "r"(shared_address(source))
                 : "memory");
}

// Stores four floats at a shared::cluster address, a multiple of 16, and completes their bytes on
// an mbarrier of the same CTA.
DG_DEVICE void store_async(uint32_t destination, float f0, float f1, float f2, float f3,
                           uint32_t barrier) {
    asm volatile(
        "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32"
        " [%0], {%1, %2, %3, %4}, [%5];" ::"r"(destination),
        "f"(f0), "f"(f1), "f"(f2), "f"(f3), "r"(barrier)
        : "memory");
}

DG_DEVICE void store_shared(void* destination, float first, float second) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(shared_address(destination)), "f"(first),
                 "f"(second)
                 : "memory");
}

// Four words at a multiple of 16 bytes.
DG_DEVICE void store_shared(void* destination, uint32_t w0, uint32_t w1, uint32_t w2, uint32_t w3) {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(shared_address(destination)),
                 "r"(w0), "r"(w1), "r"(w2), "r"(w3)
                 : "memory");
}

// Copies 16 bytes from shared to global memory, both at multiples of 16.
DG_DEVICE void copy_16_to_global(void* destination, const void* source) {
    asm volatile(
        "{\n"
        ".reg .b32 w<4>;\n"
        "ld.shared.v4.b32 {w0, w1, w2, w3}, [%1];\n"
        "st.global.v4.b32 [%0], {w0, w1, w2, w3};\n"
        "}" ::"l"(__cvta_generic_to_global(destination)),
        "r"(shared_address(source))
        : "memory");
}

// Stores a word where the host reads it at any time; of stores at once, any one stays.
DG_DEVICE void store_relaxed_sys(uint32_t* destination, uint32_t word) {
    asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(destination)),
                 "r"(word)
                 : "memory");
}

// Rounds two floats to BF16 (nearest even); `low` goes to bits 0-15.
DG_DEVICE uint32_t cvt_bf16x2(float low, float high) {
    uint32_t packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// Stores four 8x8 matrices of 16-bit elements. Lanes 8i..8i+7 pass the addresses of matrix i's rows
// (16 bytes each); lane l holds row l/4, columns 2(l%4) and +1 of each matrix.
DG_DEVICE void stmatrix_x4(void* row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                     shared_address(row)),
                 "r"(m0), "r"(m1), "r"(m2), "r"(m3)
                 : "memory");
}

// Makes this thread's ordinary shared-memory writes visible to TMA and WGMMA, once a barrier orders
// the threads.
DG_DEVICE void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

}  // namespace deep_gemm::ptx
