// csrc/ptx/mbarrier.cuh for a host: nobody waits, and who would have is written to the log.
#pragma once

#include "ptx/thread.cuh"

namespace deep_gemm::ptx {

inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pointer));
}

inline uint32_t mapa(uint32_t address, uint32_t) { return address; }

inline void mbarrier_init(uint64_t*, uint32_t) {}

inline void fence_mbarrier_init() {}

inline void mbarrier_arrive_expect_tx(uint64_t*, uint32_t) {}

inline void cp_async_mbarrier_arrive(uint64_t*) {}

inline bool mbarrier_test_wait_parity(uint64_t*, uint32_t) { return true; }

inline bool mbarrier_try_wait_parity_cluster(uint64_t*, uint32_t) { return true; }

inline void mbarrier_wait_parity(uint64_t* barrier, uint32_t phase) {
    log_event('W', shared_address(barrier), phase);
}

template <bool kRemote>
void mbarrier_arrive(uint32_t address) {
    log_event('A', address);
}

}  // namespace deep_gemm::ptx
