// Tensor maps that a kernel makes: fields of the opaque 128 bytes, changed in global memory, and
// the fences between who writes a map and whose copies use it. PTX ISA 9.7.9.28 and 9.7.13.4.
#pragma once

#include "common/types.cuh"
#include "ptx/copy.cuh"

namespace deep_gemm::ptx {

DG_DEVICE void tensormap_replace_global_address(TensorMap* map, const void* address) {
    asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;" ::"l"(
                     __cvta_generic_to_global(map)),
                 "l"(address)
                 : "memory");
}

// Elements along the innermost dimension.
DG_DEVICE void tensormap_replace_inner_dim(TensorMap* map, uint32_t elements) {
    asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 0, %1;" ::"l"(
                     __cvta_generic_to_global(map)),
                 "r"(elements)
                 : "memory");
}

// Elements along the dimension next to the innermost one.
DG_DEVICE void tensormap_replace_middle_dim(TensorMap* map, uint32_t elements) {
    asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 1, %1;" ::"l"(
                     __cvta_generic_to_global(map)),
                 "r"(elements)
                 : "memory");
}

// Bytes between elements of the dimension next to the innermost one.
DG_DEVICE void tensormap_replace_middle_stride(TensorMap* map, uint64_t bytes) {
    asm volatile("tensormap.replace.tile.global_stride.global.b1024.b64 [%0], 0, %1;" ::"l"(
                     __cvta_generic_to_global(map)),
                 "l"(bytes)
                 : "memory");
}

// Ends the making of maps: what this thread has written, or seen written, may be acquired.
DG_DEVICE void fence_proxy_tensormap_release() {
    asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
}

// Makes a map that was written before usable by this thread's copies.
DG_DEVICE void fence_proxy_tensormap_acquire(const TensorMap* map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
}

}  // namespace deep_gemm::ptx
