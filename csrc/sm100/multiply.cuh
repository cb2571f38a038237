// MMA role: one thread starts all tcgen05 operations of the CTA, in a pair one of the leader those
// of both. It waits for nothing but its operands, and tells who waits for the results by commits.
//
// The scale factors are applied by the tensor cores, and the sum over all of K stays in TMEM with
// nearly the precision of FP32: nothing is promoted.
#pragma once

#include "common/types.cuh"
#include "layout/umma_descriptors.cuh"
#include "ptx/tcgen05.cuh"
#include "ptx/thread.cuh"
#include "scheduler/block.cuh"
#include "sm100/storage.cuh"

namespace deep_gemm {

// Columns of TMEM: the accumulators, then a place for the scale factors of each slot of their ring.
template <Sm100GemmConfig kConfig>
struct TmemMap {
    uint32_t base;

    DG_DEVICE uint32_t accumulator(int idx) const { return base + idx * kConfig.block_n; }
    DG_DEVICE uint32_t sfa(int slot) const {
        return accumulator(kConfig.num_accumulators()) + slot * kConfig.sf_columns();
    }
    DG_DEVICE uint32_t sfb(int slot) const { return sfa(slot) + kConfig.kSfColumns; }
};

template <Sm100GemmConfig kConfig>
struct Sm100Multiplier {
    Sm100Storage<kConfig>& smem;
    TmemMap<kConfig> tmem;
    Sm100TilePipeline<kConfig> tiles;
    Sm100SfPipeline<kConfig> scale_factors;
    AccumulatorPipeline<kConfig> accumulators;
    typename Sm100TilePipeline<kConfig>::State tile;
    typename Sm100SfPipeline<kConfig>::State sf;
    typename AccumulatorPipeline<kConfig>::State accumulator;
    static constexpr int kCtas = kConfig.cluster_m;

    DG_DEVICE explicit Sm100Multiplier(Sm100Storage<kConfig>& smem)
        : smem(smem),
          tmem{smem.tmem},
          tiles{smem.barriers},
          scale_factors{smem.sf_barriers},
          accumulators{smem.accumulator_barriers} {}

    // Starts the product of one block, of at least one k block, in the next accumulator.
    DG_DEVICE void multiply(uint32_t num_k_blocks) {
        accumulators.producer_acquire(accumulator);
        ptx::tcgen05_fence_after_sync();
        for (uint32_t k_block = 0; k_block < num_k_blocks; ++k_block) {
            if (k_block % kConfig.sf_group() == 0) copy_scale_factors();
            tiles.consumer_wait(tile);
            ptx::tcgen05_fence_after_sync();
            multiply_k_block(k_block);
            ptx::tcgen05_commit<kCtas>(tiles.empty_barrier(tile));
            tile.advance();
            const bool ends_group = (k_block + 1) % kConfig.sf_group() == 0;
            if (ends_group || k_block + 1 == num_k_blocks) {
                ptx::tcgen05_commit<kCtas>(scale_factors.empty_barrier(sf));
                sf.advance();
            }
        }
        ptx::tcgen05_commit<kCtas>(accumulators.full_barrier(accumulator));
        accumulator.advance();
    }

    // Waits until the peer's epilogue has arrived here for the last time.
    DG_DEVICE void finish() { accumulators.producer_tail(accumulator); }

  private:
    // Into the columns of their slot. What read those columns before is done: the slot was released
    // by a commit, and filled again since.
    DG_DEVICE void copy_scale_factors() {
        if constexpr (kConfig.shares_mmas()) {
            scale_factors.consumer_wait_for_peers(sf);
        } else {
            scale_factors.consumer_wait(sf);
        }
        ptx::tcgen05_fence_after_sync();
#pragma unroll
        for (int chunk = 0; chunk < 1 + kConfig.sfb_chunks(); ++chunk) {
            ptx::tcgen05_cp_32x128b<kCtas>(tmem.sfa(sf.stage) + chunk * kConfig.kSfColumns,
                                           rows_of_16_bytes(smem.sf[sf.stage][chunk]).at(0));
        }
    }

    DG_DEVICE void multiply_k_block(uint32_t k_block) {
        constexpr int kStepA = kConfig.a_is_mn_major ? kConfig.kMmaK * 128 : kConfig.kMmaK;
        constexpr int kStepB = kConfig.b_is_mn_major ? kConfig.kMmaK * 128 : kConfig.kMmaK;
        const auto a = tile_descriptor<kConfig.a_is_mn_major, kConfig.kBlockK>(smem.a[tile.stage]);
        const auto b = tile_descriptor<kConfig.b_is_mn_major, kConfig.kBlockK>(smem.b[tile.stage]);
#pragma unroll
        for (uint32_t step = 0; step < kConfig.kBlockK / kConfig.kMmaK; ++step) {
            // A scale factor per 32 of K: each step has its byte; one per 128: each k block.
            const uint32_t in_word = k_block % kConfig.kSfWordK;
            const uint32_t idesc = mxf8_instruction<kCtas * kConfig.kMmaM, kConfig.block_n,
                                                    kConfig.a_is_mn_major, kConfig.b_is_mn_major>(
                kConfig.gran_k_a == kConfig.kMmaK ? step : in_word,
                kConfig.gran_k_b == kConfig.kMmaK ? step : in_word);
            ptx::tcgen05_mma_mxf8<kCtas>(tmem.accumulator(accumulator.stage), a.at(step * kStepA),
                                         b.at(step * kStepB), idesc, tmem.sfa(sf.stage),
                                         tmem.sfb(sf.stage), k_block + step != 0);
        }
    }
};

}  // namespace deep_gemm
