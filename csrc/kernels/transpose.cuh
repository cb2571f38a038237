// Transposition of a batch of matrices: out[b][c][r] = in[b][r][c], elements of 1 or 4 bytes.
//
//   in   [batch, rows, columns], any strides; fast if columns lie side by side and every row starts
//        at a multiple of 16 bytes
//   out  [batch, columns, rows], rows side by side; fast if every column starts at such a multiple
//
// A CTA moves one tile of 128 rows by 128 bytes of columns. Global memory is read and written 16
// bytes a thread and whole 128-byte lines at a time; rows become columns on the way, in registers:
//
//   in --- 4 rows x 16 bytes ---> registers --- 4 rows of each column ---> tile (shared memory)
//   tile --- 16 bytes of a column ---> out
//
// Eight CTAs fit an SM, so that some load while others store. A thread has four loads under way:
// with half of the CTAs loading that is 64 KB an SM, and HBM wants about 27.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// deep_gemm/kernels/transpose.py has the same struct. Strides are in elements.
struct TransposeArguments {
    const void* in;
    void* out;
    int64_t in_stride_batch;
    int64_t in_stride_row;
    int64_t in_stride_column;
    int64_t out_stride_batch;
    int64_t out_stride_column;
    uint32_t rows;
    uint32_t columns;
};

// Shared memory for one tile, stored by columns.
template <int kElementBytes>
struct TransposeTile {
    static_assert(kElementBytes == 1 || kElementBytes == 4);
    static constexpr uint32_t kRows = 128;
    static constexpr uint32_t kColumns = 128 / kElementBytes;
    static constexpr uint32_t kColumnBytes = kRows * kElementBytes;
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kBlockRows = 4;                // of the block that a thread reads,
    static constexpr uint32_t kVector = 16 / kElementBytes;  // and its columns: 16 bytes
    static_assert(kThreads * kBlockRows * kVector == kRows * kColumns);

    alignas(16) uint8_t bytes[kColumns * kColumnBytes];

    // Where an element lies, in bytes. Threads side by side write to columns that are kVector
    // apart: a multiple of 128 bytes, the width of all banks. So the 16-byte chunks of a column are
    // permuted, alike in the columns of one vector and differently in those of the next seven. A
    // chunk stays within its 128 bytes: threads that read one column touch every bank once all the
    // same.
    static DG_HOST_DEVICE constexpr uint32_t offset(uint32_t row, uint32_t column) {
        return (column * kColumnBytes + row * kElementBytes) ^ (column / kVector % 8 * 16);
    }

    DG_DEVICE uint8_t* at(uint32_t row, uint32_t column) { return bytes + offset(row, column); }
};

template <int kElementBytes>
struct UnsignedOf {
    using Type = uint32_t;
};
template <>
struct UnsignedOf<1> {
    using Type = uint8_t;
};

// Four rows of four bytes, one in each word -> four columns.
DG_DEVICE void transpose_bytes(uint32_t (&words)[4]) {
    // Each is the columns (0, 1) or (2, 3) of two rows, a row's byte beside the other's.
    const uint32_t upper01 = __byte_perm(words[0], words[1], 0x5140);
    const uint32_t upper23 = __byte_perm(words[0], words[1], 0x7362);
    const uint32_t lower01 = __byte_perm(words[2], words[3], 0x5140);
    const uint32_t lower23 = __byte_perm(words[2], words[3], 0x7362);
    words[0] = __byte_perm(upper01, lower01, 0x5410);
    words[1] = __byte_perm(upper01, lower01, 0x7632);
    words[2] = __byte_perm(upper23, lower23, 0x5410);
    words[3] = __byte_perm(upper23, lower23, 0x7632);
}

// Writes one word of each of four rows to the tile: one column of 4 bytes, or four of a byte each.
template <int kElementBytes>
DG_DEVICE void write_words(uint8_t* place, uint32_t row0, uint32_t row1, uint32_t row2,
                           uint32_t row3) {
    if constexpr (kElementBytes == 4) {
        *reinterpret_cast<uint4*>(place) = {row0, row1, row2, row3};
    } else {
        uint32_t words[4] = {row0, row1, row2, row3};
        transpose_bytes(words);
#pragma unroll
        for (uint32_t i = 0; i < 4; ++i) {
            constexpr uint32_t kColumnBytes = TransposeTile<kElementBytes>::kColumnBytes;
            *reinterpret_cast<uint32_t*>(place + i * kColumnBytes) = words[i];
        }
    }
}

// Reads this thread's block of the tile: element by element at an edge of the matrix, or if asked.
//   in                     the tile's first element
//   num_rows, num_columns  from there to the end of the matrix
template <int kElementBytes, typename Element>
DG_DEVICE void load_tile(TransposeTile<kElementBytes>& tile, const Element* in,
                         const TransposeArguments& args, uint32_t num_rows, uint32_t num_columns,
                         bool in_vectors) {
    using Tile = TransposeTile<kElementBytes>;
    const uint32_t row = threadIdx.x / 8 * Tile::kBlockRows;
    const uint32_t column = threadIdx.x % 8 * Tile::kVector;
    const Element* source = in + row * args.in_stride_row + column * args.in_stride_column;

    if (in_vectors && row + Tile::kBlockRows <= num_rows && column + Tile::kVector <= num_columns) {
        constexpr uint32_t kWordBytes = 4 / kElementBytes * Tile::kColumnBytes;
        uint8_t* place = tile.at(row, column);
        uint4 rows[Tile::kBlockRows];
#pragma unroll
        for (uint32_t i = 0; i < Tile::kBlockRows; ++i) {
            rows[i] = *reinterpret_cast<const uint4*>(source + i * args.in_stride_row);
        }
        const auto& [r0, r1, r2, r3] = rows;
        write_words<kElementBytes>(place, r0.x, r1.x, r2.x, r3.x);
        write_words<kElementBytes>(place + kWordBytes, r0.y, r1.y, r2.y, r3.y);
        write_words<kElementBytes>(place + 2 * kWordBytes, r0.z, r1.z, r2.z, r3.z);
        write_words<kElementBytes>(place + 3 * kWordBytes, r0.w, r1.w, r2.w, r3.w);
        return;
    }
    for (uint32_t j = 0; j < Tile::kVector && column + j < num_columns; ++j) {
#pragma unroll
        for (uint32_t i = 0; i < Tile::kBlockRows; ++i) {
            if (row + i >= num_rows) continue;
            *reinterpret_cast<Element*>(tile.at(row + i, column + j)) =
                source[i * args.in_stride_row + j * args.in_stride_column];
        }
    }
}

// Writes the tile to out, from the place of its first element on; threads side by side write one
// column.
template <int kElementBytes, typename Element>
DG_DEVICE void store_tile(TransposeTile<kElementBytes>& tile, Element* out,
                          const TransposeArguments& args, uint32_t num_rows, uint32_t num_columns,
                          bool in_vectors) {
    using Tile = TransposeTile<kElementBytes>;
    constexpr uint32_t kVectorsOfColumn = Tile::kRows / Tile::kVector;
    constexpr uint32_t kColumnsAtOnce = Tile::kThreads / kVectorsOfColumn;
    const uint32_t row = threadIdx.x % kVectorsOfColumn * Tile::kVector;
    const uint32_t first_column = threadIdx.x / kVectorsOfColumn;
    const uint32_t end_column = min(num_columns, Tile::kColumns);

    if (in_vectors && row + Tile::kVector <= num_rows) {
#pragma unroll
        for (uint32_t i = 0; i < Tile::kColumns; i += kColumnsAtOnce) {
            const uint32_t column = first_column + i;
            if (column >= end_column) continue;
            *reinterpret_cast<uint4*>(out + column * args.out_stride_column + row) =
                *reinterpret_cast<const uint4*>(tile.at(row, column));
        }
        return;
    }
    const uint32_t end_row = min(num_rows, row + Tile::kVector);
    for (uint32_t column = first_column; column < end_column; column += kColumnsAtOnce) {
        for (uint32_t i = row; i < end_row; ++i) {
            out[column * args.out_stride_column + i] =
                *reinterpret_cast<const Element*>(tile.at(i, column));
        }
    }
}

// Whether an address, and all that lie at these strides from it, are multiples of 16 bytes.
template <int kElementBytes>
DG_DEVICE bool is_aligned(const void* address, int64_t stride, int64_t other_stride) {
    const uint64_t strides = static_cast<uint64_t>((stride | other_stride) * kElementBytes);
    return (reinterpret_cast<uint64_t>(address) | strides) % 16 == 0;
}

template <int kElementBytes>
DG_DEVICE void transpose(const TransposeArguments& args) {
    // A GEMM of what comes out may get ready meanwhile.
    ptx::griddepcontrol_launch_dependents();
    using Tile = TransposeTile<kElementBytes>;
    using Element = typename UnsignedOf<kElementBytes>::Type;
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& tile = *reinterpret_cast<Tile*>(dynamic_smem);

    // Tiles side by side along a row of in are neighbours in time.
    const uint32_t tiles_along_row = ceil_div(args.columns, Tile::kColumns);
    const uint32_t tiles_along_column = ceil_div(args.rows, Tile::kRows);
    const uint32_t band = blockIdx.x / tiles_along_row;
    const int64_t column = blockIdx.x % tiles_along_row * Tile::kColumns;
    const int64_t row = band % tiles_along_column * Tile::kRows;
    const int64_t batch = band / tiles_along_column;
    const auto* in = static_cast<const Element*>(args.in) + batch * args.in_stride_batch +
                     row * args.in_stride_row + column * args.in_stride_column;
    auto* out = static_cast<Element*>(args.out) + batch * args.out_stride_batch +
                column * args.out_stride_column + row;

    const bool in_vectors =
        args.in_stride_column == 1 &&
        is_aligned<kElementBytes>(args.in, args.in_stride_batch, args.in_stride_row);
    const bool out_vectors =
        is_aligned<kElementBytes>(args.out, args.out_stride_batch, args.out_stride_column);
    load_tile(tile, in, args, args.rows - row, args.columns - column, in_vectors);
    __syncthreads();
    store_tile(tile, out, args, args.rows - row, args.columns - column, out_vectors);
}

}  // namespace deep_gemm
