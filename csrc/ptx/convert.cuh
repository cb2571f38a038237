// Conversions between FP32 and the narrower types of operands, relu, and FP32 arithmetic by pairs.
// PTX ISA 9.7.9.22 and 9.7.3.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

// Rounds two floats to E4M3 (nearest even, magnitudes above 448 become 448, NaN becomes 0x7f);
// `low` goes to bits 0-7.
DG_DEVICE uint32_t cvt_e4m3x2(float low, float high) {
    uint16_t packed;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(high), "f"(low));
    return packed;
}

// Two E4M3 bytes, in the low half of a word, as FP16: every one is exact.
DG_DEVICE uint32_t cvt_f16x2_e4m3x2(uint32_t bytes) {
    uint32_t halves;
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(bytes)));
    return halves;
}

// An FP16 number, in the low half of a word, as FP32.
DG_DEVICE float cvt_f32_f16(uint32_t half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(static_cast<uint16_t>(half)));
    return value;
}

// max(value, 0); a NaN stays one.
DG_DEVICE float relu(float value) {
    float result;
    asm("max.NaN.f32 %0, %1, 0f00000000;" : "=f"(result) : "f"(value));
    return result;
}

// sum[i] += a[i] * b[i] for two i, in one instruction, each rounded once. From SM100 on.
DG_DEVICE void fma_pair(float (&sum)[2], float a0, float a1, float b0, float b1) {
    asm("{\n"
        ".reg .b64 a, b, c;\n"
        "mov.b64 a, {%2, %3};\n"
        "mov.b64 b, {%4, %5};\n"
        "mov.b64 c, {%0, %1};\n"
        "fma.rn.f32x2 c, a, b, c;\n"
        "mov.b64 {%0, %1}, c;\n"
        "}"
        : "+f"(sum[0]), "+f"(sum[1])
        : "f"(a0), "f"(a1), "f"(b0), "f"(b1));
}

}  // namespace deep_gemm::ptx
