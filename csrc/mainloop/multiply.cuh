// Math role: one block of D in the registers of the math warpgroups.
#pragma once

#include "common/types.cuh"
#include "config.cuh"
#include "layout/accumulator.cuh"
#include "layout/smem_descriptor.cuh"
#include "mainloop/promotion.cuh"
#include "pipeline/shared_storage.cuh"
#include "ptx/wgmma.cuh"

namespace deep_gemm {

// Starts the tensor cores on one k block of one M64 slice: accum = A[64, 128] @ B[block_n, 128].T.
template <int kBlockN>
DG_DEVICE void start_k_block(float (&accum)[kBlockN / 2], const uint8_t* a, const uint8_t* b) {
    const uint64_t descriptor_a = make_smem_descriptor(a);
    const uint64_t descriptor_b = make_smem_descriptor(b);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < GemmConfig::kBlockK; k += GemmConfig::kMmaK) {
        ptx::WgmmaFp8<kBlockN>::mma_async(accum, advance_k(descriptor_a, k),
                                          advance_k(descriptor_b, k), k != 0);
    }
    ptx::wgmma_commit_group();
}

// The main loop of one math warpgroup. It lives as long as the CTA and keeps its place in the ring.
template <GemmConfig kConfig, typename Pipeline>
struct Multiplier {
    static constexpr int kNumWaves = kConfig.num_waves();
    static constexpr int kAccumSize = kConfig.block_n / 2;

    const SharedStorage<kConfig>& smem;
    Pipeline pipeline;
    int first_row;                     // of the warpgroup, in the stage
    int sf_row;                        // of the thread
    typename Pipeline::State started;  // next k block to start
    typename Pipeline::State pending;  // oldest k block that is not released

    DG_DEVICE Multiplier(const SharedStorage<kConfig>& smem, Pipeline pipeline, int warpgroup_idx)
        : smem(smem),
          pipeline(pipeline),
          first_row(warpgroup_idx * kNumWaves * kConfig.kMmaM),
          sf_row(first_row + accumulator_row(threadIdx.x % kConfig.kWarpgroup)) {}

    // final += A @ B.T with scale factors, for the warpgroup's M64 slices of one block over all of
    // K.
    //   n_offset   columns between the origin of the first SFB and the block's first column
    DG_DEVICE void multiply(float (&final_accum)[kNumWaves][kAccumSize], uint32_t num_k_blocks,
                            uint32_t n_offset) {
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
        float even[kAccumSize], odd[kAccumSize];
        start(even);
        for (; num_k_blocks > 2; num_k_blocks -= 2) {
            start(odd);
            finish<1>(final_accum, even, n_offset);
            start(even);
            finish<1>(final_accum, odd, n_offset);
        }
        if (num_k_blocks == 2) {
            start(odd);
            finish<1>(final_accum, even, n_offset);
            finish<0>(final_accum, odd, n_offset);
        } else {
            finish<0>(final_accum, even, n_offset);
        }
    }

    DG_DEVICE void start(float (&accum)[kAccumSize]) {
        pipeline.consumer_wait(started);
        start_k_block<kConfig.block_n>(accum, smem.a[started.stage] + first_row * kConfig.kBlockK,
                                       smem.b[started.stage]);
        started.advance();
    }

    // Waits for the oldest k block, with kInFlight newer ones left running, and adds it.
    template <int kInFlight>
    DG_DEVICE void finish(float (&final_accum)[kAccumSize], float (&accum)[kAccumSize],
                          uint32_t n_offset) {
        const ScaleFactors<kConfig> sf(smem, pending.stage, sf_row);
        ptx::wgmma_wait_group<kInFlight>(accum);
        pipeline.consumer_release(pending);
        pending.advance();
        promote<kConfig>(final_accum, accum, sf, n_offset);
    }

    // One partial sum: multiply, wait, promote. The tensor cores are kept busy by the other
    // warpgroup.
    DG_DEVICE void multiply_in_turn(float (&final_accum)[kNumWaves][kAccumSize],
                                    uint32_t num_k_blocks, uint32_t n_offset) {
        float accum[kAccumSize];
        for (uint32_t k_block_idx = 0; k_block_idx < num_k_blocks; ++k_block_idx) {
            const int stage = pending.stage;
            pipeline.consumer_wait(pending);
#pragma unroll
            for (int wave = 0; wave < kNumWaves; ++wave) {
                const int row = wave * kConfig.kMmaM;
                start_k_block<kConfig.block_n>(
                    accum, smem.a[stage] + (first_row + row) * kConfig.kBlockK, smem.b[stage]);
                const ScaleFactors<kConfig> sf(smem, stage, sf_row + row);
                ptx::wgmma_wait_group<0>(accum);
                if (wave == kNumWaves - 1) pipeline.consumer_release(pending);
                promote<kConfig>(final_accum[wave], accum, sf, n_offset);
            }
            pending.advance();
        }
    }
};

}  // namespace deep_gemm
