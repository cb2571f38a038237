// The one kernel parameter of MQA logits. deep_gemm/kernels/mqa_logits.py has the same struct.
#pragma once

#include "common/types.cuh"
#include "ptx/copy.cuh"

namespace deep_gemm {

struct MqaArguments {
    // SM90: [heads / 2, tokens, 2, head_dim], box [heads / 2, quad_tokens, 2, head_dim].
    // SM100: [1, tokens, heads, head_dim], box [1, num_tokens, heads, head_dim].
    TensorMap tensor_map_q;
    TensorMap tensor_map_keys;  // [1, keys, head_dim], box [1, 128, head_dim]; or the pages
    // FP32 [keys]; or those of the first page. Pages are a number of bytes apart.
    const uint8_t* key_sf;
    const float* weights;  // [tokens, heads]
    void* logits;          // [tokens, width]
    // Keys in one matrix: the keys that a token sees, [tokens] each.
    const int32_t* key_starts;
    const int32_t* key_ends;
    // Keys in pages.
    const int32_t* context_lens;  // [sequences, lens_per_sequence]
    const int32_t* block_table;   // [sequences, pages]
    const int32_t* schedule;      // [CTAs + 1, 2], see scheduler/tile_shares.cuh
    int64_t weights_stride;       // elements from token to token
    int64_t logits_stride;
    int64_t table_stride;  // from sequence to sequence
    int64_t page_stride;   // in bytes
    uint64_t policy_keys;  // of L2, for pages
    uint32_t num_tokens;
    uint32_t num_keys;           // of the matrix; of the pages that a row of the table has room for
    uint32_t width;              // columns of the logits
    uint32_t next_n;             // tokens of a sequence
    uint32_t lens_per_sequence;  // next_n, or 1: then a token sees one key more than the one before
    bool is_compressed;          // column 0 is the first key that the token sees, not key 0
    bool cleans;                 // what a token does not see becomes -inf
};

}  // namespace deep_gemm
