// FP8 with FP32 scale factors -> FP8 with scale factors that are powers of two, data and scale
// factor together, so that what they stand for stays as near as FP8 can be:
//
//   new_sf          = sf rounded up to a power of two, at least 2**-126
//   out[r][c]       = E4M3(data[r][c] * (sf / new_sf)), rounded to nearest even
//
//   data  [batch, rows, columns] bytes, columns side by side
//   sf    [batch, ceil(rows / gran_rows), ceil(columns / gran_columns)] FP32, any strides
//   out, new_sf  like data and sf
//
// A factor sf / new_sf is at most 1: nothing overflows. A scale factor that has no such power of
// two (negative, above 2**127, infinity, NaN) becomes NaN.
//
// A thread has 16 columns of a row, of one scale factor; the first thread of a block writes the new
// one.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/cast.cuh"
#include "ptx/convert.cuh"

namespace deep_gemm {

// deep_gemm/kernels/requantise.py has the same struct. Strides are in elements.
struct RequantiseArguments {
    const uint8_t* data;
    const float* sf;
    uint8_t* out;
    float* new_sf;
    int64_t data_stride_batch;
    int64_t data_stride_row;
    int64_t sf_stride_batch;
    int64_t sf_stride_row;
    int64_t sf_stride_column;
    int64_t out_stride_batch;
    int64_t out_stride_row;
    int64_t new_sf_stride_batch;
    int64_t new_sf_stride_row;
    uint32_t rows;
    uint32_t columns;
    uint32_t gran_rows;
    uint32_t gran_columns;
    uint32_t num_vectors;  // in all matrices
};

inline constexpr uint32_t kRequantiseThreads = 256;
inline constexpr uint32_t kRequantiseColumns = 16;  // of a thread

// The next power of two that is no less, as UE8M0 has it and FP32 without subnormal numbers.
DG_DEVICE float next_power_of_two(float value) {
    const uint32_t bits = __float_as_uint(value);
    const uint32_t exponent = max((bits >> 23) + ((bits & 0x7fffff) != 0), 1u);
    return __uint_as_float(exponent < 255 ? exponent << 23 : 0x7fc00000);
}

// Four bytes of E4M3, each times `factor`.
DG_DEVICE uint32_t requantised(uint32_t bytes, float factor) {
    float values[4];
#pragma unroll
    for (uint32_t i = 0; i < 4; i += 2) {
        const uint32_t halves = ptx::cvt_f16x2_e4m3x2(bytes >> 8 * i);
        values[i] = __fmul_rn(ptx::cvt_f32_f16(halves), factor);
        values[i + 1] = __fmul_rn(ptx::cvt_f32_f16(halves >> 16), factor);
    }
    return e4m3x4(values);
}

DG_DEVICE void requantise(const RequantiseArguments& args) {
    const uint32_t vector = blockIdx.x * kRequantiseThreads + threadIdx.x;
    if (vector >= args.num_vectors) return;
    const uint32_t vectors_of_row = ceil_div(args.columns, kRequantiseColumns);
    const uint32_t column = vector % vectors_of_row * kRequantiseColumns;
    const uint32_t row = vector / vectors_of_row % args.rows;
    const int64_t batch = vector / vectors_of_row / args.rows;

    const uint32_t sf_row = row / args.gran_rows, sf_column = column / args.gran_columns;
    const float sf = args.sf[batch * args.sf_stride_batch + sf_row * args.sf_stride_row +
                             sf_column * args.sf_stride_column];
    const float new_sf = next_power_of_two(sf);
    if (row % args.gran_rows == 0 && column % args.gran_columns == 0) {
        args.new_sf[batch * args.new_sf_stride_batch + sf_row * args.new_sf_stride_row +
                    sf_column] = new_sf;
    }
    const float factor = __fdiv_rn(sf, new_sf);

    const uint8_t* data =
        args.data + batch * args.data_stride_batch + row * args.data_stride_row + column;
    uint8_t* out = args.out + batch * args.out_stride_batch + row * args.out_stride_row + column;
    const uint32_t num_left = args.columns - column;
    if (num_left >= kRequantiseColumns &&
        is_multiple<16>(args.data, args.data_stride_batch, args.data_stride_row) &&
        is_multiple<16>(args.out, args.out_stride_batch, args.out_stride_row)) {
        const uint4 bytes = *reinterpret_cast<const uint4*>(data);
        *reinterpret_cast<uint4*>(out) = {
            requantised(bytes.x, factor), requantised(bytes.y, factor),
            requantised(bytes.z, factor), requantised(bytes.w, factor)};
        return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < min(num_left, kRequantiseColumns); ++i) {
        out[i] = requantised(data[i], factor);
    }
}

}  // namespace deep_gemm
