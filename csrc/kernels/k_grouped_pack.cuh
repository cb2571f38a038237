// Packed UE8M0 scale factors of a k-grouped GEMM: groups lie one behind the other along K, and each
// begins with a new word.
//
//   sf   [sum(ceil(k_i / gran_k)), mn] FP32; fast with MN contiguous and rows that start at
//        multiples of 16 bytes
//   out  [sum(ceil(k_i / gran_k / 4)), mn] words, contiguous; fast if mn is a multiple of 4; rows
//        behind those of the last group become zero
//
// Where a group begins depends on the sizes of those before it, which are in global memory: each
// warp adds them up for itself. With 128 groups that is four loads, five rounds of shuffles and a
// look at four groups, while other warps are waiting for their scale factors.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/pack_ue8m0.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// deep_gemm/kernels/pack_ue8m0.py has the same struct. Strides are in words.
struct alignas(64) KGroupedPackArguments {
    const uint32_t* sf;
    uint32_t* out;
    const int32_t* grouped_layout;  // [num_groups]: k_i; or, has_ends, each group's end along K
    uint32_t* report;               // where the host looks for a wrong value; null: nobody does
    int64_t sf_stride_k;
    int64_t sf_stride_mn;
    uint32_t num_groups;
    uint32_t gran_k;
    uint32_t alignment;  // of the places along K where groups begin, if they have ends
    uint32_t mn;
    uint32_t num_rows;  // of sf
    bool has_ends;
};

// A stretch of rows of sf.
struct SfRows {
    uint32_t first;
    uint32_t count;

    DG_DEVICE uint32_t num_words() const { return ceil_div(count, PackBlock::kSize); }
};

// A group's rows, of those that there are. Where groups have sizes, the first is not known yet: 0.
DG_DEVICE SfRows rows_of_group(const KGroupedPackArguments& args, uint32_t group) {
    uint32_t begin = 0;
    if (args.has_ends && group > 0) {
        begin = align<uint32_t>(max(args.grouped_layout[group - 1], 0), args.alignment);
    }
    const uint32_t end = max<uint32_t>(max(args.grouped_layout[group], 0), begin);
    const uint32_t first = min(begin / args.gran_k, args.num_rows);
    return {first, min(ceil_div(end - begin, args.gran_k), args.num_rows - first)};
}

// This lane's value and those of the lanes below it.
DG_DEVICE uint32_t sum_up_to_lane(uint32_t value) {
#pragma unroll
    for (uint32_t distance = 1; distance < 32; distance *= 2) {
        const uint32_t below = __shfl_up_sync(0xffffffff, value, distance);
        if (ptx::lane_idx() >= distance) value += below;
    }
    return value;
}

// The rows of sf, up to four, that make row `word` of out; none behind the last group. To be called
// by a whole warp: each lane adds up a stretch of groups, and then all look at the one that counts.
DG_DEVICE SfRows rows_of_word(const KGroupedPackArguments& args, uint32_t word) {
    const uint32_t groups_of_lane = ceil_div(args.num_groups, 32u);
    const uint32_t first_group = ptx::lane_idx() * groups_of_lane;
    const uint32_t end_group = min(first_group + groups_of_lane, args.num_groups);
    uint32_t rows = 0, words = 0;
#pragma unroll 4
    for (uint32_t group = first_group; group < end_group; ++group) {
        const SfRows of_group = rows_of_group(args, group);
        rows += of_group.count;
        words += of_group.num_words();
    }
    const uint32_t rows_before = sum_up_to_lane(rows) - rows;
    const uint32_t words_before = sum_up_to_lane(words) - words;
    const uint32_t ahead = __ballot_sync(0xffffffff, words_before + words > word);
    if (ahead == 0) return {0, 0};

    const uint32_t lane = ptx::find_first_set(ahead);
    uint32_t first_row = __shfl_sync(0xffffffff, rows_before, lane);
    uint32_t first_word = __shfl_sync(0xffffffff, words_before, lane);
    for (uint32_t group = lane * groups_of_lane;; ++group) {
        const SfRows of_group = rows_of_group(args, group);
        if (word < first_word + of_group.num_words()) {
            const uint32_t skipped = (word - first_word) * PackBlock::kSize;
            const uint32_t first = args.has_ends ? of_group.first : first_row;
            return {first + skipped, min(of_group.count - skipped, PackBlock::kSize)};
        }
        first_row += of_group.count;
        first_word += of_group.num_words();
    }
}

// A CTA packs 1024 columns of one row of out.
DG_DEVICE void k_grouped_pack_fp32_into_ue8m0(const KGroupedPackArguments& args) {
    constexpr uint32_t kColumns = PackBlock::kThreads * PackBlock::kSize;
    const uint32_t ctas_of_row = ceil_div(args.mn, kColumns);
    const uint32_t word = blockIdx.x / ctas_of_row;
    const uint32_t column = blockIdx.x % ctas_of_row * kColumns + threadIdx.x * PackBlock::kSize;
    const SfRows rows = rows_of_word(args, word);
    if (column >= args.mn) return;

    const uint32_t* sf = args.sf + rows.first * args.sf_stride_k + column * args.sf_stride_mn;
    SfBlock block;
    block.stride_k = args.sf_stride_k;
    block.num_mn = args.mn - column;
    // Sizes that add up to more than there is are cut off.
    block.num_k = min(rows.count, args.num_rows - min(rows.first, args.num_rows));
#pragma unroll
    for (uint32_t i = 0; i < PackBlock::kSize; ++i) block.rows[i] = sf + i * args.sf_stride_mn;
    const bool in_vectors =
        args.sf_stride_mn == 1 && words_are_aligned(args.sf, args.sf_stride_k, 0);
    const uint4 words = pack_block(block, in_vectors ? VectorsAlong::kMn : VectorsAlong::kNone);
    uint32_t* out = args.out + static_cast<int64_t>(word) * args.mn + column;
    store_words(out, words, block.num_mn, args.mn % PackBlock::kSize == 0);
    if (args.report != nullptr && has_nan(words)) {
        report_wrong_value(
            args.report, block.num_mn, block.num_k,
            [&](uint32_t i, uint32_t j) {
                return sf[i * args.sf_stride_mn + j * args.sf_stride_k];
            },
            [](uint32_t) { return true; });
    }
}

}  // namespace deep_gemm
