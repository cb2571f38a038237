// What every scheduler hands out.
#pragma once

#include "common/types.cuh"

namespace deep_gemm {

// One block of D: where it lies, in elements, and what it is made of. It may hang over the edge of
// D: TMA then loads zeros and stores nothing there.
struct BlockCoordinates {
    uint32_t m = 0;
    uint32_t n = 0;
    uint32_t a_batch = 0;  // which matrix of A and SFA, of B and SFB, of D
    uint32_t b_batch = 0;
    uint32_t d_batch = 0;
    // In the scale factors, which all groups of a k-grouped product share; see KGroup.
    uint32_t first_k_block = 0;
    uint32_t num_k_blocks = 0;  // 0: the product is zero
    // Rows of the block, from its first one, that hold a product, and that are written; those from
    // valid_rows to stored_rows are padding and become zero.
    uint32_t valid_rows = 0;
    uint32_t stored_rows = 0;
    // Whether the CTAs of the cluster that may share B (cluster_m of them) have the same tile of
    // it.
    uint32_t shares_b = 1;
};

}  // namespace deep_gemm
