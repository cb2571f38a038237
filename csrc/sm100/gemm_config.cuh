// Sm100GemmConfig: everything about an SM100 FP8 kernel that is fixed when it is compiled. Python
// chooses it; it is the kernel's only template argument, as GemmConfig is on SM90.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "config.cuh"

namespace deep_gemm {

struct Sm100GemmConfig {
    int block_n;     // columns of D per CTA, a multiple of 16 up to 256
    int num_stages;  // slots of the shared-memory ring of tiles
    Grouping grouping;
    bool a_is_mn_major;  // whether A lies with M contiguous, not K
    bool b_is_mn_major;
    int gran_k_a;  // elements along K per scale factor of A: 32 or 128
    int gran_k_b;
    int d_bytes;    // bytes of an element of D: 2 for BF16, 4 for FP32
    int cluster_m;  // CTAs that share each MMA: 1; or 2, one above the other, a pair

    static constexpr int kBlockK = 128;  // bytes of K per stage
    static constexpr int kMmaM = 128;    // rows of an MMA that are one CTA's
    static constexpr int kMmaK = 32;     // K of one FP8 MMA
    static constexpr int kWarpgroup = 128;
    static constexpr int kSfChunk = 128;  // rows whose scale factors one copy brings into TMEM
    static constexpr int kSfColumns = 4;  // columns of TMEM that such a chunk takes
    static constexpr int kSfWordK = 4;    // scale factors per word
    static constexpr int kSlabs = 2;      // slabs of D that are staged
    static constexpr int kTmemColumns = 512;
    static constexpr int kNumThreads = 256;

    static constexpr int block_m = kMmaM;
    static constexpr int cluster_n = 1;
    static constexpr int cluster_k = 1;

    DG_HOST_DEVICE constexpr int cluster_size() const { return cluster_m; }
    DG_HOST_DEVICE constexpr int multicast_size() const { return cluster_m; }
    DG_HOST_DEVICE constexpr bool shares_mmas() const { return cluster_m > 1; }

    // Warps that take blocks from the ring of a grouped product.
    DG_HOST_DEVICE constexpr int num_block_readers() const { return 3 + kWarpgroup / 32; }

    // K blocks whose scale factors are loaded together: those of one word, if that spans several.
    DG_HOST_DEVICE constexpr int sf_group() const {
        return gran_k_a == kBlockK && gran_k_b == kBlockK ? kSfWordK : 1;
    }
    // Slots of the ring of scale factors, in shared memory and in TMEM: as far ahead as the tiles.
    DG_HOST_DEVICE constexpr int num_sf_groups() const {
        return ceil_div(num_stages, sf_group()) + 2;
    }
    DG_HOST_DEVICE constexpr int sfb_chunks() const { return ceil_div(block_n, kSfChunk); }
    DG_HOST_DEVICE constexpr int sf_columns() const { return (1 + sfb_chunks()) * kSfColumns; }

    // Accumulators in TMEM: two, where they fit, let the epilogue of one block run under the main
    // loop of the next.
    DG_HOST_DEVICE constexpr int num_accumulators() const {
        return 2 * block_n + num_sf_groups() * sf_columns() <= kTmemColumns ? 2 : 1;
    }
    // Columns that the kernel takes: a power of two.
    DG_HOST_DEVICE constexpr int tmem_columns() const {
        const int used = num_accumulators() * block_n + num_sf_groups() * sf_columns();
        int columns = 32;
        while (columns < used) columns *= 2;
        return columns;
    }

    DG_HOST_DEVICE constexpr int a_tile_bytes() const { return block_m * kBlockK; }
    // Rows of B that are multiplied out of this CTA's shared memory: a pair has half of them each.
    DG_HOST_DEVICE constexpr int b_part() const { return block_n / cluster_m; }
    // Those that are loaded: MN-major tiles come 128 columns at a time.
    DG_HOST_DEVICE constexpr int b_rows() const {
        return b_is_mn_major ? align(b_part(), 128) : b_part();
    }
    DG_HOST_DEVICE constexpr int b_tile_bytes() const { return b_rows() * kBlockK; }
    // What all CTAs that share an MMA load for a stage.
    DG_HOST_DEVICE constexpr int stage_tx_bytes() const {
        return cluster_m * (a_tile_bytes() + b_tile_bytes());
    }

    // Swizzle, and row width, of one slab of D in shared memory: the widest that divides a row.
    DG_HOST_DEVICE constexpr int d_swizzle_bytes() const {
        const int row = block_n * d_bytes;
        return row % 128 == 0 ? 128 : row % 64 == 0 ? 64 : 32;
    }
};

}  // namespace deep_gemm
