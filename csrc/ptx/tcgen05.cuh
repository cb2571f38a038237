// Blackwell's tensor cores and their memory: tcgen05. PTX ISA 9.7.16.
//
// Tensor memory (TMEM) of a CTA is 128 lanes of 512 columns of 32 bits. An address has the lane in
// its upper half and the column in its lower one.
//
// kCtas is 1, or 2 where the CTAs of a pair work together; it has to be the same in all of a
// kernel.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"

namespace deep_gemm::ptx {

// Takes columns of tensor memory, a power of two from 32 on, and writes the address of the first.
// Called by a whole warp, which also has to give them back; in a pair by one of each CTA, and both
// get the same columns.
template <int kCtas, int kNumColumns>
DG_DEVICE void tcgen05_alloc(uint32_t* address) {
    asm volatile("tcgen05.alloc.cta_group::%2.sync.aligned.shared::cta.b32 [%0], %1;" ::"r"(
                     shared_address(address)),
                 "n"(kNumColumns), "n"(kCtas)
                 : "memory");
}

// Gives them back; all of them, before the kernel ends.
template <int kCtas, int kNumColumns>
DG_DEVICE void tcgen05_dealloc(uint32_t address) {
    asm volatile("tcgen05.dealloc.cta_group::%2.sync.aligned.b32 %0, %1;" ::"r"(address),
                 "n"(kNumColumns), "n"(kCtas)
                 : "memory");
}

// D[128, n] = A[128, 32] @ B[n, 32].T of FP8 operands with a UE8M0 scale factor per row, or D +
// that. In a pair the even CTA has the first 128 rows of A and D and the first n / 2 of B, the odd
// one as many more; the same addresses hold for both.
//   d          tensor memory: row i of D in lane i, column j in column d + j
//   a, b       descriptors of shared memory
//   idesc      see layout/instruction_descriptor.cuh
//   sfa, sfb   tensor memory of the scale factors
template <int kCtas>
DG_DEVICE void tcgen05_mma_mxf8(uint32_t d, uint64_t a, uint64_t b, uint32_t idesc, uint32_t sfa,
                                uint32_t sfb, bool accumulate) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %6, 0;\n"
        "tcgen05.mma.cta_group::%7.kind::mxf8f6f4.block_scale.block32"
        " [%0], %1, %2, %3, [%4], [%5], p;\n"
        "}" ::"r"(d),
        "l"(a), "l"(b), "r"(idesc), "r"(sfa), "r"(sfb), "r"(static_cast<int>(accumulate)),
        "n"(kCtas)
        : "memory");
}

// Copies 32 rows of 16 bytes from shared memory to lanes 0-31 of tensor memory, four columns, and
// the same again to each further 32 lanes. In a pair each CTA's own.
template <int kCtas>
DG_DEVICE void tcgen05_cp_32x128b(uint32_t destination, uint64_t source) {
    asm volatile("tcgen05.cp.cta_group::%2.32x128b.warpx4 [%0], %1;" ::"r"(destination),
                 "l"(source), "n"(kCtas)
                 : "memory");
}

// Arrives on an mbarrier once all that this thread has started is done: results are written, and
// operands are no longer read. In a pair, on the mbarrier of both CTAs.
template <int kCtas>
DG_DEVICE void tcgen05_commit(uint64_t* barrier) {
    if constexpr (kCtas == 1) {
        asm volatile(
            "tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%0];" ::"r"(
                shared_address(barrier))
            : "memory");
    } else {
        constexpr uint16_t kBoth = 0b11;
        asm volatile(
            "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster"
            ".multicast::cluster.b64 [%0], %1;" ::"r"(shared_address(barrier)),
            "h"(kBoth)
            : "memory");
    }
}

// D[m, n] = A[m, 32] @ B[n, 32].T of FP8 operands without scale factors, or D + that; parameters as
// of tcgen05_mma_mxf8.
DG_DEVICE void tcgen05_mma_f8(uint32_t d, uint64_t a, uint64_t b, uint32_t idesc, bool accumulate) {
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "setp.ne.b32 p, %4, 0;\n"
        "tcgen05.mma.cta_group::1.kind::f8f6f4 [%0], %1, %2, %3, p;\n"
        "}" ::"r"(d),
        "l"(a), "l"(b), "r"(idesc), "r"(static_cast<int>(accumulate))
        : "memory");
}

// Reads 16 columns of the lane that belongs to this thread: lane 32 * (warp % 4) + its own.
DG_DEVICE void tcgen05_ld_16_columns(uint32_t address, float (&value)[16]) {
    asm volatile(
        "tcgen05.ld.sync.aligned.32x32b.x16.b32"
        " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, [%16];"
        : "=f"(value[0]), "=f"(value[1]), "=f"(value[2]), "=f"(value[3]), "=f"(value[4]),
          "=f"(value[5]), "=f"(value[6]), "=f"(value[7]), "=f"(value[8]), "=f"(value[9]),
          "=f"(value[10]), "=f"(value[11]), "=f"(value[12]), "=f"(value[13]), "=f"(value[14]),
          "=f"(value[15])
        : "r"(address)
        : "memory");
}

// Waits until what this thread reads of tensor memory is there. The values pass through, so that
// nothing uses them earlier.
DG_DEVICE void tcgen05_wait_ld(float (&value)[16]) {
    asm volatile("tcgen05.wait::ld.sync.aligned;"
                 : "+f"(value[0]), "+f"(value[1]), "+f"(value[2]), "+f"(value[3]), "+f"(value[4]),
                   "+f"(value[5]), "+f"(value[6]), "+f"(value[7]), "+f"(value[8]), "+f"(value[9]),
                   "+f"(value[10]), "+f"(value[11]), "+f"(value[12]), "+f"(value[13]),
                   "+f"(value[14]), "+f"(value[15])::"memory");
}

// Between this thread's tcgen05 operations and a barrier that tells others of them.
DG_DEVICE void tcgen05_fence_before_sync() {
    asm volatile("tcgen05.fence::before_thread_sync;" ::: "memory");
}

// Between a barrier that told this thread of others' tcgen05 operations and its own.
DG_DEVICE void tcgen05_fence_after_sync() {
    asm volatile("tcgen05.fence::after_thread_sync;" ::: "memory");
}

}  // namespace deep_gemm::ptx
