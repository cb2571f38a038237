// Cast to FP8 with one scale factor per row and gran_k columns, of x or of SiLU(x) * up:
//
//   y[r][c]    = x[r][c], or SiLU(x[r][c]) * up[r][c]
//   sf[r][b]   = max(1e-4, largest |y[r][c]| of the columns c of k block b) / 448
//   data[r][c] = E4M3(y[r][c] * (1 / sf[r][b]))
//
//   x, up  [(matrices,) rows, columns], columns side by side; fast if rows begin at multiples of 16
//   data   the same shape, in bytes; fast if rows begin at multiples of what a vector becomes
//   sf     [(matrices,) rows, k blocks], any strides
//
// A thread reads 16 bytes of each of a few rows before it waits for any; a warp reads 512 bytes of
// each. The lanes that hold a block of gran_k columns find its largest magnitude together, and
// nobody else is waited for. HBM wants about 27 KB under way on an SM; there are up to 80.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/cast.cuh"
#include "kernels/cast_rows.cuh"
#include "ptx/cluster.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// deep_gemm/kernels/per_token_cast.py prints this.
struct PerTokenCastConfig {
    CastInput input;
    uint32_t gran_k;
    SfFormat sf;
    CastRows rows;
    bool multiplies;  // casts SiLU(x) * up
    bool clamps;      // limits x and up first

    static constexpr uint32_t kThreads = 256;

    DG_HOST_DEVICE constexpr uint32_t vector_size() const {
        return input == CastInput::kFp32 ? 4 : 8;
    }
    // Lanes that hold a block.
    DG_HOST_DEVICE constexpr uint32_t lanes() const { return gran_k / vector_size(); }
    // Columns of a warp.
    DG_HOST_DEVICE constexpr uint32_t width() const { return 32 * vector_size(); }
    DG_HOST_DEVICE constexpr uint32_t rows_at_once() const { return multiplies ? 2 : 4; }
};

// SiLU(gate) * up in FP32. Division and exponential are those that PyTorch has on a GPU; the sum
// may be fused with the exponential's last product, which is exact. Comparisons keep NaN.
template <PerTokenCastConfig kConfig>
DG_DEVICE float silu_mul(float gate, float up, float clamp) {
    if constexpr (kConfig.clamps) {
        gate = gate > clamp ? clamp : gate;
        up = up > clamp ? clamp : up < -clamp ? -clamp : up;
    }
    return __fmul_rn(__fdiv_rn(gate, 1.0f + expf(-gate)), up);
}

// What one thread does of a piece of work.
template <PerTokenCastConfig kConfig>
struct PerTokenCast {
    static constexpr uint32_t kRows = kConfig.rows_at_once();
    static constexpr uint32_t kSize = kConfig.vector_size();
    using Vector = CastVector<kConfig.input>;

    const CastArguments& args;
    const CastPiece& piece;
    uint32_t column;    // the first of this thread's
    uint32_t num_left;  // columns from there on
    bool whole_input;   // of them kSize, and they lie at multiples of 16 bytes
    bool whole_output;  // the same of the output, at multiples of kSize

    Vector x[kRows]{};
    Vector up[kConfig.multiplies ? kRows : 1]{};
    float sf[kRows];

    DG_DEVICE void run() {
        load();
#pragma unroll
        for (uint32_t i = 0; i < kRows; ++i) cast(i);
        store_scale_factors();
    }

  private:
    DG_DEVICE bool is_valid(uint32_t i) const { return piece.valid >> i & 1; }

    // The first row of a matrix, from this thread's first column on.
    DG_DEVICE const uint8_t* first_row(const void* matrix, int64_t stride_batch,
                                       int64_t stride_row) const {
        const int64_t row = piece.group * stride_batch + piece.row * stride_row;
        return static_cast<const uint8_t*>(matrix) + (row + column) * Vector::kElementBytes;
    }

    DG_DEVICE void load() {
        const uint8_t* row = first_row(args.x, args.x_stride_batch, args.x_stride_row);
        load_rows(x, row, args.x_stride_row);
        if constexpr (kConfig.multiplies) {
            row = first_row(args.up, args.up_stride_batch, args.up_stride_row);
            load_rows(up, row, args.up_stride_row);
        }
    }

    // Nothing but loads lies between the loads of whole vectors.
    DG_DEVICE void load_rows(Vector (&rows)[kRows], const uint8_t* row, int64_t stride) const {
        if (whole_input) {
#pragma unroll
            for (uint32_t i = 0; i < kRows; ++i, row += stride * Vector::kElementBytes) {
                if (is_valid(i)) rows[i] = load_vector<kConfig.input>(row, num_left, true);
            }
        } else {
#pragma unroll
            for (uint32_t i = 0; i < kRows; ++i, row += stride * Vector::kElementBytes) {
                if (is_valid(i)) rows[i] = load_vector<kConfig.input>(row, num_left, false);
            }
        }
    }

    DG_DEVICE void cast(uint32_t i) {
        float values[kSize];
        uint32_t amax = 0;
#pragma unroll
        for (uint32_t j = 0; j < kSize; ++j) {
            values[j] = x[i][j];
            if constexpr (kConfig.multiplies) {
                values[j] = silu_mul<kConfig>(values[j], up[i][j], args.clamp);
            }
            amax = max(amax, magnitude_bits(values[j]));
        }
#pragma unroll
        for (uint32_t distance = 1; distance < kConfig.lanes(); distance *= 2) {
            amax = max(amax, __shfl_xor_sync(0xffffffff, amax, distance));
        }
        sf[i] = scale_factor<kConfig.sf>(amax);
        const float inverse = __frcp_rn(sf[i]);
#pragma unroll
        for (float& value : values) value = __fmul_rn(value, inverse);
        uint32_t bytes[kSize / 4];
#pragma unroll
        for (uint32_t j = 0; j < kSize; j += 4) {
            bytes[j / 4] = e4m3x4(values + j);
        }
        if (!is_valid(i)) return;
        uint8_t* row = args.data + piece.group * args.data_stride_batch +
                       (piece.row + i) * args.data_stride_row;
        store_bytes<kSize>(row + column, bytes, num_left, whole_output);
    }

    // Each of a block's first lanes writes that of one row.
    DG_DEVICE void store_scale_factors() const {
        const uint32_t i = ptx::lane_idx() % kConfig.lanes();
        const uint32_t block = column / kConfig.gran_k;
        if (i >= kRows || !is_valid(i)) return;
        float mine = sf[0];
#pragma unroll
        for (uint32_t j = 1; j < kRows; ++j) mine = i == j ? sf[j] : mine;
        const int64_t place =
            piece.group * args.sf_stride_batch + (piece.row + i) * args.sf_stride_row;
        const uint32_t num_blocks = ceil_div(args.columns, kConfig.gran_k);
        if constexpr (kConfig.sf == SfFormat::kPackedUe8m0) {
            if (block >= align(num_blocks, 4u)) return;
            const uint32_t exponent = block < num_blocks ? __float_as_uint(mine) >> 23 : 0;
            const int64_t word = place + block / 4 * args.sf_stride_column;
            static_cast<uint8_t*>(args.sf)[word * 4 + block % 4] = exponent;
        } else {
            if (block >= num_blocks) return;
            static_cast<float*>(args.sf)[place + block * args.sf_stride_column] = mine;
        }
    }
};

template <PerTokenCastConfig kConfig>
DG_DEVICE void per_token_cast(const CastArguments& args) {
    // A GEMM of what comes out may get ready meanwhile.
    ptx::griddepcontrol_launch_dependents();
    constexpr uint32_t kElementBytes = CastVector<kConfig.input>::kElementBytes;
    constexpr uint32_t kWarps = kConfig.kThreads / 32;
    const uint32_t warp = blockIdx.x * kWarps + ptx::warp_idx();
    uint32_t columns = args.columns;
    // The words of packed scale factors are whole.
    if (kConfig.sf == SfFormat::kPackedUe8m0) columns = align(columns, 4 * kConfig.gran_k);

    bool in_vectors = is_multiple<16>(args.x, args.x_stride_batch * kElementBytes,
                                      args.x_stride_row * kElementBytes);
    if constexpr (kConfig.multiplies) {
        in_vectors &= is_multiple<16>(args.up, args.up_stride_batch * kElementBytes,
                                      args.up_stride_row * kElementBytes);
    }
    const bool out_vectors =
        is_multiple<kConfig.vector_size()>(args.data, args.data_stride_batch, args.data_stride_row);
    using Scheduler = typename CastScheduler<kConfig.rows_at_once(), kConfig.rows>::Type;
    Scheduler scheduler(args, ceil_div(columns, kConfig.width()), warp, gridDim.x * kWarps);
    CastPiece piece;
    while (scheduler.next_piece(piece)) {
        const uint32_t column =
            piece.column * kConfig.width() + ptx::lane_idx() * kConfig.vector_size();
        const uint32_t num_left = args.columns - min(column, args.columns);
        const bool whole = num_left >= kConfig.vector_size();
        PerTokenCast<kConfig>{.args = args,
                              .piece = piece,
                              .column = column,
                              .num_left = num_left,
                              .whole_input = whole && in_vectors,
                              .whole_output = whole && out_vectors}
            .run();
    }
}

}  // namespace deep_gemm
