// Who am I, warp election, named barriers, register budgets. PTX ISA 9.7.13 and 10.
#pragma once

#include "common/types.cuh"

namespace deep_gemm::ptx {

DG_DEVICE uint32_t lane_idx() {
    uint32_t lane;
    asm("mov.u32 %0, %%laneid;" : "=r"(lane));
    return lane;
}

// Makes the compiler compute a value here, and not later where it is used.
DG_DEVICE void compute_here(uint32_t& value) { asm volatile("" : "+r"(value)); }

// A value of which the compiler knows nothing: what follows from it is computed here, not kept.
DG_DEVICE uint32_t opaque(uint32_t value) {
    asm volatile("" : "+r"(value));
    return value;
}

// A value that all lanes of a converged warp have, in a uniform register: the compiler then knows
// that a branch on it does not diverge.
DG_DEVICE uint32_t uniform(uint32_t value) { return __shfl_sync(0xffffffff, value, 0); }

// The warp's index in its CTA.
DG_DEVICE int warp_idx() { return uniform(threadIdx.x / 32); }

// True in exactly one lane of a converged warp.
DG_DEVICE bool elect_one() {
    uint32_t elected;
    asm volatile(
        "{\n"
        ".reg .pred p;\n"
        "elect.sync _|p, 0xffffffff;\n"
        "selp.b32 %0, 1, 0, p;\n"
        "}"
        : "=r"(elected));
    return elected != 0;
}

// Index of the lowest bit that is set; -1 if none is.
DG_DEVICE int find_first_set(uint32_t bits) { return __ffs(bits) - 1; }

// Barrier `id` among `num_threads` threads of the CTA; orders their shared-memory accesses.
DG_DEVICE void named_barrier_sync(int id, int num_threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(num_threads) : "memory");
}

template <int kRegisters>
DG_DEVICE void setmaxnreg_inc() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
DG_DEVICE void setmaxnreg_dec() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace deep_gemm::ptx
