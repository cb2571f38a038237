"""Pairs of CTAs that share each MMA: right to the bit, in any legal order of events."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.sm100 import broken_rules
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.emulator.asynchrony import Timing
from tests.emulator.arch import on_arch
from tests.emulator.dense import ORDERS
from tests.emulator.sm100 import Case, run_case
from tests.emulator.sm100_pairs import M_GROUPED, paired
from tests.head_gemms import check_heads
from tests.sm100_k_groups import KCase, run_k_case

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


def pair(block_n: int, num_stages: int, **fields: object) -> Sm100GemmConfig:
    return Sm100GemmConfig(block_n, num_stages, cluster_m=2, **fields)  # type: ignore[arg-type]


BOTH_MN = {"a_is_mn_major": True, "b_is_mn_major": True}
# Rows of the odd CTA that are there, in part or not at all; several blocks per pair; one and two
# accumulators; more and fewer k blocks than stages; all majors.
CASES = [
    Case(pair(32, 3), 300, 40, 656),
    Case(pair(64, 2, d_bytes=4), 272, 72, 272, num_sms=4),
    Case(pair(256, 2), 129, 264, 144),
    Case(pair(16, 8, gran_k_a=32, gran_k_b=32), 65, 24, 400),
    Case(pair(48, 3, gran_k_b=32, d_bytes=4), 260, 56, 144, accumulates=True),
    Case(pair(64, 3, a_is_mn_major=True), 208, 72, 272),
    Case(pair(160, 2, b_is_mn_major=True), 150, 176, 144),
    Case(pair(96, 2, gran_k_a=32, **BOTH_MN), 144, 112, 272),
    Case(pair(256, 2, **BOTH_MN), 256, 256, 144),
]


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_kernel_is_exact_in_every_order(case: Case) -> None:
    assert not broken_rules(case.config)
    for order in ORDERS[:3]:
        run_case(case, order)


@pytest.mark.parametrize("k", [16, 1040])
def test_any_number_of_k_blocks(k: int) -> None:
    for order in ORDERS[:3]:
        run_case(Case(pair(32, 3), 256, 40, k), order)


@pytest.mark.parametrize("name", M_GROUPED)
def test_m_grouped(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair never has two groups: one of its CTAs is idle where they meet, or where one ends."""
    for timing in (Timing.LATE, Timing.RANDOM):
        monkeypatch.setenv("DG_EMULATOR_TIMING", timing.value)
        with paired():
            M_GROUPED[name]()


K_CASES = [
    KCase("tn", (128, 0, 384), m=144, n=32, c="d"),
    KCase("ends", (100, 0, 130), m=144, n=96),
    KCase("nt", (128, 384), m=144, n=40, gran_k=32, dtype=torch.bfloat16),
]


@pytest.mark.parametrize("case", K_CASES, ids=str)
def test_k_grouped(case: KCase, monkeypatch: pytest.MonkeyPatch) -> None:
    for timing in (Timing.EARLY, Timing.RANDOM):
        monkeypatch.setenv("DG_EMULATOR_TIMING", timing.value)
        with paired():
            run_k_case(case, "cpu")


def test_gaps_between_heads() -> None:
    with paired():
        check_heads(150, 144, 2, (32, 8, 64), "cpu")


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (pair(48, 2, b_is_mn_major=True), "pairs_halve_b"),
        (Sm100GemmConfig(32, 2, cluster_m=4), "ctas_are_a_pair"),
        (pair(256, 8, grouping=Grouping.M_GROUPED), "shared_memory_fits"),
    ],
    ids=str,
)
def test_what_no_pair_can_do_breaks_a_rule(config: Sm100GemmConfig, rule: str) -> None:
    assert [why.partition(":")[0] for why in broken_rules(config)] == [rule]
