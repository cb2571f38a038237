// Where D has columns between its heads' that are not written.
#pragma once

#include "common/types.cuh"
#include "kernels/arguments.cuh"

namespace deep_gemm {

// Where a slab that begins at a column of the product lies in D. It never reaches over the end of a
// run of columns.
DG_DEVICE uint32_t column_in_d(uint32_t column, const GemmArguments& args) {
    if (args.head_mid == 0) return column;
    const uint32_t head = column / (args.head_left + args.head_right);
    const bool is_right = column % (args.head_left + args.head_right) >= args.head_left;
    return column + args.head_mid * (head + is_right);
}

}  // namespace deep_gemm
