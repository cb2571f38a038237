"""Seeded defects of the sum over a cluster that splits K."""

from __future__ import annotations

from deep_gemm.config.gemm_config import GemmConfig
from tests.emulator.defects import KERNEL, WRONG, Defect
from tests.emulator.dense import Case

CLUSTER_K = Case(GemmConfig(64, 32, 3, 1, cluster_k=2), 200, 40, 1040, num_sms=2)

SUM = "epilogue/sum_parts.cuh"

DEFECTS_OF_SPLIT_K = [
    Defect(
        "parts are not waited for",
        SUM,
        "pipeline.consumer_wait_for_peers(state);",
        "",
        "R2",
        CLUSTER_K,
    ),
    Defect(
        "parts are overwritten before they are read",
        SUM,
        "pipeline.producer_acquire(state);",
        "",
        "race",
        CLUSTER_K,
    ),
    Defect(
        "nobody says that parts are read",
        SUM,
        "pipeline.consumer_release(pipeline.release_address(state));",
        "",
        "R11",
        CLUSTER_K,
    ),
    Defect(
        "too few bytes of parts expected",
        SUM,
        "pipeline.producer_expect(state, kBytes)",
        "pipeline.producer_expect(state, kBytes / 2)",
        "R2",
        CLUSTER_K,
    ),
    Defect(
        "too many bytes of parts expected",
        SUM,
        "pipeline.producer_expect(state, kBytes)",
        "pipeline.producer_expect(state, 2 * kBytes)",
        "R11",
        CLUSTER_K,
    ),
    Defect("all parts in one place", SUM, "&parts[rank]", "&parts[0]", "R29", CLUSTER_K),
    Defect(
        "everyone's columns are the first's",
        SUM,
        "accum[wave] + owner * kOwned + i",
        "accum[wave] + i",
        WRONG,
        CLUSTER_K,
    ),
    Defect(
        "a part is announced in another CTA",
        SUM,
        "pipeline.full_barrier(state)), owner)",
        "pipeline.full_barrier(state)), rank)",
        "R14",
        CLUSTER_K,
    ),
    Defect(
        "a CTA leaves before its peers are done, along k",
        KERNEL,
        "part_sum.finish();",
        "",
        "R12",
        CLUSTER_K,
    ),
]
