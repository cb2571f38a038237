// GemmConfig: everything about a kernel that is fixed when it is compiled, in one value.
//
// Python chooses it (deep_gemm/config/) and prints it as a designated initialiser; it is the only
// template argument of a kernel. The derived sizes below exist in Python too, and the generated
// source asserts that both agree.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"

namespace deep_gemm {

// What a problem consists of; it decides who hands out the blocks (scheduler/).
enum class Grouping : int {
    kDense,     // one matrix product
    kMGrouped,  // many, each with its own B; A and D hold their rows
    kKGrouped,  // many, each with its own stretch of K, and its own D
};

struct GemmConfig {
    int block_m;              // rows of D per CTA: 16, 32, or a multiple of 64 per math warpgroup
    int block_n;              // columns of D per CTA, a multiple of 16
    int num_stages;           // slots of the shared-memory ring
    int num_math_warpgroups;  // 1 or 2, side by side along M
    int cluster_m;            // CTAs of a cluster along M: they share each tile of B by multicast
    int cluster_n;            // CTAs of a cluster along N: they share each tile of A by multicast
    int cluster_k;            // CTAs of a cluster along K: each sums a part of it for all columns
    int num_store_rounds;     // equal parts in which D passes through its staging memory
    Grouping grouping;
    int gran_n;   // rows of B per scale factor: 128 (1D2D scaling) or 1 (1D1D)
    int d_bytes;  // bytes of an element of D: 2 for BF16, 4 for FP32

    static constexpr int kBlockK = 128;  // bytes of K per stage: one 128-byte swizzle row, one SF
    static constexpr int kMmaM = 64;     // rows of one WGMMA
    static constexpr int kGranN = 128;   // rows of B per scale factor in 1D2D scaling
    static constexpr int kSfGroup = 4;   // k blocks whose scale factors are loaded together
    static constexpr int kWarpgroup = 128;
    static constexpr int kBlockSlots = 4;  // blocks that a grouped scheduler may be ahead

    // Rows that the math warpgroups multiply: a WGMMA has 64 of them even if the block has fewer.
    DG_HOST_DEVICE constexpr int mma_rows() const { return max(block_m, kMmaM); }
    // M64 slices that one math warpgroup computes one after the other.
    DG_HOST_DEVICE constexpr int num_waves() const {
        return mma_rows() / (kMmaM * num_math_warpgroups);
    }
    // Partial sums per math warpgroup: two let the tensor cores work on one k block while the
    // previous one is promoted. A second warpgroup does as much for them.
    DG_HOST_DEVICE constexpr int num_accumulators() const {
        const bool overlaps = num_math_warpgroups == 1 && num_waves() == 1;
        return overlaps && block_n <= (is_1d1d() ? 96 : 144) ? 2 : 1;
    }
    DG_HOST_DEVICE constexpr bool is_1d1d() const { return gran_n == 1; }
    DG_HOST_DEVICE constexpr int cluster_size() const { return cluster_m * cluster_n * cluster_k; }
    // Whether the CTAs of a cluster share MMAs, and so can't help but share B: pairs of SM100.
    DG_HOST_DEVICE constexpr bool shares_mmas() const { return false; }
    // CTAs that a tile may be multicast to.
    DG_HOST_DEVICE constexpr int multicast_size() const { return cluster_m * cluster_n; }
    // Columns of D that a CTA stores: of a block whose K is split, its share.
    DG_HOST_DEVICE constexpr int d_columns() const { return block_n / cluster_k; }
    DG_HOST_DEVICE constexpr int num_threads() const {
        return kWarpgroup * (num_math_warpgroups + 1);
    }

    // Warps that take blocks from the ring of a grouped product: the math warps, the one that loads
    // tiles, the one that loads scale factors, and the one that stores.
    DG_HOST_DEVICE constexpr int num_block_readers() const { return num_math_warpgroups * 4 + 3; }
    // Warps that store D: what is left of the load warpgroup, but no more than math warpgroups.
    DG_HOST_DEVICE constexpr int num_store_warps() const {
        return grouping == Grouping::kDense ? num_math_warpgroups : 1;
    }

    DG_HOST_DEVICE constexpr int a_tile_bytes() const { return mma_rows() * kBlockK; }
    DG_HOST_DEVICE constexpr int b_tile_bytes() const { return block_n * kBlockK; }
    // What the TMA loads of one stage bring, summed over the peers that multicast into this CTA.
    DG_HOST_DEVICE constexpr int stage_tx_bytes() const { return (block_m + block_n) * kBlockK; }

    // Slots of the scale-factor ring: as far ahead as the tiles', and one group more.
    DG_HOST_DEVICE constexpr int num_sf_groups() const {
        return ceil_div(num_stages, kSfGroup) + 1;
    }

    // A block of columns starts at any multiple of `sf_segment`, the widest run of columns that
    // surely lies under one scale factor of B.
    DG_HOST_DEVICE constexpr int sf_segment() const { return gcd(block_n, kGranN); }
    // Scale factors of B along N that one block can touch.
    DG_HOST_DEVICE constexpr int num_sfb() const {
        return ceil_div(kGranN - sf_segment() + block_n, kGranN);
    }

    // Scale factors of B in one group: kSfGroup for each column, or for each num_sfb() of them.
    DG_HOST_DEVICE constexpr int sfb_group() const {
        return kSfGroup * (is_1d1d() ? block_n : num_sfb());
    }

    // Whether a math thread with one partial sum reads the scale factors of a group together. What
    // 1D1D needs, or a width that the scale factors of B cut into many segments, is too much.
    DG_HOST_DEVICE constexpr bool reads_sf_groups() const { return !is_1d1d() && num_sfb() <= 2; }

    // Swizzle, and row width, of one slab of D in shared memory: the widest that divides a row.
    DG_HOST_DEVICE constexpr int d_swizzle_bytes() const {
        const int row = d_columns() * d_bytes;
        return row % 128 == 0 ? 128 : row % 64 == 0 ? 64 : 32;
    }
    // Slabs of 64 rows that one math warpgroup stages and stores in one round.
    DG_HOST_DEVICE constexpr int slabs_per_round() const {
        return num_waves() * (d_bytes * d_columns() / d_swizzle_bytes()) / num_store_rounds;
    }
};

}  // namespace deep_gemm
