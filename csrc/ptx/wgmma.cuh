// WGMMA, the asynchronous matrix product of a warpgroup. PTX ISA 9.7.15.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

// D[64, kN] = A[64, kK] @ B[kN, kK].T, e4m3 operands from shared memory, FP32 accumulators: an
// instruction for each 32 of K, and what waits for it.
//   static void mma_async(float (&d)[kN / 2], A a, int a_bytes, B b, int b_bytes)
//   static void wait_group<kPending>(float (&d)[kN / 2])
// a.at(a_bytes) is the descriptor of the first bytes of A, likewise of B. The JIT writes the one
// specialisation that a kernel uses, for its kK (deep_gemm/jit/codegen.py): its operand lists are
// kN / 2 registers long.
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
    WgmmaFp8<2 * kSize>::template wait_group<kPending>(accumulators);
}

}  // namespace deep_gemm::ptx
