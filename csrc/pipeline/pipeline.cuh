// A ring of shared-memory stages between the warps that fill them and those that read them.
//
//   producer                                consumer
//   producer_acquire: wait on empty         consumer_wait: wait on full
//   start the stage's copies                read the stage
//   (the copies complete `full`)            consumer_release: arrive on empty
//
// Both sides walk the ring with a PipelineState of their own. This file is the only one that knows
// what a phase bit is.
#pragma once

#include "common/types.cuh"
#include "ptx/copy.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

// A place in the ring: the stage, and the parity of the round through the ring.
template <int kNumStages>
struct PipelineState {
    int stage = 0;
    uint32_t phase = 0;

    DG_DEVICE void advance() {
        if (++stage == kNumStages) {
            stage = 0;
            phase ^= 1;
        }
    }
};

// The barriers of a ring, in shared memory. A phase of `full` completes when every producer has
// arrived and all announced bytes are there; one of `empty`, when every reader of the stage, in any
// CTA that the stage's loads are multicast to, is done with it.
template <int kNumStages>
struct PipelineBarriers {
    uint64_t full[kNumStages];   // kFullArrivals: one per producing thread
    uint64_t empty[kNumStages];  // kEmptyArrivals: one per reader and CTA of the cluster
};

template <int kNumStages, int kNumProducers, int kNumReaders, int kClusterSize>
struct Pipeline {
    static constexpr uint32_t kFullArrivals = kNumProducers;
    static constexpr uint32_t kEmptyArrivals = kNumReaders * kClusterSize;
    using State = PipelineState<kNumStages>;

    PipelineBarriers<kNumStages>& barriers;

    // Called by one thread of the CTA; a CTA or cluster barrier must follow.
    DG_DEVICE void init() const {
        for (int stage = 0; stage < kNumStages; ++stage) {
            ptx::mbarrier_init(&barriers.full[stage], kFullArrivals);
            ptx::mbarrier_init(&barriers.empty[stage], kEmptyArrivals);
        }
        ptx::fence_mbarrier_init();
    }

    // Waits until the stage may be overwritten. In the first round it always may: the wait is for
    // the phase before the barrier's first, which counts as complete.
    DG_DEVICE void producer_acquire(const State& state) const {
        ptx::mbarrier_wait_parity(&barriers.empty[state.stage], state.phase ^ 1);
    }

    // Waits until every stage is released. Then no peer can reach into this CTA's barriers any
    // more, so it may end.
    DG_DEVICE void producer_tail(State& state) const {
        for (int i = 0; i < kNumStages; ++i) {
            producer_acquire(state);
            state.advance();
        }
    }

    // For TMA: announces the bytes that the stage gets, from whichever CTA they are issued.
    DG_DEVICE void producer_expect(const State& state, uint32_t bytes) const {
        ptx::mbarrier_arrive_expect_tx(&barriers.full[state.stage], bytes);
    }

    // For cp.async: the stage is full once the copies that this thread has started are complete.
    DG_DEVICE void producer_commit(const State& state) const {
        ptx::cp_async_mbarrier_arrive(&barriers.full[state.stage]);
    }

    // For ordinary stores: this thread has filled the stage.
    DG_DEVICE void producer_arrive(const State& state) const {
        ptx::mbarrier_arrive<false>(ptx::shared_address(&barriers.full[state.stage]));
    }

    // The barrier on which the stage's TMA loads complete.
    DG_DEVICE uint64_t* full_barrier(const State& state) const {
        return &barriers.full[state.stage];
    }

    // The barrier that a commit of asynchronous readers arrives on.
    DG_DEVICE uint64_t* empty_barrier(const State& state) const {
        return &barriers.empty[state.stage];
    }

    DG_DEVICE void consumer_wait(const State& state) const {
        ptx::mbarrier_wait_parity(&barriers.full[state.stage], state.phase);
    }

    // The same where threads of other CTAs, not TMA, have written the stage.
    DG_DEVICE void consumer_wait_for_peers(const State& state) const {
        while (!ptx::mbarrier_try_wait_parity_cluster(&barriers.full[state.stage], state.phase)) {
        }
    }

    // Whether consumer_wait would return at once.
    DG_DEVICE bool consumer_test(const State& state) const {
        return ptx::mbarrier_test_wait_parity(&barriers.full[state.stage], state.phase);
    }

    // What consumer_release needs, computed ahead of it: the `empty` barrier that this lane of a
    // math warp arrives on, if any. In a cluster the stage is written by loads of other CTAs too,
    // so a lane arrives in each of them.
    DG_DEVICE uint32_t release_address(const State& state) const {
        const uint32_t empty = ptx::shared_address(&barriers.empty[state.stage]);
        return kClusterSize == 1 ? empty : ptx::mapa(empty, ptx::lane_idx());
    }

    // Called by a whole warp, which is one reader, once it no longer reads the stage.
    DG_DEVICE void consumer_release(uint32_t release_address) const {
        __syncwarp();  // the lanes that arrive speak for the reads of all others
        if (ptx::lane_idx() < kClusterSize)
            ptx::mbarrier_arrive<(kClusterSize > 1)>(release_address);
    }

    // The same for a stage that the warp has read by ordinary loads and that TMA writes again. The
    // fence makes the loads come first: they go another way than the arrival, which can overtake
    // them so far, when the tensor cores keep shared memory busy, that they read what comes next.
    DG_DEVICE void consumer_release_loaded(uint32_t release_address) const {
        ptx::fence_proxy_async();
        consumer_release(release_address);
    }
};

}  // namespace deep_gemm
