// Integer arithmetic that the host and the kernels share.
#pragma once

#include "common/types.cuh"

namespace deep_gemm {

template <typename T>
DG_HOST_DEVICE constexpr T ceil_div(T a, T b) {
    return (a + b - 1) / b;
}

template <typename T>
DG_HOST_DEVICE constexpr T align(T a, T b) {
    return ceil_div(a, b) * b;
}

template <typename T>
DG_HOST_DEVICE constexpr T min(T a, T b) {
    return a < b ? a : b;
}

template <typename T>
DG_HOST_DEVICE constexpr T max(T a, T b) {
    return a > b ? a : b;
}

// Greatest common divisor of two positive numbers (Euclid).
DG_HOST_DEVICE constexpr int gcd(int a, int b) { return b == 0 ? a : gcd(b, a % b); }

}  // namespace deep_gemm
