// csrc/ptx/tensormap.cuh for a host: a map's first words are its address, k and row stride.
#pragma once

#include "ptx/copy.cuh"

namespace deep_gemm::ptx {

inline void tensormap_replace_global_address(TensorMap* map, const void* address) {
    map->opaque[0] = reinterpret_cast<uint64_t>(address);
}

inline void tensormap_replace_inner_dim(TensorMap* map, uint32_t elements) {
    map->opaque[1] = elements;
}

inline void tensormap_replace_middle_stride(TensorMap* map, uint64_t bytes) {
    map->opaque[2] = bytes;
}

inline void fence_proxy_tensormap_release() {}

}  // namespace deep_gemm::ptx
