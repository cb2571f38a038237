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
    int num_stages;        // slots of the ring of key tiles
    int num_query_stages;  // slots of the ring of query blocks

    static constexpr int kTileKeys = 128;  // keys of a tile: 64 for each math warpgroup
    static constexpr int kMathWarpgroups = 2;
    static constexpr int kWarpgroup = 128;
    static constexpr int kThreads = kWarpgroup * (kMathWarpgroups + 1);
    static constexpr int kMmaM = 64;  // keys of one WGMMA
    static constexpr int kMmaK = 32;
    static constexpr int kKeyAlignment = 16;  // a block's first key is a multiple: whole sectors

    DG_HOST_DEVICE constexpr bool is_paged() const { return page_keys != 0; }

    // Tokens that the four lanes of a quad share: each lane has all heads of one, or half of them,
    // or a quarter.
    DG_HOST_DEVICE constexpr int quad_tokens() const { return gcd(num_tokens, 4); }
    // Eights of columns that a group of `quad_tokens` tokens has.
    DG_HOST_DEVICE constexpr int group_eights() const { return quad_tokens() * num_heads / 8; }
    DG_HOST_DEVICE constexpr int num_groups() const { return num_tokens / quad_tokens(); }

    // Columns of the product: a head of a token each. The product is computed in two halves, so
    // that the tensor cores work on one while the other is summed up; a half is whole eights.
    DG_HOST_DEVICE constexpr int used_columns() const { return num_tokens * num_heads; }
    DG_HOST_DEVICE constexpr int columns() const { return align(used_columns(), 16); }
    DG_HOST_DEVICE constexpr int half_columns() const { return columns() / 2; }

    // Where the scale factor of a tile's key `i` lies: TMA's boxes begin at multiples of 128 bytes,
    // which those of 16 keys do not fill.
    DG_HOST_DEVICE constexpr int sf_place(int i) const {
        return page_keys == 16 ? i / 16 * 32 + i % 16 : i;
    }
    DG_HOST_DEVICE constexpr int num_sf_places() const { return sf_place(kTileKeys); }

    DG_HOST_DEVICE constexpr int key_tile_bytes() const { return kTileKeys * head_dim; }
    DG_HOST_DEVICE constexpr int query_tile_bytes() const { return columns() * head_dim; }
};

}  // namespace deep_gemm
