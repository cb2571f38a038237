// One logit, to where it belongs: nothing is stored for a key that its token does not see.
#pragma once

#include "common/types.cuh"
#include "mqa/storage.cuh"
#include "ptx/memory.cuh"

namespace deep_gemm {

template <MqaConfig kConfig>
DG_DEVICE void store_logit(const LogitRow& row, uint32_t key, float logit) {
    if (key < row.first || key >= row.end) return;
    const uint64_t address = row.address + static_cast<uint64_t>(key) * kConfig.logits_bytes;
    if constexpr (kConfig.logits_bytes == 4) {
        *reinterpret_cast<float*>(address) = logit;
    } else {
        *reinterpret_cast<uint16_t*>(address) = ptx::cvt_bf16x2(logit, 0.0f);
    }
}

}  // namespace deep_gemm
