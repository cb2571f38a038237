// What the casts to FP8 share: their parameters, loads and stores of 16 bytes of input, the scale
// factor that follows from a largest magnitude, and E4M3 as PyTorch rounds to it.
//
// docs/quantisers.md says what is computed; deep_gemm/testing/quantize_reference.py says it in
// PyTorch, and the kernels give the same bits.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "ptx/convert.cuh"

namespace deep_gemm {

enum class CastInput { kBf16, kFp16, kFp32 };

enum class SfFormat {
    kFp32,         // one float each
    kUe8m0,        // the same, rounded up to a power of two
    kPackedUe8m0,  // the exponents of four consecutive k blocks in a word, the first in its low
                   // byte
};

// Which rows there are.
enum class CastRows {
    kAll,     // of one matrix
    kCounts,  // the first so many of each of several matrices
    kEnds,    // of one matrix, in groups that end there and begin aligned
    kIds,     // of one matrix, those with an id that is not negative
};

// deep_gemm/kernels/cast.py has the same struct. Strides are in elements; those of sf in words of
// 4 bytes.
struct CastArguments {
    const void* x;
    const void* up;  // of a product SiLU(x) * up; like x
    uint8_t* data;
    void* sf;
    const int32_t* grouped_layout;
    int64_t x_stride_batch;
    int64_t x_stride_row;
    int64_t up_stride_batch;
    int64_t up_stride_row;
    int64_t data_stride_batch;
    int64_t data_stride_row;
    int64_t sf_stride_batch;
    int64_t sf_stride_row;
    int64_t sf_stride_column;
    uint32_t rows;
    uint32_t columns;
    uint32_t num_groups;
    uint32_t alignment;  // of the rows at which groups begin
    float clamp;
};

// 16 bytes of input.
template <CastInput kInput>
struct CastVector {
    static constexpr uint32_t kElementBytes = kInput == CastInput::kFp32 ? 4 : 2;
    static constexpr uint32_t kSize = 16 / kElementBytes;

    uint32_t words[4];

    // Element i as a float. i is known when this is compiled.
    DG_DEVICE float operator[](uint32_t i) const {
        if constexpr (kInput == CastInput::kFp32) {
            return __uint_as_float(words[i]);
        } else if constexpr (kInput == CastInput::kFp16) {
            return ptx::cvt_f32_f16(words[i / 2] >> i % 2 * 16);
        } else {
            return __uint_as_float(i % 2 ? words[i / 2] & 0xffff0000 : words[i / 2] << 16);
        }
    }
};

// Reads as many elements as are left of a row, kSize at most; zeros stand for the others.
//   whole  whether all are left, and lie at a multiple of 16 bytes
template <CastInput kInput>
DG_DEVICE CastVector<kInput> load_vector(const uint8_t* source, uint32_t num_left, bool whole) {
    if (whole) {
        const uint4 vector = *reinterpret_cast<const uint4*>(source);
        return {vector.x, vector.y, vector.z, vector.w};
    }
    CastVector<kInput> vector{};
#pragma unroll
    for (uint32_t i = 0; i < vector.kSize; ++i) {
        if (i >= num_left) continue;
        if constexpr (kInput == CastInput::kFp32) {
            vector.words[i] = reinterpret_cast<const uint32_t*>(source)[i];
        } else {
            vector.words[i / 2] |= reinterpret_cast<const uint16_t*>(source)[i] << i % 2 * 16;
        }
    }
    return vector;
}

// Writes as many bytes as are left of a row, kSize at most.
//   whole  whether all are left, and lie at a multiple of kSize
template <uint32_t kSize>
DG_DEVICE void store_bytes(uint8_t* destination, const uint32_t (&words)[kSize / 4],
                           uint32_t num_left, bool whole) {
    static_assert(kSize == 4 || kSize == 8);
    if (whole) {
        if constexpr (kSize == 8) {
            *reinterpret_cast<uint2*>(destination) = {words[0], words[1]};
        } else {
            *reinterpret_cast<uint32_t*>(destination) = words[0];
        }
        return;
    }
#pragma unroll
    for (uint32_t i = 0; i < kSize; ++i) {
        if (i < num_left) destination[i] = words[i / 4] >> i % 4 * 8;
    }
}

// Whether an address, and all that lie at these strides in bytes from it, are multiples of kBytes.
template <uint32_t kBytes>
DG_DEVICE bool is_multiple(const void* address, int64_t stride, int64_t other_stride) {
    return (reinterpret_cast<uint64_t>(address) | stride | other_stride) % kBytes == 0;
}

// Magnitudes are compared as integers, which orders them as floats, and puts NaN above infinity: it
// stays, as in PyTorch.
DG_DEVICE uint32_t magnitude_bits(float value) { return __float_as_uint(value) & 0x7fffffff; }

inline constexpr uint32_t kMinAmaxBits = 0x38d1b717;  // 1e-4
inline constexpr float kFp8Max = 448.0f;

template <SfFormat kFormat>
DG_DEVICE float scale_factor(uint32_t amax_bits) {
    const float amax = __uint_as_float(max(amax_bits, kMinAmaxBits));
    const float sf = __fdiv_rn(amax, kFp8Max);
    if constexpr (kFormat == SfFormat::kFp32) return sf;
    const uint32_t bits = __float_as_uint(sf);
    const uint32_t exponent = (bits >> 23) + ((bits & 0x7fffff) != 0);
    return __uint_as_float(min(exponent, 254u) << 23);
}

// Four floats as E4M3. Magnitudes are at most 448 but for rounding, and infinity where the scale
// factor had to be a finite power of two: they become 448, as in PyTorch since 2.12.
DG_DEVICE uint32_t e4m3x4(const float* values) {
    return ptx::cvt_e4m3x2(values[0], values[1]) | ptx::cvt_e4m3x2(values[2], values[3]) << 16;
}

}  // namespace deep_gemm
