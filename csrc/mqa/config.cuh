// MqaConfig: everything about a kernel for MQA logits that is fixed when it is compiled.
//
// deep_gemm/kernels/mqa_config.py chooses it and prints it. The generated source asserts that the
// derived sizes agree.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"

namespace deep_gemm {

struct MqaConfig {
    int num_heads;         // a multiple of 8, at most 128
    int head_dim;          // 32, 64 or 128: bytes of a row of Q or K, and width of its swizzle
    int num_tokens;        // query tokens that are multiplied with the same keys, at most 16
    int page_keys;         // keys of a cache page: 16, 32 or 64; 0 where keys lie in one matrix
    int logits_bytes;      // 4 for FP32, 2 for BF16
    bool is_sm100;         // products by tcgen05, in tensor memory; otherwise by WGMMA
    int num_stages;        // slots of the ring of key tiles
    int num_query_stages;  // slots of the ring of query blocks

    // Keys of a tile: on SM90 64 for each math warpgroup, on SM100 they take turns with whole
    // tiles.
    static constexpr int kTileKeys = 128;
    static constexpr int kMathWarpgroups = 2;
    static constexpr int kWarpgroup = 128;
    static constexpr int kThreads = kWarpgroup * (kMathWarpgroups + 1);
    static constexpr int kMmaM = 64;  // keys of one WGMMA; tcgen05 takes a tile
    static constexpr int kMmaK = 32;
    static constexpr int kTmemColumns = 512;
    static constexpr int kKeyAlignment = 16;  // a block's first key is a multiple: whole sectors

    DG_HOST_DEVICE constexpr bool is_paged() const { return page_keys != 0; }

    // Tokens that the four lanes of a quad share: each lane has all heads of one, or half of them,
    // or a quarter. On SM100 a thread has all heads of all tokens: they are not interleaved.
    DG_HOST_DEVICE constexpr int quad_tokens() const { return is_sm100 ? 1 : gcd(num_tokens, 4); }
    // Eights of columns that a group of `quad_tokens` tokens has.
    DG_HOST_DEVICE constexpr int group_eights() const { return quad_tokens() * num_heads / 8; }
    // Tokens whose queries one TMA box brings.
    DG_HOST_DEVICE constexpr int box_tokens() const {
        return is_sm100 ? num_tokens : quad_tokens();
    }

    // Columns of the product: a head of a token each. SM100's instruction takes whole sixteens.
    DG_HOST_DEVICE constexpr int used_columns() const { return num_tokens * num_heads; }
    DG_HOST_DEVICE constexpr int columns() const { return align(used_columns(), 16); }

    // Accumulators in tensor memory, of `columns()` columns each: one for each math warpgroup, or
    // two, where they fit.
    DG_HOST_DEVICE constexpr int num_accumulators() const {
        return (4 * columns() <= kTmemColumns ? 2 : 1) * kMathWarpgroups;
    }
    // Columns that the kernel takes: a power of two from 32 on.
    DG_HOST_DEVICE constexpr int tmem_columns() const {
        int taken = 32;
        while (taken < num_accumulators() * columns()) taken *= 2;
        return taken;
    }

    // Arrivals that say that a tile of keys is done with: of the warps that read its scale factors,
    // and on SM100 a commit of its product.
    DG_HOST_DEVICE constexpr int key_readers() const {
        return is_sm100 ? kWarpgroup / 32 + 1 : kMathWarpgroups * 4;
    }

    DG_HOST_DEVICE constexpr int key_tile_bytes() const { return kTileKeys * head_dim; }
    DG_HOST_DEVICE constexpr int query_tile_bytes() const { return columns() * head_dim; }
};

}  // namespace deep_gemm
