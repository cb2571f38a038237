// Thread-block clusters, addresses in their shared memory, and grids that depend on each other.
// PTX ISA 9.7.13 and 9.7.9.23.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

DG_DEVICE uint32_t cluster_ctarank() {
    uint32_t rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// Barrier of all threads of the cluster. It orders no memory but mbarriers that were initialised
// and fenced before: a release would cost a MEMBAR.ALL.GPU.
DG_DEVICE void cluster_sync() {
    // Brings a warp's lanes together, and keeps the compiler from giving each side of a branch a
    // barrier of its own, as it may with asm.
    __syncwarp();
    asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// Programmatic dependent launch: waits until the grid before has ended and all that it wrote can be
// read. Over at once where this grid was launched without it.
DG_DEVICE void griddepcontrol_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// Lets the grid behind start, as far as there is room, once all CTAs have come here or ended.
DG_DEVICE void griddepcontrol_launch_dependents() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// 32-bit address of an object in this CTA's shared memory.
DG_DEVICE uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// The same offset in the shared memory of CTA `rank` of the cluster.
DG_DEVICE uint32_t mapa(uint32_t address, uint32_t rank) {
    uint32_t remote;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(remote) : "r"(address), "r"(rank));
    return remote;
}

}  // namespace deep_gemm::ptx
