"""Seeded defects of MQA logits: one small edit each, and the emulator or a wrong logit tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

import deep_gemm
from deep_gemm.call_cache import forget_calls
from deep_gemm.emulator.errors import HazardError
from deep_gemm.jit.source import KernelSource, forget_headers
from deep_gemm.kernels import mqa_config, mqa_logits, paged_shares
from tests.emulator.defects import WRONG
from tests.emulator.test_defects import headers, translated
from tests.emulator.test_mqa_logits import random_ranges
from tests.mqa import Pages, Shape, check_matrix, check_pages

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

SCORE = "mqa/score.cuh"
STORE = "mqa/store_logit.cuh"
QUERIES = "mqa/load_queries.cuh"
KEYS = "mqa/load_keys.cuh"
CLEAN = "mqa/clean_logits.cuh"
VISIBLE = "mqa/visible_keys.cuh"
SHARES = "scheduler/tile_shares.cuh"
DESCRIPTOR = "layout/row_descriptor.cuh"

SCORE_TILES = """\
            for (uint32_t i = 0; i < num_tiles; ++i) {
                score_tile(first_key + i * MqaConfig::kTileKeys, end_key);
            }
"""
RELEASE_BLOCK = "blocks.consumer_release(blocks.release_address(block_state));\n"
RELEASE = "keys.consumer_release(release_address);"


def matrix() -> None:
    """Two blocks, and more tiles than the three stages, for one CTA."""
    with deep_gemm.override(num_sms=1), mock.patch.object(mqa_config, "MAX_STAGES", 3):
        check_matrix(Shape(32, 32), random_ranges(9, 400, 1), 400, "cpu")


def blocks() -> None:
    """More blocks than there are places for, for one CTA."""
    with deep_gemm.override(num_sms=1):
        check_matrix(Shape(32, 32), random_ranges(56, 200, 1), 200, "cpu")


def pages() -> None:
    """Sequences that are shared out, pages in no order, the last of them not in use as a whole."""
    lens = ((300, 17), (0, 0), (129, 128), (5, 290))
    check_pages(Shape(16, 32), Pages(lens, 16), "cpu", num_sms=2)


@dataclass(frozen=True)
class Defect:
    """An edit of one header, and what must come of it: a hazard's rule, or WRONG."""

    name: str
    header: str
    before: str
    after: str
    outcome: str
    case: Callable[[], None] = matrix

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


DEFECTS = [
    Defect("no wgmma.fence", SCORE, "ptx::wgmma_fence();", "", "R6"),
    Defect(
        "sums begin while their product is computed",
        SCORE,
        "ptx::wgmma_wait_group<0>(accum);",
        "ptx::wgmma_wait_group<1>(accum);",
        "R7",
    ),
    Defect(
        "keys are released while they are multiplied",
        SCORE,
        f"ptx::wgmma_wait_group<0>(accum);\n        {RELEASE}",
        f"{RELEASE}\n        ptx::wgmma_wait_group<0>(accum);",
        "R3",
    ),
    Defect("scale factors are not waited for", KEYS, "pipeline.producer_commit(state);",
           "ptx::mbarrier_arrive<false>(ptx::shared_address(pipeline.full_barrier(state)));", "R2"),
    Defect("a lane copies its neighbour's scale factors", KEYS, "= in_tile % kPageKeys;",
           "= (in_tile + kLaneKeys) % kPageKeys;", WRONG, pages),
    Defect("keys are never released", SCORE, RELEASE, "", "R11"),
    Defect(
        "a block is released before its last sum",
        SCORE,
        f"{SCORE_TILES}            {RELEASE_BLOCK}",
        f"            {RELEASE_BLOCK}{SCORE_TILES}",
        "R2",
        blocks,
    ),
    Defect("logits behind the last key are stored", STORE, "|| key >= row.end", "", "bounds"),
    Defect("tokens are not interleaved", QUERIES, "in_group / (2 * kQuadTokens) * 2",
           "in_group / 8 * 2", WRONG, pages),
    Defect(
        "weights are not waited for",
        QUERIES,
        "pipeline.producer_commit(state);\n        __syncwarp();  // the",
        "ptx::mbarrier_arrive<false>(ptx::shared_address(pipeline.full_barrier(state)));\n"
        "        __syncwarp();  // the",
        "R2",
    ),
    Defect("too few bytes are announced", QUERIES, "kTokens * kTokenBytes",
           "kTokenBytes / 2", "R10"),
    Defect("a share begins at its block's first tile", QUERIES,
           "run.first_key += first_tile * MqaConfig::kTileKeys;", "", WRONG, pages),
    Defect("the last column is not cleaned", CLEAN, "c < end; c +=", "c + 1 < end; c +=", WRONG),
    Defect("a share is too short", SHARES, "* min(share + i, num_shares) / num_shares;",
           "* min(share + i, num_shares) / num_shares - 4 * i;", WRONG),
]  # fmt: skip


def outcome(case: Callable[[], None]) -> str:
    """What a run ends with: a rule's name, WRONG, or "" if it is right."""

    def build(source: KernelSource, purpose: object = None) -> object:
        return translated(source)

    forget_calls()
    try:
        with (
            mock.patch.object(mqa_logits, "build", build),
            mock.patch.object(paged_shares, "build", build),
        ):
            case()
    except HazardError as hazard:
        return hazard.rule
    except AssertionError:
        return WRONG
    finally:
        forget_calls()
    return ""


@pytest.mark.parametrize("case", [matrix, blocks, pages])
def test_without_a_defect_nothing_is_found(case: Callable[[], None], headers: Path) -> None:
    assert outcome(case) == ""


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_is_found(defect: Defect, headers: Path) -> None:
    header = headers / defect.header
    text = header.read_text()
    assert text.count(defect.before) == 1, "the edit no longer fits"
    header.write_text(text.replace(defect.before, defect.after))
    forget_headers()
    assert outcome(defect.case) == defect.outcome
