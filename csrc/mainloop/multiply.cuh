// Math role: one block of D in the registers of the math warpgroups.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "kernels/arguments.cuh"
#include "layout/accumulator.cuh"
#include "layout/smem_descriptor.cuh"
#include "mainloop/promotion.cuh"
#include "mainloop/scale_factors.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/thread.cuh"
#include "ptx/wgmma.cuh"

namespace deep_gemm {

// The main loop of one math warpgroup. It lives as long as the CTA and keeps its place in the
// rings.
//
// What counts is the time from the end of one k block's WGMMA to the start of the next one's. So
// all that can be is done while the tensor cores work: scale factors are read, descriptors and
// barrier addresses computed, and the next stage is asked whether it is full.
template <GemmConfig kConfig>
struct Multiplier {
    static constexpr int kNumWaves = kConfig.num_waves();
    static constexpr int kAccumSize = kConfig.block_n / 2;
    static constexpr int kSliceBytes = kConfig.kMmaM * kConfig.kBlockK;
    using State = typename TilePipeline<kConfig>::State;

    // A k block's product and the scale factors that it awaits.
    struct Partial {
        float accum[kAccumSize];
        ScaleFactors<kConfig> sf;
    };

    TilePipeline<kConfig> pipeline;
    ScaleFactorReader<kConfig> sf_reader;
    State started;     // next k block to start
    SmemDescriptor a;  // the warpgroup's rows of A in its stage
    SmemDescriptor b;  // B in its stage
    // Where there are two in flight:
    bool is_full = false;  // whether that stage is known to be full
    State pending;         // oldest k block that is not released

    DG_DEVICE Multiplier(SharedStorage<kConfig>& smem, SfaLoad sfa_load, int warpgroup_idx)
        : pipeline{smem.barriers},
          sf_reader(smem, sfa_load,
                    warpgroup_idx * kNumWaves * kConfig.kMmaM +
                        accumulator_row(threadIdx.x % kConfig.kWarpgroup)),
          a(smem.a[0] + warpgroup_idx * kNumWaves * kSliceBytes),
          b(smem.b[0]) {}

    // final += A @ B.T with scale factors, for the warpgroup's M64 slices of one block over all of
    // K.
    //   n_offset   columns between the origin of the first SFB and the block's first column
    DG_DEVICE void multiply(float (&final_accum)[kNumWaves][kAccumSize], uint32_t num_k_blocks,
                            uint32_t n_offset) {
        constexpr bool kMayBeEmpty = kConfig.grouping != Grouping::kDense || kConfig.cluster_k > 1;
        if (kMayBeEmpty && num_k_blocks == 0) return;
        if constexpr (kConfig.num_accumulators() == 2) {
            multiply_overlapped(final_accum[0], num_k_blocks, n_offset);
        } else {
            multiply_in_turn(final_accum, num_k_blocks, n_offset);
        }
    }

  private:
    // Two partial sums: while one is promoted, the tensor cores work on the other. The loop is
    // unrolled by hand so that each has its registers, and its last turn is peeled so that the
    // number of groups in flight is the same on every path, without which ptxas serialises them.
    DG_DEVICE void multiply_overlapped(float (&final_accum)[kAccumSize], uint32_t num_k_blocks,
                                       uint32_t n_offset) {
        Partial even, odd;
        start(even, num_k_blocks == 1);
        for (; num_k_blocks > 2; num_k_blocks -= 2) {
            start(odd, false);
            finish<1>(final_accum, even, n_offset);
            start(even, num_k_blocks == 3);
            finish<1>(final_accum, odd, n_offset);
        }
        if (num_k_blocks == 2) {
            start(odd, true);
            finish<1>(final_accum, even, n_offset);
            finish<0>(final_accum, odd, n_offset);
        } else {
            finish<0>(final_accum, even, n_offset);
        }
    }

    DG_DEVICE void start(Partial& partial, bool is_last) {
        if (!is_full) pipeline.consumer_wait(started);
        start_slice(partial.accum, 0);
        step_to_next_stage();
        is_full = pipeline.consumer_test(started);
        partial.sf = sf_reader.next(is_last);
    }

    // Waits for the oldest k block, with kInFlight newer ones left running, and adds it.
    template <int kInFlight>
    DG_DEVICE void finish(float (&final_accum)[kAccumSize], Partial& partial, uint32_t n_offset) {
        const uint32_t release_address = pipeline.release_address(pending);
        const ScaleProducts<kConfig> products(partial.sf, 0);
        pending.advance();
        ptx::wgmma_wait_group<kInFlight>(partial.accum);
        pipeline.consumer_release(release_address);
        products.promote(final_accum, partial.accum, n_offset);
    }

    // One partial sum: multiply, wait, promote. The tensor cores are kept busy by the other
    // warpgroup, if this one is not long about its own part: so the loop is unrolled by a group of
    // scale factors, which are read together under the group's first WGMMA.
    DG_DEVICE void multiply_in_turn(float (&final_accum)[kNumWaves][kAccumSize],
                                    uint32_t num_k_blocks, uint32_t n_offset) {
        float accum[kAccumSize];
        pipeline.consumer_wait(started);
        int left = num_k_blocks;
        while (left > kConfig.kSfGroup) {
            left -= kConfig.kSfGroup;
            multiply_group<false>(final_accum, accum, kConfig.kSfGroup, n_offset);
        }
        multiply_group<true>(final_accum, accum, left, n_offset);
    }

    // The k blocks of one group of scale factors: all four, or in the last group at least one.
    //
    // Each is promoted and then waits for the tiles of the next. No branch lies between the two,
    // but in the last group: so ptxas asks for the tiles before it promotes, and a taken branch
    // less lies between two WGMMAs.
    template <bool kIsLast>
    DG_DEVICE void multiply_group(float (&final_accum)[kNumWaves][kAccumSize],
                                  float (&accum)[kAccumSize], int num_k_blocks, uint32_t n_offset) {
        ScaleFactors<kConfig> sf[kConfig.kSfGroup];
#pragma unroll
        for (int k = 0; k < kConfig.kSfGroup; ++k) {
            const bool ends_group = k == num_k_blocks - 1;
            multiply_k_block(final_accum, accum, sf, k, ends_group, n_offset);
            if (kIsLast && ends_group) break;
            pipeline.consumer_wait(started);
        }
    }

    // K block `k` of a group of scale factors.
    DG_DEVICE void multiply_k_block(float (&final_accum)[kNumWaves][kAccumSize],
                                    float (&accum)[kAccumSize],
                                    ScaleFactors<kConfig> (&sf)[kConfig.kSfGroup], int k,
                                    bool ends_group, uint32_t n_offset) {
        uint32_t release_address;
#pragma unroll
        for (int wave = 0; wave < kNumWaves; ++wave) {
            start_slice(accum, wave);
            if (wave == 0) {
                release_address = pipeline.release_address(started);
                read_scale_factors(sf, k, ends_group);
            }
            const ScaleProducts<kConfig> products(sf[k], wave);
            if (wave == kNumWaves - 1) step_to_next_stage();
            ptx::wgmma_wait_group<0>(accum);
            if (wave == kNumWaves - 1) pipeline.consumer_release(release_address);
            products.promote(final_accum[wave], accum, n_offset);
        }
    }

    // Reads the scale factors of a whole group at its first k block, or where they would take too
    // many registers those of each k block when it comes.
    DG_DEVICE void read_scale_factors(ScaleFactors<kConfig> (&sf)[kConfig.kSfGroup], int k,
                                      bool ends_group) {
        if (k == 0) sf_reader.begin_group();
        if (!kConfig.reads_sf_groups()) {
            sf[k] = sf_reader.read(k);
            if (ends_group) sf_reader.end_group();
        } else if (k == 0) {
#pragma unroll
            for (int i = 0; i < kConfig.kSfGroup; ++i) sf[i] = sf_reader.read(i);
            sf_reader.end_group();
        }
    }

    // Starts the tensor cores on one k block of one M64 slice: A[64, 128] @ B[block_n, 128].T.
    DG_DEVICE void start_slice(float (&accum)[kAccumSize], int wave) const {
        ptx::wgmma_fence();
        ptx::WgmmaFp8<kConfig.block_n>::mma_async(accum, a, wave * kSliceBytes, b, 0);
        ptx::wgmma_commit_group();
    }

    DG_DEVICE void step_to_next_stage() {
        constexpr int kBack = 1 - kConfig.num_stages;
        started.advance();
        const bool wraps = started.stage == 0;
        a.advance(kConfig.a_tile_bytes() * (wraps ? kBack : 1));
        b.advance(kConfig.b_tile_bytes() * (wraps ? kBack : 1));
        ptx::compute_here(a.low);
        ptx::compute_here(b.low);
    }
};

}  // namespace deep_gemm
