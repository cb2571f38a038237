// Which rows, and which part of them, a warp casts next: every num_warps-th piece of work, of which
// there may be one. A piece is a few rows below each other and a warp's width of columns;
// pieces beside each other are neighbours in time.
//
// Rows that are not to be cast are no work: those of groups are never counted, and of ids a warp
// looks at the next 32 pieces at once, each lane at one.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/cast.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

struct CastPiece {
    uint32_t group;   // the matrix
    uint32_t row;     // the first one
    uint32_t valid;   // as bits, those of the rows from there on that are to be cast
    uint32_t column;  // in widths of a warp
};

// The first `count` bits.
template <int kRowsAtOnce>
DG_DEVICE uint32_t first_rows(uint32_t count) {
    return (1u << min<uint32_t>(count, kRowsAtOnce)) - 1;
}

template <int kRowsAtOnce>
struct AllRows {
    const CastArguments& args;
    uint32_t num_columns;
    uint32_t num_warps;
    uint32_t next;

    DG_DEVICE AllRows(const CastArguments& args, uint32_t num_columns, uint32_t warp,
                      uint32_t num_warps)
        : args(args), num_columns(num_columns), num_warps(num_warps), next(warp) {}

    DG_DEVICE bool next_piece(CastPiece& piece) {
        const uint32_t row = next / num_columns * kRowsAtOnce;
        if (row >= args.rows) return false;
        piece = {0, row, first_rows<kRowsAtOnce>(args.rows - row), next % num_columns};
        next += num_warps;
        return true;
    }
};

// Rows of groups whose sizes or ends are known.
template <int kRowsAtOnce, CastRows kRows>
struct GroupedRows {
    const CastArguments& args;
    uint32_t num_columns;
    uint32_t num_warps;
    uint32_t next;
    uint32_t first_group = 0;  // of the 32 that the lanes look at
    uint32_t first_piece = 0;  // pieces of the groups before them
    uint32_t first_row;        // of this lane's group
    uint32_t num_rows;
    uint32_t pieces_up_to;  // of the lanes' groups up to this one's

    DG_DEVICE GroupedRows(const CastArguments& args, uint32_t num_columns, uint32_t warp,
                          uint32_t num_warps)
        : args(args), num_columns(num_columns), num_warps(num_warps), next(warp) {
        look_at_groups();
    }

    DG_DEVICE bool next_piece(CastPiece& piece) {
        uint32_t ahead;  // groups that the next piece comes before the end of
        while ((ahead = __ballot_sync(0xffffffff, next < first_piece + pieces_up_to)) == 0) {
            first_piece += __shfl_sync(0xffffffff, pieces_up_to, 31);
            first_group += 32;
            if (first_group >= args.num_groups) return false;
            look_at_groups();
        }
        const uint32_t lane = ptx::find_first_set(ahead);
        const uint32_t begin = __shfl_sync(0xffffffff, pieces_up_to - num_pieces(), lane);
        const uint32_t idx = next - first_piece - begin;
        const uint32_t row = idx / num_columns * kRowsAtOnce;
        const uint32_t rows_left = __shfl_sync(0xffffffff, num_rows, lane) - row;
        piece = {kRows == CastRows::kCounts ? first_group + lane : 0,
                 __shfl_sync(0xffffffff, first_row, lane) + row, first_rows<kRowsAtOnce>(rows_left),
                 idx % num_columns};
        next += num_warps;
        return true;
    }

  private:
    DG_DEVICE uint32_t num_pieces() const {
        return ceil_div<uint32_t>(num_rows, kRowsAtOnce) * num_columns;
    }

    // A number of the grouped layout, as one of rows that there are.
    DG_DEVICE uint32_t clamped_rows(uint32_t group) const {
        return min<uint32_t>(max(args.grouped_layout[group], 0), args.rows);
    }

    DG_DEVICE void look_at_groups() {
        const uint32_t group = first_group + ptx::lane_idx();
        first_row = num_rows = 0;
        if (group < args.num_groups) {
            num_rows = clamped_rows(group);
            if constexpr (kRows == CastRows::kEnds) {
                const uint32_t before = group == 0 ? 0 : clamped_rows(group - 1);
                first_row = align(before, args.alignment);
                num_rows -= min(num_rows, first_row);
            }
        }
        pieces_up_to = num_pieces();
#pragma unroll
        for (int distance = 1; distance < 32; distance *= 2) {
            const uint32_t other = __shfl_up_sync(0xffffffff, pieces_up_to, distance);
            if (ptx::lane_idx() >= distance) pieces_up_to += other;
        }
    }
};

// Rows that have an id.
template <int kRowsAtOnce>
struct IdentifiedRows {
    const CastArguments& args;
    uint32_t num_columns;
    uint32_t num_warps;
    uint32_t mine;       // the piece that this lane looks at
    uint32_t valid;      // its rows
    uint32_t ahead = 0;  // lanes whose pieces have rows, and are not handed out

    DG_DEVICE IdentifiedRows(const CastArguments& args, uint32_t num_columns, uint32_t warp,
                             uint32_t num_warps)
        : args(args),
          num_columns(num_columns),
          num_warps(num_warps),
          mine(warp + ptx::lane_idx() * num_warps) {
        look_at_rows();
    }

    DG_DEVICE bool next_piece(CastPiece& piece) {
        while (ahead == 0) {
            mine += 32 * num_warps;
            if (ptx::uniform(first_row()) >= args.rows) return false;
            look_at_rows();
        }
        const uint32_t lane = ptx::find_first_set(ahead);
        ahead &= ahead - 1;
        const uint32_t idx = __shfl_sync(0xffffffff, mine, lane);
        piece = {0, idx / num_columns * kRowsAtOnce, __shfl_sync(0xffffffff, valid, lane),
                 idx % num_columns};
        return true;
    }

  private:
    DG_DEVICE uint32_t first_row() const { return mine / num_columns * kRowsAtOnce; }

    DG_DEVICE void look_at_rows() {
        valid = 0;
#pragma unroll
        for (uint32_t i = 0; i < kRowsAtOnce; ++i) {
            const uint32_t row = first_row() + i;
            if (row < args.rows && args.grouped_layout[row] >= 0) valid |= 1u << i;
        }
        ahead = __ballot_sync(0xffffffff, valid != 0);
    }
};

template <int kRowsAtOnce, CastRows kRows>
struct CastScheduler {
    using Type = GroupedRows<kRowsAtOnce, kRows>;
};
template <int kRowsAtOnce>
struct CastScheduler<kRowsAtOnce, CastRows::kAll> {
    using Type = AllRows<kRowsAtOnce>;
};
template <int kRowsAtOnce>
struct CastScheduler<kRowsAtOnce, CastRows::kIds> {
    using Type = IdentifiedRows<kRowsAtOnce>;
};

}  // namespace deep_gemm
