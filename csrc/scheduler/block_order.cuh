// The order in which the blocks of one matrix are visited.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"

namespace deep_gemm {

struct GridPosition {
    uint32_t row;
    uint32_t column;
};

// Position `idx` of a grid that is walked in bands of `band` rows, column by column inside a band:
// the blocks in flight at one time then form a compact rectangle of D and share their tiles of A
// and B in L2.
DG_HOST_DEVICE GridPosition block_order(uint32_t idx, uint32_t num_rows, uint32_t num_columns,
                                        uint32_t band) {
    const uint32_t band_size = band * num_columns;
    const uint32_t first_row = idx / band_size * band;
    const uint32_t rows = min(band, num_rows - first_row);
    const uint32_t in_band = idx % band_size;
    return {first_row + in_band % rows, in_band / rows};
}

}  // namespace deep_gemm
