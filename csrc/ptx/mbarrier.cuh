// mbarrier: a 64-bit shared-memory word that counts arrivals and bytes. PTX ISA 9.7.13.15.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm::ptx {

DG_DEVICE void mbarrier_init(uint64_t* barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// Makes this thread's mbarrier.init visible to the cluster and to the async proxy; a CTA or cluster
// barrier must follow.
DG_DEVICE void fence_mbarrier_init() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives on the barrier at a shared::cta address, or at a shared::cluster one of a peer. It
// releases at CTA scope: it may tell a peer that this CTA has finished reading, not that it has
// written something. (A release at cluster scope costs a MEMBAR.ALL.GPU in every k block.)
template <bool kRemote>
DG_DEVICE void mbarrier_arrive(uint32_t address) {
    if constexpr (kRemote) {
        asm volatile("mbarrier.arrive.release.cta.shared::cluster.b64 _, [%0];" ::"r"(address)
                     : "memory");
    } else {
        asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(address)
                     : "memory");
    }
}

// Arrives at a shared::cluster address, and releases at cluster scope: tells a peer of what this
// thread has written, too.
DG_DEVICE void mbarrier_arrive_cluster(uint32_t address) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(address)
                 : "memory");
}

// Announces `bytes` of asynchronous copies to the present phase, then arrives.
DG_DEVICE void mbarrier_arrive_expect_tx(uint64_t* barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(
                     shared_address(barrier)),
                 "r"(bytes)
                 : "memory");
}

// Whether the phase of parity `phase` is complete.
DG_DEVICE bool mbarrier_test_wait_parity(uint64_t* barrier, uint32_t phase) {
    uint32_t complete;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.test_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(phase)
        : "memory");
    return complete != 0;
}

// True once the phase of parity `phase` is complete; suspends the thread for up to 10 ms first. The
// default limit is so short that waiting load warps take issue slots from the math warps.
DG_DEVICE bool mbarrier_try_wait_parity(uint64_t* barrier, uint32_t phase) {
    constexpr uint32_t kMaxSuspension = 10'000'000;  // nanoseconds
    uint32_t complete;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 p, [%1], %2, %3;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(phase), "r"(kMaxSuspension)
        : "memory");
    return complete != 0;
}

// The same once, at cluster scope, which sees what threads of other CTAs have stored. It costs an
// invalidation of L1.
DG_DEVICE bool mbarrier_try_wait_parity_cluster(uint64_t* barrier, uint32_t phase) {
    uint32_t complete;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(phase)
        : "memory");
    return complete != 0;
}

DG_DEVICE void mbarrier_wait_parity(uint64_t* barrier, uint32_t phase) {
    while (!mbarrier_try_wait_parity(barrier, phase)) {
    }
}

}  // namespace deep_gemm::ptx
