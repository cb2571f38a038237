"""More seeded defects of the dense kernel: of order and of undefined values.

They show as wrong bits at best, and some of them in no order of a run: they are found by what is
known to happen before what, and by following what is undefined.
"""

from __future__ import annotations

from tests.emulator.defects import (
    BY_TMA,
    CLUSTER_N,
    IN_TURN,
    IN_TURN_BY_TMA,
    KERNEL,
    LOAD_SF,
    MULTIPLY,
    PIPELINE,
    READ_FENCE,
    READ_SF,
    STAGE,
    Defect,
)

MBARRIER = "ptx/mbarrier.cuh"

DEFECTS_OF_ORDER = [
    Defect(
        "scale factors are released before they are read",
        READ_SF,
        """const ScaleFactors<kConfig> sf = read(k_in_group);
        if (++k_in_group == kConfig.kSfGroup || is_last) {
            end_group();""",
        """if (k_in_group == 0) pipeline.consumer_release(pipeline.release_address(state));
        const ScaleFactors<kConfig> sf = read(k_in_group);
        if (++k_in_group == kConfig.kSfGroup || is_last) {
            state.advance();""",
        "race",
    ),
    Defect(
        "scale factors are released before they are read, in turn",
        MULTIPLY,
        """for (int i = 0; i < kConfig.kSfGroup; ++i) sf[i] = sf_reader.read(i);
            sf_reader.end_group();""",
        """const auto early = sf_reader;
            sf_reader.end_group();
            for (int i = 0; i < kConfig.kSfGroup; ++i) sf[i] = early.read(i);""",
        "race",
        IN_TURN,
    ),
    Defect(
        "an arrival that releases nothing",
        MBARRIER,
        "mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];",
        "mbarrier.arrive.relaxed.cta.shared::cta.b64 _, [%0];",
        "R3",
    ),
    Defect(
        "proxy fence after the arrival",
        STAGE,
        """ptx::fence_proxy_async();
            __syncwarp();
            if (ptx::lane_idx() == 0) pipeline.producer_arrive(state);""",
        """__syncwarp();
            if (ptx::lane_idx() == 0) pipeline.producer_arrive(state);
            ptx::fence_proxy_async();""",
        "R1",
    ),
    Defect(
        "proxy fence in all threads but one",
        STAGE,
        "ptx::fence_proxy_async();",
        "if (threadIdx.x != 77) ptx::fence_proxy_async();",
        "R1",
    ),
    Defect(
        "mbarriers are not shown to the cluster",
        PIPELINE,
        "        ptx::fence_mbarrier_init();\n",
        "",
        "R9",
        CLUSTER_N,
    ),
    Defect(
        "no proxy fence behind reads",
        PIPELINE,
        READ_FENCE,
        "consumer_release(release_address);",
        "R35",
        BY_TMA,
    ),
    Defect(
        "no proxy fence behind reads, in turn",
        PIPELINE,
        READ_FENCE,
        "consumer_release(release_address);",
        "R35",
        IN_TURN_BY_TMA,
    ),
    Defect(
        "proxy fence behind reads in the arriving lane only",
        PIPELINE,
        READ_FENCE,
        f"if (ptx::lane_idx() == 0) {READ_FENCE}",
        "R35",
        BY_TMA,
    ),
    Defect(
        "proxy fence behind reads in all lanes but one",
        PIPELINE,
        READ_FENCE,
        f"if (ptx::lane_idx() != 13) {READ_FENCE}",
        "R35",
        BY_TMA,
    ),
    Defect(
        "proxy fence behind the arrival that tells of reads",
        PIPELINE,
        READ_FENCE,
        "consumer_release(release_address);\n        ptx::fence_proxy_async();",
        "R35",
        BY_TMA,
    ),
    # Undefined values
    Defect(
        "a row of scale factors is not loaded",
        LOAD_SF,
        "row < kConfig.block_m;",
        "row < kConfig.block_m - 1;",
        "R26",
    ),
    Defect(
        "a k block of scale factors is not loaded",
        LOAD_SF,
        "for (int k = 0; k < kConfig.kSfGroup; ++k) {",
        "for (int k = 0; k < kConfig.kSfGroup - 1; ++k) {",
        "R26",
    ),
    Defect(
        "the sum starts undefined",
        KERNEL,
        "[kConfig.block_n / 2] = {};",
        "[kConfig.block_n / 2];",
        "R26",
    ),
]
