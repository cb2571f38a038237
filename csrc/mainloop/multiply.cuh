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
#include "ptx/wgmma.cuh"

namespace deep_gemm {

// The main loop of one math warpgroup. It lives as long as the CTA and keeps its place in the
// rings.
//
// A warpgroup multiplies a k block in pieces: an M64 slice, by all columns of the block or by half
// of them. Two partial sums take turns: while one piece is promoted, the tensor cores work on the
// next, which is always started before. What else there is to do, such as reading scale factors,
// releasing stages and asking for the next one, is done while the tensor cores work, too.
template <GemmConfig kConfig>
struct Multiplier {
    static constexpr int kNumWaves = kConfig.num_waves();
    static constexpr int kNumPieces = kConfig.num_pieces();
    static constexpr int kPieceN = kConfig.piece_n();
    static constexpr int kSliceBytes = kConfig.kMmaM * kConfig.kBlockK;
    using State = typename TilePipeline<kConfig>::State;
    using Final = float[kNumWaves][kConfig.block_n / 2];

    // A piece's product and the scale factors that it awaits.
    struct Partial {
        float accum[kPieceN / 2];
        ScaleFactors<kConfig> sf;
    };

    TilePipeline<kConfig> pipeline;
    ScaleFactorReader<kConfig> sf_reader;
    State started;         // next k block to start
    State pending;         // oldest k block that is not released
    SmemDescriptor a;      // the warpgroup's rows of A in the stage of `started`
    SmemDescriptor b;      // B in that stage
    bool is_full = false;  // whether that stage is known to be full

    DG_DEVICE Multiplier(SharedStorage<kConfig>& smem, SfQuads sfa_quads, int warpgroup_idx)
        : pipeline{smem.barriers},
          sf_reader(smem, sfa_quads,
                    warpgroup_idx * kNumWaves * kConfig.kMmaM +
                        accumulator_row(threadIdx.x % kConfig.kWarpgroup)),
          a(smem.a[0] + warpgroup_idx * kNumWaves * kSliceBytes),
          b(smem.b[0]) {}

    // final += A @ B.T with scale factors, for the warpgroup's M64 slices of one block over all of
    // K.
    //   n_offset   columns between the origin of the first SFB and the block's first column
    //
    // In both forms of the loop the last turn is peeled, so that the number of groups in flight is
    // the same on every path, without which ptxas serialises them; and a partial sum's place is
    // known to the compiler, so that it has registers.
    DG_DEVICE void multiply(Final& final_accum, uint32_t num_k_blocks, uint32_t n_offset) {
        if constexpr (kNumPieces == 1) {
            multiply_whole(final_accum, num_k_blocks, n_offset);
        } else {
            multiply_by_pieces(final_accum, num_k_blocks, n_offset);
        }
    }

  private:
    // Several pieces to a k block, an even number: a turn is a k block.
    DG_DEVICE void multiply_by_pieces(Final& final_accum, uint32_t num_k_blocks,
                                      uint32_t n_offset) {
        Partial partials[2];
        ScaleFactors<kConfig> sf[kNumWaves];
        start_k_block(partials[0], sf, num_k_blocks == 1);
        multiply_other_pieces(final_accum, partials, sf, n_offset);
        for (; num_k_blocks > 1; --num_k_blocks) {
            start_k_block(partials[0], sf, num_k_blocks == 2);
            finish_k_block<1>(final_accum, partials[1], n_offset);
            multiply_other_pieces(final_accum, partials, sf, n_offset);
        }
        // Always true. Without the other way, ptxas serialises the groups of the loop.
        if (num_k_blocks == 1) {
            finish_k_block<0>(final_accum, partials[1], n_offset);
        } else {
            ptx::wgmma_wait_group<0>(partials[0].accum);
        }
    }

    // Starts all pieces of a k block but the first, and finishes all but the last.
    DG_DEVICE void multiply_other_pieces(Final& final_accum, Partial (&partials)[2],
                                         const ScaleFactors<kConfig> (&sf)[kNumWaves],
                                         uint32_t n_offset) {
#pragma unroll
        for (int piece = 1; piece < kNumPieces; ++piece) {
            Partial& partial = partials[piece % 2];
            start_piece(partial, piece);
            partial.sf = sf[piece / kConfig.pieces_per_slice()];
            if (piece == kNumPieces - 1) step_to_next_stage();
            finish_piece<1>(final_accum, partials[(piece - 1) % 2], piece - 1, n_offset);
        }
    }

    // One piece to a k block: a turn is two k blocks.
    DG_DEVICE void multiply_whole(Final& final_accum, uint32_t num_k_blocks, uint32_t n_offset) {
        Partial even, odd;
        ScaleFactors<kConfig> sf[1];
        start_k_block(even, sf, num_k_blocks == 1);
        for (; num_k_blocks > 2; num_k_blocks -= 2) {
            start_k_block(odd, sf, false);
            finish_k_block<1>(final_accum, even, n_offset);
            start_k_block(even, sf, num_k_blocks == 3);
            finish_k_block<1>(final_accum, odd, n_offset);
        }
        if (num_k_blocks == 2) {
            start_k_block(odd, sf, true);
            finish_k_block<1>(final_accum, even, n_offset);
            finish_k_block<0>(final_accum, odd, n_offset);
        } else {
            finish_k_block<0>(final_accum, even, n_offset);
        }
    }

    // Waits for a k block's tiles, starts its first piece and reads its scale factors.
    DG_DEVICE void start_k_block(Partial& partial, ScaleFactors<kConfig> (&sf)[kNumWaves],
                                 bool is_last) {
        if (!is_full) pipeline.consumer_wait(started);
        start_piece(partial, 0);
        if (kNumPieces == 1) step_to_next_stage();
        sf_reader.read(sf, is_last);
        partial.sf = sf[0];
    }

    // Waits for the last piece of the oldest k block and promotes it; the stage is read then.
    template <int kInFlight>
    DG_DEVICE void finish_k_block(Final& final_accum, Partial& partial, uint32_t n_offset) {
        const uint32_t release_address = pipeline.release_address(pending);
        pending.advance();
        ptx::wgmma_wait_group<kInFlight>(partial.accum);
        pipeline.consumer_release(release_address);
        promote_piece(final_accum, partial, kNumPieces - 1, n_offset);
    }

    // Waits for a piece, with kInFlight newer ones left running, and promotes it.
    template <int kInFlight>
    DG_DEVICE void finish_piece(Final& final_accum, Partial& partial, int piece,
                                uint32_t n_offset) {
        ptx::wgmma_wait_group<kInFlight>(partial.accum);
        promote_piece(final_accum, partial, piece, n_offset);
    }

    DG_DEVICE void promote_piece(Final& final_accum, const Partial& partial, int piece,
                                 uint32_t n_offset) {
        const int wave = piece / kConfig.pieces_per_slice();
        const int column = piece % kConfig.pieces_per_slice() * kPieceN;
        promote<kConfig>(final_accum[wave], column, partial.accum, partial.sf, n_offset);
    }

    // Starts the tensor cores on A[64, 128] @ B[piece_n, 128].T.
    DG_DEVICE void start_piece(Partial& partial, int piece) const {
        const int a_offset = piece / kConfig.pieces_per_slice() * kSliceBytes;
        const int b_offset = piece % kConfig.pieces_per_slice() * kPieceN * kConfig.kBlockK;
        ptx::wgmma_fence();
#pragma unroll
        for (int k = 0; k < kConfig.kBlockK; k += kConfig.kMmaK) {
            ptx::WgmmaFp8<kPieceN>::mma_async(partial.accum, a.at(a_offset + k), b.at(b_offset + k),
                                              k != 0);
        }
        ptx::wgmma_commit_group();
    }

    DG_DEVICE void step_to_next_stage() {
        started.advance();
        const int stages = started.stage == 0 ? 1 - kConfig.num_stages : 1;
        a.advance(kConfig.a_tile_bytes() * stages);
        b.advance(kConfig.b_tile_bytes() * stages);
        is_full = pipeline.consumer_test(started);
    }
};

}  // namespace deep_gemm
