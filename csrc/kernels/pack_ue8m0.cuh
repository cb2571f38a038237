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
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"

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
    // [num_groups]: the row behind each group's last; groups begin aligned. Null: all rows count.
    const int32_t* row_ends;
    uint32_t num_groups;
    uint32_t alignment;
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

// Whether none of a block's rows belongs to a group: it lies between two, or behind the last.
DG_DEVICE bool lies_in_a_gap(const PackArguments& args, uint32_t row) {
    uint32_t group = 0;
    for (uint32_t end = args.num_groups; group < end;) {
        const uint32_t middle = (group + end) / 2;
        if (args.row_ends[middle] > static_cast<int32_t>(row)) {
            end = middle;
        } else {
            group = middle + 1;
        }
    }
    if (group == args.num_groups) return true;
    if (group == 0) return false;
    const uint32_t begin =
        align(static_cast<uint32_t>(max(args.row_ends[group - 1], 0)), args.alignment);
    return row + PackBlock::kSize <= begin;
}

DG_DEVICE void pack_fp32_into_ue8m0(const PackArguments& args) {
    const uint32_t bands = ceil_div(args.mn, PackBlock::kBandRows);
    const uint32_t words = ceil_div(args.k, PackBlock::kSize);
    constexpr uint32_t kColumnsOfCta = PackBlock::kThreads / PackBlock::kBlocksOfBand;
    const uint32_t column = blockIdx.x * kColumnsOfCta + threadIdx.x / PackBlock::kBlocksOfBand;
    const uint32_t word = column % words;
    const uint32_t band = column / words % bands;
    const int64_t batch = column / words / bands;
    const uint32_t row =
        band * PackBlock::kBandRows + threadIdx.x % PackBlock::kBlocksOfBand * PackBlock::kSize;
    if (column >= args.num_columns || row >= args.mn) return;
    if (args.row_ends != nullptr && lies_in_a_gap(args, row)) return;

    const uint32_t first_k = word * PackBlock::kSize;
    const uint32_t* sf = args.sf + batch * args.sf_stride_batch + first_k * args.sf_stride_k;
    SfBlock block;
    block.stride_k = args.sf_stride_k;
    block.num_mn = args.mn - row;
    block.num_k = args.k - first_k;
#pragma unroll
    for (uint32_t i = 0; i < PackBlock::kSize; ++i) {
        const uint32_t sf_row = args.gran_mn == 1 ? row + i : (row + i) / args.gran_mn;
        block.rows[i] = sf + sf_row * args.sf_stride_mn;
    }
    uint32_t* out = args.out + batch * args.out_stride_batch + word * args.out_stride_k + row;
    const bool out_vectors = words_are_aligned(args.out, args.out_stride_batch, args.out_stride_k);
    store_words(out, pack_block(block, vectors_along(args)), block.num_mn, out_vectors);
}

}  // namespace deep_gemm
