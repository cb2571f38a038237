// Cast to FP8 with scale factors that span rows, of a batch of matrices in tiles of 128 x 128:
//
//   sf          = max(1e-4, largest |x| of the block) / 448
//   data[r][c]  = E4M3(x[r][c] * (1 / sf))
//
//   per channel  blocks of 128 rows x 1 column, sf [(batch,) ceil(rows / 128), columns]
//   per block    blocks of 128 x 128, sf [(batch,) ceil(rows / 128), ceil(columns / 128)]
//
//   x     [(batch,) rows, columns], columns side by side; fast if rows begin at multiples of 16
//   data  the same shape, in bytes; fast if rows begin at multiples of what a vector becomes
//
// A CTA casts one tile, which it holds in registers: a thread reads eight vectors of 16 bytes, of
// rows below each other, before it waits for any. Shared memory passes on largest magnitudes and
// scale factors only. The CTAs that fit an SM hold 128 KB; HBM wants about 27 under way.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/cast.cuh"
#include "ptx/cluster.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// deep_gemm/kernels/block_cast.py prints this.
struct BlockCastConfig {
    CastInput input;
    SfFormat sf;
    bool per_channel;

    static constexpr uint32_t kTile = 128;
    static constexpr uint32_t kVectors = 8;  // of a thread

    DG_HOST_DEVICE constexpr uint32_t vector_size() const {
        return input == CastInput::kFp32 ? 4 : 8;
    }
    // Threads beside each other in a row of the tile.
    DG_HOST_DEVICE constexpr uint32_t threads_of_row() const { return kTile / vector_size(); }
    DG_HOST_DEVICE constexpr uint32_t threads() const {
        return kTile * threads_of_row() / kVectors;
    }
    DG_HOST_DEVICE constexpr uint32_t warps() const { return threads() / 32; }
    // Rows that the CTA reads at once.
    DG_HOST_DEVICE constexpr uint32_t rows_at_once() const { return kTile / kVectors; }
};

template <BlockCastConfig kConfig>
struct BlockCastStorage {
    alignas(16) uint32_t amax[kConfig.warps()][kConfig.kTile];  // of a warp, by column
    alignas(16) float inverse[kConfig.kTile];                   // of the scale factor, by column
};

// The tile of one CTA, and what one thread does of it.
template <BlockCastConfig kConfig>
struct BlockCast {
    static constexpr uint32_t kVectors = kConfig.kVectors;
    static constexpr uint32_t kSize = kConfig.vector_size();
    using Vector = CastVector<kConfig.input>;
    using Storage = BlockCastStorage<kConfig>;

    const CastArguments& args;
    Storage& storage;
    uint32_t batch;
    uint32_t row_block;
    uint32_t column_block;

    Vector x[kVectors];
    uint32_t amax[kSize]{};  // by column
    float inverse[kSize];    // of the scale factor, by column

    DG_DEVICE void run() {
        load();
        if constexpr (kConfig.per_channel) {
            find_scale_factors_of_columns();
        } else {
            find_scale_factor();
        }
        store();
    }

  private:
    DG_DEVICE uint32_t row(uint32_t i) const {
        return row_block * kConfig.kTile + i * kConfig.rows_at_once() +
               threadIdx.x / kConfig.threads_of_row();
    }
    DG_DEVICE uint32_t column_in_tile() const {
        return threadIdx.x % kConfig.threads_of_row() * kSize;
    }
    DG_DEVICE uint32_t column() const { return column_block * kConfig.kTile + column_in_tile(); }

    // Columns of the matrix from this thread's first one on.
    DG_DEVICE uint32_t num_left() const { return args.columns - min(column(), args.columns); }

    DG_DEVICE void load() {
        constexpr uint32_t kBytes = Vector::kElementBytes;
        const bool whole =
            num_left() >= kSize &&
            is_multiple<16>(args.x, args.x_stride_batch * kBytes, args.x_stride_row * kBytes);
        const auto* matrix =
            static_cast<const uint8_t*>(args.x) + (batch * args.x_stride_batch + column()) * kBytes;
#pragma unroll
        for (uint32_t i = 0; i < kVectors; ++i) {
            x[i] = {};
            if (row(i) >= args.rows) continue;
            x[i] = load_vector<kConfig.input>(matrix + row(i) * args.x_stride_row * kBytes,
                                              num_left(), whole);
        }
#pragma unroll
        for (uint32_t i = 0; i < kVectors; ++i) {
#pragma unroll
            for (uint32_t j = 0; j < kSize; ++j) amax[j] = max(amax[j], magnitude_bits(x[i][j]));
        }
    }

    // Thread t is in charge of column t of the tile.
    DG_DEVICE void find_scale_factors_of_columns() {
#pragma unroll
        for (uint32_t distance = kConfig.threads_of_row(); distance < 32; distance *= 2) {
#pragma unroll
            for (uint32_t j = 0; j < kSize; ++j) {
                amax[j] = max(amax[j], __shfl_xor_sync(0xffffffff, amax[j], distance));
            }
        }
        uint32_t* of_warp = storage.amax[ptx::warp_idx()] + column_in_tile();
        if (ptx::lane_idx() < kConfig.threads_of_row()) {
#pragma unroll
            for (uint32_t j = 0; j < kSize; j += 4) {
                *reinterpret_cast<uint4*>(of_warp + j) = {amax[j], amax[j + 1], amax[j + 2],
                                                          amax[j + 3]};
            }
        }
        __syncthreads();
        if (threadIdx.x < kConfig.kTile) {
            uint32_t largest = 0;
#pragma unroll
            for (uint32_t warp = 0; warp < kConfig.warps(); ++warp) {
                largest = max(largest, storage.amax[warp][threadIdx.x]);
            }
            const float sf = scale_factor<kConfig.sf>(largest);
            storage.inverse[threadIdx.x] = __frcp_rn(sf);
            const uint32_t column = column_block * kConfig.kTile + threadIdx.x;
            if (column < args.columns) *place_of_sf(column) = sf;
        }
        __syncthreads();
#pragma unroll
        for (uint32_t j = 0; j < kSize; ++j) inverse[j] = storage.inverse[column_in_tile() + j];
    }

    DG_DEVICE void find_scale_factor() {
        uint32_t largest = 0;
#pragma unroll
        for (uint32_t j = 0; j < kSize; ++j) largest = max(largest, amax[j]);
#pragma unroll
        for (uint32_t distance = 1; distance < 32; distance *= 2) {
            largest = max(largest, __shfl_xor_sync(0xffffffff, largest, distance));
        }
        if (ptx::lane_idx() == 0) storage.amax[0][threadIdx.x / 32] = largest;
        __syncthreads();
#pragma unroll
        for (uint32_t warp = 0; warp < kConfig.warps(); ++warp) {
            largest = max(largest, storage.amax[0][warp]);
        }
        const float sf = scale_factor<kConfig.sf>(largest);
        if (threadIdx.x == 0) *place_of_sf(column_block) = sf;
        const float only = __frcp_rn(sf);
#pragma unroll
        for (float& each : inverse) each = only;
    }

    DG_DEVICE float* place_of_sf(uint32_t column) const {
        return static_cast<float*>(args.sf) + batch * args.sf_stride_batch +
               row_block * args.sf_stride_row + column * args.sf_stride_column;
    }

    DG_DEVICE void store() const {
        const bool whole =
            num_left() >= kSize &&
            is_multiple<kSize>(args.data, args.data_stride_batch, args.data_stride_row);
        uint8_t* matrix = args.data + batch * args.data_stride_batch + column();
#pragma unroll
        for (uint32_t i = 0; i < kVectors; ++i) {
            if (row(i) >= args.rows) continue;
            float scaled[kSize];
#pragma unroll
            for (uint32_t j = 0; j < kSize; ++j) scaled[j] = __fmul_rn(x[i][j], inverse[j]);
            uint32_t bytes[kSize / 4];
#pragma unroll
            for (uint32_t j = 0; j < kSize; j += 4) {
                bytes[j / 4] = e4m3x4(scaled + j);
            }
            store_bytes<kSize>(matrix + row(i) * args.data_stride_row, bytes, num_left(), whole);
        }
    }
};

template <BlockCastConfig kConfig>
DG_DEVICE void block_cast(const CastArguments& args) {
    // A GEMM of what comes out may get ready meanwhile.
    ptx::griddepcontrol_launch_dependents();
    extern __shared__ __align__(1024) uint8_t dynamic_smem[];
    auto& storage = *reinterpret_cast<BlockCastStorage<kConfig>*>(dynamic_smem);
    const uint32_t tiles_of_row = ceil_div(args.columns, kConfig.kTile);
    const uint32_t tiles_of_column = ceil_div(args.rows, kConfig.kTile);
    const uint32_t band = blockIdx.x / tiles_of_row;
    BlockCast<kConfig>{args, storage, band / tiles_of_column, band % tiles_of_column,
                       blockIdx.x % tiles_of_row}
        .run();
}

}  // namespace deep_gemm
