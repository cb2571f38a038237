"""The SM100 FP8 kernel in the emulator: right to the bit, in any legal order of events."""

from __future__ import annotations

import pytest

from deep_gemm.config.sm100 import broken_rules
from deep_gemm.config.sm100_config import Sm100GemmConfig
from tests.emulator.dense import ORDERS
from tests.emulator.sm100 import Case, run_case

# Edges in every direction, K tails, more and fewer k blocks than stages, several blocks per CTA.
CASES = [
    Case(Sm100GemmConfig(32, 3), 200, 72, 656, num_sms=1),
    Case(Sm100GemmConfig(64, 2), 130, 136, 1168),
    Case(Sm100GemmConfig(192, 2), 100, 200, 528, num_sms=1),
    Case(Sm100GemmConfig(256, 2, d_bytes=4), 129, 264, 272),
    Case(Sm100GemmConfig(16, 8, gran_k_a=32, gran_k_b=32), 65, 40, 400),
    Case(Sm100GemmConfig(48, 3, gran_k_b=32, d_bytes=4), 140, 104, 400, accumulates=True),
    Case(Sm100GemmConfig(64, 3, a_is_mn_major=True), 208, 72, 400),
    Case(Sm100GemmConfig(160, 2, b_is_mn_major=True), 100, 176, 272),
    Case(
        Sm100GemmConfig(96, 2, a_is_mn_major=True, b_is_mn_major=True, gran_k_a=32), 144, 112, 656
    ),
    Case(Sm100GemmConfig(128, 2), 128, 128, 16),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_kernel_is_exact_in_every_order(case: Case) -> None:
    assert not broken_rules(case.config)
    for order in ORDERS:
        run_case(case, order)


@pytest.mark.parametrize("k", [16, 128, 512, 528, 1040])
@pytest.mark.parametrize("gran_k", [32, 128])
def test_any_number_of_k_blocks(gran_k: int, k: int) -> None:
    config = Sm100GemmConfig(32, 3, gran_k_a=gran_k, gran_k_b=gran_k)
    for order in ORDERS[:3]:
        run_case(Case(config, 128, 40, k, num_sms=1), order)
