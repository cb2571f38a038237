"""Seeded defects of the dense kernel: small edits of its headers, and what each must come to."""

from __future__ import annotations

from dataclasses import dataclass

from deep_gemm.config.gemm_config import GemmConfig
from tests.emulator.dense import Case

WRONG = "wrong"
"""The outcome of a run that ends, with wrong bits or a write outside of the output."""

# Four blocks per CTA, an odd number of k blocks, more of them than stages.
OVERLAPPED = Case(GemmConfig(64, 32, 3, 1), 70, 40, 1040, num_sms=1)
IN_TURN = Case(GemmConfig(64, 160, 3, 1), 70, 168, 912, num_sms=1)
# The same, with scale factors whose rows TMA takes.
BY_TMA = Case(GemmConfig(64, 32, 3, 1), 70, 40, 512, num_sms=1)
IN_TURN_BY_TMA = Case(GemmConfig(64, 160, 3, 1), 70, 168, 512, num_sms=1)
CLUSTER_M = Case(GemmConfig(64, 32, 3, 1, 2, 1), 200, 40, 1040, num_sms=2)
CLUSTER_N = Case(GemmConfig(64, 32, 3, 1, 1, 2), 70, 72, 1040, num_sms=2)

PIPELINE = "pipeline/pipeline.cuh"
STORAGE = "pipeline/shared_storage.cuh"
KERNEL = "kernels/sm90_fp8_gemm.cuh"
LOAD_TILES = "mainloop/load_tiles.cuh"
LOAD_SF = "mainloop/load_scale_factors.cuh"
READ_SF = "mainloop/scale_factors.cuh"
MULTIPLY = "mainloop/multiply.cuh"
STAGE = "epilogue/stage_block.cuh"
STORE = "epilogue/store_block.cuh"
WGMMA = "ptx/wgmma.cuh"
COPY = "ptx/copy.cuh"
DESCRIPTOR = "layout/smem_descriptor.cuh"
CONFIG = "config.cuh"
BF16_SLAB = "slab + swizzle<kSlabBytes>(offset), ptx::cvt_bf16x2"
STAGED = "if (ptx::lane_idx() == 0) pipeline.producer_arrive(state);"
ACQUIRE = "            pipeline.producer_acquire(state);\n"
TAIL = "if (kConfig.multicast_size() > 1 && issues) pipeline.producer_tail(state);"
READ_FENCE = "ptx::fence_proxy_async();\n        consumer_release(release_address);"
ARRIVE = "ptx::mbarrier_arrive<(kClusterSize > 1)>(release_address);"


@dataclass(frozen=True)
class Defect:
    """An edit of one header, and what must come of it.

    Attributes:
        name: what is wrong.
        header: the file.
        before: text that is in it once.
        after: what replaces it.
        outcome: rule of the hazard that a run ends with, or WRONG.
        case: a problem that shows it.
    """

    name: str
    header: str
    before: str
    after: str
    outcome: str
    case: Case = OVERLAPPED

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


DEFECTS = [
    # Proxies and wgmma
    Defect("no proxy fence", STAGE, "ptx::fence_proxy_async();", "", "R1"),
    Defect(
        "proxy fence in the arriving lanes only",
        STAGE,
        "ptx::fence_proxy_async();",
        "if (ptx::lane_idx() == 0) ptx::fence_proxy_async();",
        "R1",
    ),
    Defect("no wgmma.fence", MULTIPLY, "ptx::wgmma_fence();", "", "R6"),
    Defect("no wgmma.fence, in turn", MULTIPLY, "ptx::wgmma_fence();", "", "R6", IN_TURN),
    Defect("no wgmma.commit_group", MULTIPLY, "ptx::wgmma_commit_group();", "", "R7"),
    Defect(
        "one wgmma group too many left",
        MULTIPLY,
        "wgmma_wait_group<kInFlight>",
        "wgmma_wait_group<kInFlight + 1>",
        "R7",
    ),
    Defect(
        "no wait for wgmma",
        MULTIPLY,
        "ptx::wgmma_wait_group<0>(accum);",
        "",
        "R7",
        IN_TURN,
    ),
    Defect(
        "stage released before wgmma has read it",
        MULTIPLY,
        """ptx::wgmma_wait_group<kInFlight>(partial.accum);
        pipeline.consumer_release(release_address);""",
        """pipeline.consumer_release(release_address);
        ptx::wgmma_wait_group<kInFlight>(partial.accum);""",
        "R3",
    ),
    Defect(
        "stage released before wgmma has read it, in turn",
        MULTIPLY,
        """ptx::wgmma_wait_group<0>(accum);
            if (wave == kNumWaves - 1) pipeline.consumer_release(release_address);""",
        """if (wave == kNumWaves - 1) pipeline.consumer_release(release_address);
            ptx::wgmma_wait_group<0>(accum);""",
        "R3",
        IN_TURN,
    ),
    Defect("wrong stride in a descriptor", DESCRIPTOR, "| (1024 / 16)", "| (512 / 16)", WRONG),
    Defect("wrong layout in a descriptor", DESCRIPTOR, "(1u << 30)", "(2u << 30)", "R15"),
    Defect("reserved bit in a descriptor", DESCRIPTOR, "(1u << 30)", "(5u << 28)", "R16"),
    Defect(
        "B starts 16 bytes late", MULTIPLY, "kSliceBytes, b, 0);", "kSliceBytes, b, 16);", "R15"
    ),
    # mbarriers
    Defect("a lane arrives twice", PIPELINE, ARRIVE, f"{{ {ARRIVE} {ARRIVE} }}", "R11"),
    Defect(
        "nobody arrives in the first warp",
        PIPELINE,
        "if (ptx::lane_idx() < kClusterSize)",
        "if (ptx::lane_idx() < kClusterSize && threadIdx.x >= 32)",
        "R11",
    ),
    Defect(
        "too few arrivals expected",
        PIPELINE,
        "kEmptyArrivals = kNumReaders * kClusterSize",
        "kEmptyArrivals = kNumReaders * kClusterSize - (kNumReaders > 1)",
        "R3",
    ),
    Defect(
        "too many arrivals expected",
        PIPELINE,
        "kEmptyArrivals = kNumReaders * kClusterSize",
        "kEmptyArrivals = kNumReaders * kClusterSize + 1",
        "R11",
    ),
    Defect(
        "peers are not told",
        PIPELINE,
        "ptx::mapa(empty, ptx::lane_idx())",
        "ptx::mapa(empty, ptx::cluster_ctarank())",
        "R29",
        CLUSTER_M,
    ),
    Defect(
        "too many bytes expected",
        LOAD_TILES,
        "kConfig.stage_tx_bytes()",
        "kConfig.stage_tx_bytes() + 128",
        "R11",
    ),
    Defect(
        "too few bytes expected",
        LOAD_TILES,
        "kConfig.stage_tx_bytes()",
        "kConfig.stage_tx_bytes() - 128",
        "R10",
    ),
    Defect("wrong parity in the producer", PIPELINE, "state.phase ^ 1", "state.phase", "R11"),
    Defect(
        "wrong parity in the consumer",
        PIPELINE,
        "ptx::mbarrier_wait_parity(&barriers.full[state.stage], state.phase);",
        "ptx::mbarrier_wait_parity(&barriers.full[state.stage], state.phase ^ 1);",
        "R11",
    ),
    Defect("parity never flips", PIPELINE, "phase ^= 1;", "", "R29"),
    Defect(
        "consumer does not wait for tiles",
        MULTIPLY,
        "if (!is_full) pipeline.consumer_wait(started);",
        "",
        "R3",
    ),
    Defect(
        "producer does not wait for an empty stage",
        LOAD_TILES,
        "pipeline.producer_acquire(state);",
        "",
        "R29",
    ),
    # CTA and cluster
    Defect("no barrier after init", KERNEL, "__syncthreads();", "", "R9"),
    Defect(
        "no cluster barrier after init",
        KERNEL,
        """        ptx::cluster_sync();
    } else {""",
        """        __syncwarp();
        __syncthreads();
    } else {""",
        "R9",
        CLUSTER_M,
    ),
    Defect(
        "a CTA leaves before its peers are done",
        LOAD_TILES,
        TAIL,
        "",
        "R12",
        CLUSTER_M,
    ),
    Defect(
        "a CTA leaves before its peers are done, along n",
        LOAD_TILES,
        TAIL,
        "",
        "R12",
        CLUSTER_N,
    ),
    Defect(
        "mask without a CTA", LOAD_TILES, "((1 << kConfig.cluster_m) - 1)", "1", "R11", CLUSTER_M
    ),
    Defect(
        "mask beyond the cluster",
        LOAD_TILES,
        "((1 << kConfig.cluster_m) - 1)",
        "((2 << kConfig.cluster_m) - 1)",
        "R13",
        CLUSTER_M,
    ),
    Defect(
        "both peers load the same part",
        LOAD_TILES,
        "tile + rank * kPart * GemmConfig::kBlockK",
        "tile",
        "R29",
        CLUSTER_M,
    ),
    # Epilogue
    Defect("wrong swizzle of D", STAGE, BF16_SLAB, "slab + offset, ptx::cvt_bf16x2", WRONG),
    Defect(
        "the staging memory is free before its store has read it",
        STORE,
        "            ptx::tma_store_wait_read();\n",
        "",
        "R4",
    ),
    Defect(
        "stores are not committed",
        STORE,
        "            ptx::tma_store_commit_group();\n",
        "",
        "R4",
    ),
    Defect("D is overwritten before it is free", STAGE, ACQUIRE, "", "R4"),
    Defect("D is stored before it is staged", STORE, "pipeline.consumer_wait(state);", "", "R26"),
    Defect(
        "a store that waits for too many warps",
        STORAGE,
        "using StorePipeline = Pipeline<1, 4, 1, 1>;",
        "using StorePipeline = Pipeline<1, 5, 1, 1>;",
        "R11",
    ),
    Defect(
        "a store that waits for too few warps",
        STORAGE,
        "using StorePipeline = Pipeline<1, 4, 1, 1>;",
        "using StorePipeline = Pipeline<1, 3, 1, 1>;",
        "R1",
    ),
    Defect("staging is not announced", STAGE, STAGED, "", "R11"),
    # Addresses
    Defect(
        "a misaligned box",
        LOAD_TILES,
        "ptx::tma_load_3d(tile + part",
        "ptx::tma_load_3d(tile + 64 + part",
        "R14",
    ),
    Defect(
        "scale factors beyond the last row", LOAD_SF, "row < rows && k < ks", "k < ks", "bounds"
    ),
    Defect(
        "scale factors over the barriers",
        LOAD_SF,
        "row < kConfig.block_m;",
        "row < 6 * kConfig.block_m;",
        "R29",
    ),
    # Scale factors
    Defect(
        "scale factors are not waited for",
        READ_SF,
        "pipeline.consumer_wait(state);",
        "",
        "R2",
    ),
    Defect(
        "scale factors are not waited for, in turn",
        MULTIPLY,
        "if (k == 0) sf_reader.begin_group();",
        "",
        "R2",
        IN_TURN,
    ),
    Defect(
        "scale factors of the next group",
        READ_SF,
        "smem.sfa[state.stage] + layout",
        "smem.sfa[(state.stage + 1) % kConfig.num_sf_groups()] + layout",
        "R2",
    ),
    Defect(
        "scale factors arrive without a barrier",
        PIPELINE,
        "ptx::cp_async_mbarrier_arrive(&barriers.full[state.stage]);",
        "",
        "R11",
    ),
    Defect(
        "scale factors are announced before they arrive",
        PIPELINE,
        "ptx::cp_async_mbarrier_arrive(&barriers.full[state.stage]);",
        "ptx::mbarrier_arrive<false>(ptx::shared_address(&barriers.full[state.stage]));",
        "R2",
    ),
    Defect("a scale factor of the wrong row", READ_SF, "half * 8", "half * 4", WRONG),
]

# Fields of one tensor map (0 is A's, 1 B's, 2 D's), and what a run ends with.
MAP_DEFECTS: dict[str, tuple[int, dict[str, object], str]] = {
    "A is not swizzled": (0, {"swizzle_bytes": 0}, WRONG),
    "half a tile of B": (1, {"box": (128, 16, 1)}, "R11"),
    "two tiles of B": (1, {"box": (128, 64, 1)}, "R10"),
    "D is not swizzled": (2, {"swizzle_bytes": 0}, WRONG),
    "D has more columns but for its last row": (2, {"dims": (48, 69, 1)}, WRONG),
    "D has more rows": (2, {"dims": (40, 128, 1)}, "bounds"),
    "A has more rows": (0, {"dims": (1040, 200, 1)}, "bounds"),
}
