// Split K: the CTAs of a cluster multiply a part of K each. Here their sums become one.
//
// A block of D has too few columns of its own to be worth a store by one CTA, and its sum would
// wait for one: so each CTA owns an equal part of the columns. It gets the other CTAs' sums of
// them, adds them up in the order of K, and stores what it owns.
//
//   math warpgroup: accumulators --st.async--> [full] parts, in each CTA --> sum of the own columns
//                        ^                                    |
//                        '------- [empty] <--- each warp, each CTA
//
// The same bits come out of every run: the order of the additions does not depend on who is first.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/cluster.cuh"
#include "ptx/memory.cuh"
#include "ptx/thread.cuh"

namespace deep_gemm {

template <GemmConfig kConfig, bool kIsSplit = (kConfig.cluster_k > 1)>
struct PartSum {
    static constexpr int kNumWaves = kConfig.num_waves();
    static constexpr int kParts = kConfig.cluster_k;
    static constexpr int kOwned =
        kConfig.d_columns() / 2;  // accumulators of a slice that are owned
    static constexpr uint32_t kBytes = sizeof(SumParts<kConfig>);

    SumParts<kConfig>& parts;  // the warpgroup's
    SumPipeline<kConfig> pipeline;
    uint32_t rank;
    typename SumPipeline<kConfig>::State state;

    DG_DEVICE PartSum(SharedStorage<kConfig>& smem, int warpgroup_idx, uint32_t rank)
        : parts(smem.sum.parts[warpgroup_idx]),
          pipeline{smem.sum.barriers[warpgroup_idx]},
          rank(rank) {}

    // sum = the sums of the columns that this CTA owns, over all parts of K.
    DG_DEVICE void sum(float (&sum)[kNumWaves][kOwned],
                       const float (&accum)[kNumWaves][kConfig.block_n / 2]) {
        pipeline.producer_acquire(state);
        if (threadIdx.x % kConfig.kWarpgroup == 0) pipeline.producer_expect(state, kBytes);
#pragma unroll
        for (uint32_t owner = 0; owner < kParts; ++owner) send(owner, accum);
        pipeline.consumer_wait_for_peers(state);
        add(sum);
        pipeline.consumer_release(pipeline.release_address(state));
        state.advance();
    }

    // Waits until all that was sent has been added: then no peer reaches into this CTA any more.
    DG_DEVICE void finish() { pipeline.producer_tail(state); }

  private:
    // Stores this CTA's part of what CTA `owner` owns into its memory. A thread of the owner has
    // the same elements as the thread of the same place here, and reads them as they were written.
    DG_DEVICE void send(uint32_t owner, const float (&accum)[kNumWaves][kConfig.block_n / 2]) {
        const uint32_t full = ptx::mapa(ptx::shared_address(pipeline.full_barrier(state)), owner);
        const uint32_t place = ptx::mapa(
            ptx::shared_address(&parts[rank][0][0][threadIdx.x % kConfig.kWarpgroup]), owner);
#pragma unroll
        for (int wave = 0; wave < kNumWaves; ++wave) {
#pragma unroll
            for (int i = 0; i < kOwned; i += 4) {
                const float* four = accum[wave] + owner * kOwned + i;
                const uint32_t offset = (wave * kOwned + i) * sizeof(float) * kConfig.kWarpgroup;
                ptx::store_async(place + offset, four[0], four[1], four[2], four[3], full);
            }
        }
    }

    DG_DEVICE void add(float (&sum)[kNumWaves][kOwned]) const {
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
#pragma unroll
            for (int wave = 0; wave < kNumWaves; ++wave) {
#pragma unroll
                for (int i = 0; i < kOwned; i += 4) {
                    float four[4];
                    ptx::load_shared(
                        parts[part][wave][i / 4][threadIdx.x % kConfig.kWarpgroup].value, four);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        sum[wave][i + j] = part == 0 ? four[j] : sum[wave][i + j] + four[j];
                    }
                }
            }
        }
    }
};

// K is not split.
template <GemmConfig kConfig>
struct PartSum<kConfig, false> {
    DG_DEVICE PartSum(SharedStorage<kConfig>&, int, uint32_t) {}
    DG_DEVICE void finish() {}
};

}  // namespace deep_gemm
