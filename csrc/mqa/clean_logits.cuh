// Load role, third and fourth warp: -inf where a token sees no key. They write beside the math
// warps, which only store what is seen, so no second pass over the logits is needed.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/visible_keys.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// Writes -inf to columns first .. end - 1 of a row that begins at a multiple of 16 bytes. A whole
// warp: each lane 16 bytes at a time, where they are all to be written.
template <typename Bits, Bits kMinusInfinity>
DG_DEVICE void clean_columns(Bits* row, uint32_t first, uint32_t end) {
    constexpr uint32_t kVector = 16 / sizeof(Bits);
    constexpr uint32_t kWord =
        sizeof(Bits) == 4 ? kMinusInfinity : kMinusInfinity | uint32_t{kMinusInfinity} << 16;
    for (uint32_t c = (first / kVector + ptx::lane_idx()) * kVector; c < end; c += 32 * kVector) {
        if (c >= first && end - c >= kVector) {
            *reinterpret_cast<uint4*>(row + c) = {kWord, kWord, kWord, kWord};
            continue;
        }
#pragma unroll
        for (uint32_t i = 0; i < kVector; ++i) {
            if (c + i >= first && c + i < end) row[c + i] = kMinusInfinity;
        }
    }
}

// Rows `warp`, `warp` + `num_warps`, ...
template <MqaConfig kConfig>
DG_DEVICE void clean_logits(const MqaArguments& args, uint32_t warp, uint32_t num_warps) {
    constexpr bool kIsFp32 = kConfig.logits_bytes == 4;
    for (uint32_t token = warp; token < args.num_tokens; token += num_warps) {
        const VisibleKeys keys = visible_keys<kConfig>(args, token);
        // Where nothing is seen, one of the two runs is the whole row.
        const auto first = static_cast<uint32_t>(keys.is_empty() ? 0 : keys.first - keys.shift);
        const auto end = static_cast<uint32_t>(keys.is_empty() ? 0 : keys.end - keys.shift);
        const int64_t row = token * args.logits_stride;
        if constexpr (kIsFp32) {
            auto* logits = static_cast<uint32_t*>(args.logits) + row;
            clean_columns<uint32_t, 0xff800000>(logits, 0, first);
            clean_columns<uint32_t, 0xff800000>(logits, end, args.width);
        } else {
            auto* logits = static_cast<uint16_t*>(args.logits) + row;
            clean_columns<uint16_t, 0xff80>(logits, 0, first);
            clean_columns<uint16_t, 0xff80>(logits, end, args.width);
        }
    }
}

}  // namespace deep_gemm
