// Asynchronous copies: TMA (cp.async.bulk.tensor) and cp.async. PTX ISA 9.7.9.24-27.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm {

// The driver's opaque tensor map (CUtensorMap), encoded on the host.
struct alignas(64) TensorMap {
    uint64_t opaque[16];
};

}  // namespace deep_gemm

namespace deep_gemm::ptx {

DG_DEVICE void prefetch_tensormap(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Loads the map's box at (inner, middle, outer) and completes its bytes on `barrier`. Elements out
// of range arrive as zeros and count like the others.
DG_DEVICE void tma_load_3d(void* destination, const TensorMap* map, uint64_t* barrier, int inner,
                           int middle, int outer) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(shared_address(destination)),
        "l"(map), "r"(shared_address(barrier)), "r"(inner), "r"(middle), "r"(outer)
        : "memory");
}

// The same under an L2 policy: an opaque word, see kernels/arguments.cuh.
DG_DEVICE void tma_load_3d(void* destination, const TensorMap* map, uint64_t* barrier, int inner,
                           int middle, int outer, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(destination)),
        "l"(map), "r"(shared_address(barrier)), "r"(inner), "r"(middle), "r"(outer), "l"(policy)
        : "memory");
}

// The same for a CTA of a pair: `barrier` is a shared::cluster address in either CTA of it.
DG_DEVICE void tma_load_3d_of_pair(void* destination, const TensorMap* map, uint32_t barrier,
                                   int inner, int middle, int outer, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".cta_group::2.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(
            shared_address(destination)),
        "l"(map), "r"(barrier), "r"(inner), "r"(middle), "r"(outer), "l"(policy)
        : "memory");
}

// tma_load_3d of a map with one dimension more.
DG_DEVICE void tma_load_4d(void* destination, const TensorMap* map, uint64_t* barrier, int inner,
                           int second, int third, int outer) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(destination)),
        "l"(map), "r"(shared_address(barrier)), "r"(inner), "r"(second), "r"(third), "r"(outer)
        : "memory");
}

// Asks L2 for the map's box at (inner, middle, outer); whoever loads it later gets what is in
// memory then.
DG_DEVICE void tma_prefetch_3d(const TensorMap* map, int inner, int middle, int outer) {
    asm volatile("cp.async.bulk.prefetch.tensor.3d.L2.global [%0, {%1, %2, %3}];" ::"l"(map),
                 "r"(inner), "r"(middle), "r"(outer)
                 : "memory");
}

// The same as tma_load_3d under a policy, for every CTA of the cluster whose bit is set in `mask`:
// the box lands at the same offset of each, and its bytes complete on the barrier at the same
// offset of each.
DG_DEVICE void tma_load_3d_multicast(void* destination, const TensorMap* map, uint64_t* barrier,
                                     int inner, int middle, int outer, uint16_t mask,
                                     uint64_t policy) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster.L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6, %7;" ::"r"(
            shared_address(destination)),
        "l"(map), "r"(shared_address(barrier)), "r"(inner), "r"(middle), "r"(outer), "h"(mask),
        "l"(policy)
        : "memory");
}

// Stores the map's box from shared memory to (inner, middle, outer); elements out of range are not
// written.
DG_DEVICE void tma_store_3d(const TensorMap* map, const void* source, int inner, int middle,
                            int outer) {
    asm volatile(
        "cp.async.bulk.tensor.3d.global.shared::cta.bulk_group [%0, {%2, %3, %4}], [%1];" ::"l"(
            map),
        "r"(shared_address(source)), "r"(inner), "r"(middle), "r"(outer)
        : "memory");
}

// Adds the map's box in shared memory to what lies at (inner, middle, outer), in the map's type.
DG_DEVICE void tma_reduce_add_3d(const TensorMap* map, const void* source, int inner, int middle,
                                 int outer) {
    asm volatile(
        "cp.reduce.async.bulk.tensor.3d.global.shared::cta.add.bulk_group"
        " [%0, {%2, %3, %4}], [%1];" ::"l"(map),
        "r"(shared_address(source)), "r"(inner), "r"(middle), "r"(outer)
        : "memory");
}

// Closes a group of this thread's stores.
DG_DEVICE void tma_store_commit_group() {
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Waits until at most `kInFlight` of this thread's latest stores have not read their shared memory,
// which may then be overwritten.
template <int kInFlight = 0>
DG_DEVICE void tma_store_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kInFlight) : "memory");
}

// Copies 4 bytes; those from `source_bytes` on are written as zeros and not read.
DG_DEVICE void cp_async_4(void* destination, const void* source, int source_bytes) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(destination)),
                 "l"(__cvta_generic_to_global(source)), "r"(source_bytes)
                 : "memory");
}

// The same with 16 bytes, both at multiples of 16.
DG_DEVICE void cp_async_16(void* destination, const void* source, int source_bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(destination)),
                 "l"(__cvta_generic_to_global(source)), "r"(source_bytes)
                 : "memory");
}

// Closes a group of this thread's cp.async.
DG_DEVICE void cp_async_commit_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `kInFlight` of this thread's latest groups are not complete.
template <int kInFlight>
DG_DEVICE void cp_async_wait_group() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// Arrives on `barrier` once all earlier cp.async of this thread are complete. The arrival is one of
// those that the barrier was initialised for (.noinc).
DG_DEVICE void cp_async_mbarrier_arrive(uint64_t* barrier) {
    asm volatile(
        "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(barrier))
        : "memory");
}

}  // namespace deep_gemm::ptx
