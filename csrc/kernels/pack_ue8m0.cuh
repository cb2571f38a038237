// Scale factors from FP32 to packed UE8M0, the form that SM100's tensor cores take: four exponents
// along K to a word, k % 4 == 0 in its low byte, zeros behind the end of K.
//
//   sf   [batch, ceil(mn / gran_mn), k] FP32, any strides; fast if K or, without a broadcast, MN is
//        contiguous and everything else starts at multiples of 16 bytes
//   out  [batch, mn, ceil(k / 4)] words, MN contiguous; fast if every column starts at such a
//        multiple
//
// A thread packs a block of 4 mn by 4 k: 64 bytes read, 16 written, and four rows of K become one
// stretch of MN in its registers. No thread needs another's values, so there is no shared memory.
// Eight threads side by side write 128 bytes of a column. Such eights walk along K first, and from
// the end of one band of 32 rows right into the next: no lane idles however few columns there are.
//
// What UE8M0 does not have becomes its NaN, and the host is told one such value. Rows of a grouped
// product that belong to no group may hold anything: nobody is told of them.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "kernels/arguments.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// deep_gemm/kernels/pack_ue8m0.py has the same struct. Strides are in words.
struct alignas(64) PackArguments {
    const uint32_t* sf;
    uint32_t* out;
    int64_t sf_stride_batch;
    int64_t sf_stride_mn;
    int64_t sf_stride_k;
    int64_t out_stride_batch;
    int64_t out_stride_k;
    uint32_t* report;               // where the host looks for a wrong value; null: nobody does
    const int32_t* grouped_layout;  // which rows belong to a group; null: all do
    GroupedLayout layout;
    uint32_t num_groups;
    uint32_t alignment;  // of the rows at which groups begin
    uint32_t mn;
    uint32_t k;
    uint32_t gran_mn;      // rows of out that share a row of sf
    uint32_t num_columns;  // of bands, in all matrices
};

// What the threads of a CTA pack.
struct PackBlock {
    static constexpr uint32_t kThreads = 256;
    static constexpr uint32_t kSize = 4;  // along MN and along K
    static constexpr uint32_t kBlocksOfBand = 8;
    static constexpr uint32_t kBandRows = kBlocksOfBand * kSize;
};

// Along which dimension four scale factors can be read at once.
enum class VectorsAlong : uint32_t { kNone, kMn, kK };

// A block of sf, as [mn][k], and how much of it there is.
struct SfBlock {
    const uint32_t* rows[PackBlock::kSize];  // where each row begins
    int64_t stride_k;
    uint32_t num_mn;
    uint32_t num_k;
};

// A scale factor's exponent, in the highest byte. What UE8M0 does not have, negative numbers and
// those between powers of two, becomes its NaN: a wrong scale factor must not pass for a right one.
DG_DEVICE uint32_t exponent_on_top(uint32_t bits) {
    return bits & 0x807fffff ? 0xff000000 : bits << 1;
}

DG_DEVICE uint32_t pack_exponents(uint32_t k0, uint32_t k1, uint32_t k2, uint32_t k3) {
    const uint32_t low = __byte_perm(exponent_on_top(k0), exponent_on_top(k1), 0x0073);
    const uint32_t high = __byte_perm(exponent_on_top(k2), exponent_on_top(k3), 0x0073);
    return __byte_perm(low, high, 0x5410);
}

// Packs a block of which four along one dimension are read at once; along the other there may be
// fewer.
template <bool kAlongK>
DG_DEVICE uint4 pack_vectors(const SfBlock& block) {
    const uint32_t num_vectors = kAlongK ? block.num_mn : block.num_k;
    uint4 v[PackBlock::kSize];
#pragma unroll
    for (uint32_t i = 0; i < PackBlock::kSize; ++i) {
        const uint32_t* place = kAlongK ? block.rows[i] : block.rows[0] + i * block.stride_k;
        v[i] = {0, 0, 0, 0};
        if (i < num_vectors) v[i] = *reinterpret_cast<const uint4*>(place);
    }
    if constexpr (kAlongK) {
        return {pack_exponents(v[0].x, v[0].y, v[0].z, v[0].w),
                pack_exponents(v[1].x, v[1].y, v[1].z, v[1].w),
                pack_exponents(v[2].x, v[2].y, v[2].z, v[2].w),
                pack_exponents(v[3].x, v[3].y, v[3].z, v[3].w)};
    } else {
        return {pack_exponents(v[0].x, v[1].x, v[2].x, v[3].x),
                pack_exponents(v[0].y, v[1].y, v[2].y, v[3].y),
                pack_exponents(v[0].z, v[1].z, v[2].z, v[3].z),
                pack_exponents(v[0].w, v[1].w, v[2].w, v[3].w)};
    }
}

// Packs a block word by word: one at an edge, or whose words lie apart.
DG_DEVICE uint4 pack_words(const SfBlock& block) {
    uint32_t words[PackBlock::kSize];
#pragma unroll
    for (uint32_t i = 0; i < PackBlock::kSize; ++i) {
        uint32_t k[PackBlock::kSize];
#pragma unroll
        for (uint32_t j = 0; j < PackBlock::kSize; ++j) {
            const bool exists = i < block.num_mn && j < block.num_k;
            k[j] = exists ? block.rows[i][j * block.stride_k] : 0;
        }
        words[i] = pack_exponents(k[0], k[1], k[2], k[3]);
    }
    return {words[0], words[1], words[2], words[3]};
}

DG_DEVICE uint4 pack_block(const SfBlock& block, VectorsAlong vectors_along) {
    if (vectors_along == VectorsAlong::kK && block.num_k >= PackBlock::kSize)
        return pack_vectors<true>(block);
    if (vectors_along == VectorsAlong::kMn && block.num_mn >= PackBlock::kSize)
        return pack_vectors<false>(block);
    return pack_words(block);
}

DG_DEVICE void store_words(uint32_t* out, uint4 words, uint32_t num_mn, bool in_vectors) {
    if (in_vectors && num_mn >= PackBlock::kSize) {
        *reinterpret_cast<uint4*>(out) = words;
        return;
    }
    out[0] = words.x;
    if (num_mn > 1) out[1] = words.y;
    if (num_mn > 2) out[2] = words.z;
    if (num_mn > 3) out[3] = words.w;
}

// Whether an address, and all that lie at these strides from it, are multiples of 16 bytes.
DG_DEVICE bool words_are_aligned(const void* address, int64_t stride, int64_t other_stride) {
    const uint64_t bytes = static_cast<uint64_t>(stride | other_stride) * sizeof(uint32_t);
    return (reinterpret_cast<uint64_t>(address) | bytes) % 16 == 0;
}

DG_DEVICE VectorsAlong vectors_along(const PackArguments& args) {
    if (args.sf_stride_k == 1 &&
        words_are_aligned(args.sf, args.sf_stride_batch, args.sf_stride_mn))
        return VectorsAlong::kK;
    if (args.sf_stride_mn == 1 && args.gran_mn == 1 &&
        words_are_aligned(args.sf, args.sf_stride_batch, args.sf_stride_k))
        return VectorsAlong::kMn;
    return VectorsAlong::kNone;
}

// The first row from `row` on that belongs to a group, where groups end at the numbers of the
// layout; the largest number if there is none.
DG_DEVICE uint32_t next_row_of_a_group(const PackArguments& args, uint32_t row) {
    uint32_t group = 0;
    for (uint32_t end = args.num_groups; group < end;) {
        const uint32_t middle = (group + end) / 2;
        if (args.grouped_layout[middle] > static_cast<int32_t>(row)) {
            end = middle;
        } else {
            group = middle + 1;
        }
    }
    if (group == args.num_groups) return 0xffffffff;
    if (group == 0) return row;
    const uint32_t before = max(args.grouped_layout[group - 1], 0);
    return max(row, align(before, args.alignment));
}

// Whether any of these rows of a matrix may belong to a group.
DG_DEVICE bool any_row_counts(const PackArguments& args, uint32_t batch, uint32_t row,
                              uint32_t num_rows) {
    if (args.grouped_layout == nullptr) return true;
    if (args.layout == GroupedLayout::kRowCounts)
        return static_cast<int32_t>(row) < args.grouped_layout[batch];
    if (args.layout == GroupedLayout::kRowEnds)
        return next_row_of_a_group(args, row) < row + num_rows;
    bool any = false;
    for (uint32_t i = row; i < row + num_rows; ++i) {
        // Negative ids, which mean padding, become large ones.
        any |= static_cast<uint32_t>(args.grouped_layout[i]) < args.num_groups;
    }
    return any;
}

// Whether a row is sure to belong to a group. Padding may carry an id, but not where a group can
// begin.
DG_DEVICE bool row_counts(const PackArguments& args, uint32_t batch, uint32_t row) {
    if (args.layout == GroupedLayout::kRowIds && row % args.alignment != 0) return false;
    return any_row_counts(args, batch, row, 1);
}

// Whether one of the words' bytes is UE8M0's NaN.
DG_DEVICE bool has_nan(uint4 words) {
    const auto in_word = [](uint32_t word) { return (~word - 0x01010101) & word & 0x80808080; };
    return in_word(words.x) | in_word(words.y) | in_word(words.z) | in_word(words.w);
}

// Looks for values of a block that have become NaN, and tells the host one of a row that counts.
// Whichever thread writes last is heard.
//   value        what there is at (row, k)
//   row_counts   whether a row does
template <typename Value, typename Counts>
DG_DEVICE void report_wrong_value(uint32_t* report, uint32_t num_mn, uint32_t num_k, Value value,
                                  Counts row_counts) {
#pragma unroll 1
    for (uint32_t i = 0; i < min(num_mn, PackBlock::kSize); ++i) {
        if (!row_counts(i)) continue;
#pragma unroll 1
        for (uint32_t j = 0; j < min(num_k, PackBlock::kSize); ++j) {
            const uint32_t bits = value(i, j);
            if (exponent_on_top(bits) == 0xff000000) ptx::store_relaxed_sys(report, bits);
        }
    }
}

// The block of a thread.
struct PackPlace {
    uint32_t column;  // of a band
    uint32_t batch;
    uint32_t row;
    uint32_t word;

    DG_DEVICE PackPlace(const PackArguments& args, uint32_t thread) {
        constexpr uint32_t kColumnsOfCta = PackBlock::kThreads / PackBlock::kBlocksOfBand;
        const uint32_t bands = ceil_div(args.mn, PackBlock::kBandRows);
        const uint32_t words = ceil_div(args.k, PackBlock::kSize);
        column = blockIdx.x * kColumnsOfCta + thread / PackBlock::kBlocksOfBand;
        word = column % words;
        const uint32_t band = column / words % bands;
        batch = column / words / bands;
        row = band * PackBlock::kBandRows + thread % PackBlock::kBlocksOfBand * PackBlock::kSize;
    }

    DG_DEVICE uint32_t num_mn(const PackArguments& args) const { return args.mn - row; }
    DG_DEVICE uint32_t num_k(const PackArguments& args) const {
        return args.k - word * PackBlock::kSize;
    }
    // The first scale factor of row i.
    DG_DEVICE const uint32_t* source(const PackArguments& args, uint32_t i) const {
        const uint32_t sf_row = args.gran_mn == 1 ? row + i : (row + i) / args.gran_mn;
        return args.sf + batch * args.sf_stride_batch + sf_row * args.sf_stride_mn +
               word * PackBlock::kSize * args.sf_stride_k;
    }
    DG_DEVICE SfBlock block(const PackArguments& args) const {
        SfBlock block{{}, args.sf_stride_k, num_mn(args), num_k(args)};
#pragma unroll
        for (uint32_t i = 0; i < PackBlock::kSize; ++i) block.rows[i] = source(args, i);
        return block;
    }
};

DG_DEVICE void pack_fp32_into_ue8m0(const PackArguments& args) {
    const PackPlace at(args, threadIdx.x);
    if (at.column >= args.num_columns || at.row >= args.mn) return;
    if (!any_row_counts(args, at.batch, at.row, min(args.mn - at.row, PackBlock::kSize))) return;
    const SfBlock block = at.block(args);
    uint32_t* out =
        args.out + at.batch * args.out_stride_batch + at.word * args.out_stride_k + at.row;
    const bool out_vectors = words_are_aligned(args.out, args.out_stride_batch, args.out_stride_k);
    const uint4 packed = pack_block(block, vectors_along(args));
    store_words(out, packed, block.num_mn, out_vectors);
    if (args.report != nullptr && has_nan(packed)) {
        // All is computed anew, so that the loads above have the registers for themselves.
        const PackPlace again(args, ptx::opaque(threadIdx.x));
        report_wrong_value(
            args.report, again.num_mn(args), again.num_k(args),
            [&](uint32_t i, uint32_t j) { return again.source(args, i)[j * args.sf_stride_k]; },
            [&](uint32_t i) { return row_counts(args, again.batch, again.row + i); });
    }
}

}  // namespace deep_gemm
