// WGMMA, the asynchronous matrix product of a warpgroup. PTX ISA 9.7.15.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

// D[64, kN] (+)= A[64, 32] @ B[kN, 32].T, e4m3 operands from shared memory, FP32 accumulators:
//   static void mma_async(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate)
// The JIT writes the one specialisation that a kernel uses (deep_gemm/jit/codegen.py): its operand
// list is kN / 2 registers long.
template <int kN>
struct WgmmaFp8;

// Orders earlier accesses to the accumulator registers before the next wgmma.
DG_DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

DG_DEVICE void wgmma_commit_group() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kPending committed groups of this warp are left. Passing the accumulators of
// the finished group tells the compiler that they change here, so it cannot read them earlier.
template <int kPending, int kSize>
DG_DEVICE void wgmma_wait_group(float (&accumulators)[kSize]) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
#pragma unroll
    for (int i = 0; i < kSize; ++i) asm volatile("" : "+f"(accumulators[i])::"memory");
}

}  // namespace deep_gemm::ptx
