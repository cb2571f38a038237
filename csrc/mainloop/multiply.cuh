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
DG_DEVICE void multiply_k_block(float (&accum)[kBlockN / 2], const uint8_t* a, const uint8_t* b) {
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

// Computes the warpgroup's M64 slices of one block over all of K.
//   n_offset   columns between the origin of the block's first SFB and the block's first column
template <GemmConfig kConfig, typename Pipeline>
DG_DEVICE void multiply_block(float (&final_accum)[kConfig.num_waves()][kConfig.block_n / 2],
                              const SharedStorage<kConfig>& smem, Pipeline pipeline,
                              typename Pipeline::State& state, uint32_t num_k_blocks,
                              uint32_t n_offset, int warpgroup_idx) {
    const int first_row = warpgroup_idx * kConfig.num_waves() * kConfig.kMmaM;
    const int sf_row = first_row + accumulator_row(threadIdx.x % kConfig.kWarpgroup);
    float accum[kConfig.block_n / 2];

    for (uint32_t k_block_idx = 0; k_block_idx < num_k_blocks; ++k_block_idx) {
        const int stage = state.stage;
        pipeline.consumer_wait(state);
        float sfb[kConfig.num_sfb()];
#pragma unroll
        for (int i = 0; i < kConfig.num_sfb(); ++i) sfb[i] = smem.sfb[stage][i];

#pragma unroll
        for (int wave = 0; wave < kConfig.num_waves(); ++wave) {
            const int wave_row = wave * kConfig.kMmaM;
            multiply_k_block<kConfig.block_n>(
                accum, smem.a[stage] + (first_row + wave_row) * kConfig.kBlockK, smem.b[stage]);
            const float sfa[2] = {smem.sfa[stage][sf_row + wave_row],
                                  smem.sfa[stage][sf_row + wave_row + 8]};
            ptx::wgmma_wait_all(accum);
            if (wave == kConfig.num_waves() - 1) pipeline.consumer_release(state);
            promote<kConfig>(final_accum[wave], accum, sfa, sfb, n_offset);
        }
        state.advance();
    }
}

}  // namespace deep_gemm
