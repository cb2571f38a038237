// CTA pairs: two CTAs of a cluster, one above the other, that share each MMA. PTX ISA 9.7.16.5.
//
// The even CTA leads: its MMA warp starts what both multiply and copy into TMEM, and the barriers
// that it waits for are its own. So whatever fills a stage, of either CTA, tells the leader; and
// its commits tell both. With one CTA alone, all of this is the CTA itself.
#pragma once

#include "common/types.cuh"
#include "ptx/cluster.cuh"
#include "ptx/mbarrier.cuh"
#include "sm100/gemm_config.cuh"

namespace deep_gemm {

// This CTA's place in its pair: 0 leads.
template <Sm100GemmConfig kConfig>
DG_DEVICE uint32_t rank_in_pair() {
    return kConfig.shares_mmas() ? ptx::cluster_ctarank() : 0;
}

// Where the leader has this barrier.
template <Sm100GemmConfig kConfig>
DG_DEVICE uint32_t leader_address(const uint64_t* barrier) {
    const uint32_t own = ptx::shared_address(barrier);
    return kConfig.shares_mmas() ? ptx::mapa(own, 0) : own;
}

// Arrives there: this thread is done with reading.
template <Sm100GemmConfig kConfig>
DG_DEVICE void arrive_at_leader(const uint64_t* barrier) {
    ptx::mbarrier_arrive<kConfig.shares_mmas()>(leader_address<kConfig>(barrier));
}

// The same behind what this thread has stored in its own CTA's shared memory, and a fence of the
// async proxy. That this is enough for MMAs and copies that the leader starts rests on the practice
// of one other library, which asks itself whether it is.
template <Sm100GemmConfig kConfig>
DG_DEVICE void announce_to_leader(const uint64_t* barrier) {
    if constexpr (kConfig.shares_mmas()) {
        ptx::mbarrier_arrive_cluster(leader_address<kConfig>(barrier));
    } else {
        ptx::mbarrier_arrive<false>(ptx::shared_address(barrier));
    }
}

// Brings all threads of a pair together.
template <Sm100GemmConfig kConfig>
DG_DEVICE void sync_pair() {
    __syncwarp();  // the lane that issues, and the others
    __syncthreads();
    if constexpr (kConfig.shares_mmas()) ptx::cluster_sync();
}

}  // namespace deep_gemm
