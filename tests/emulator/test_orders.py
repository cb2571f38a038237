"""Sound kernels are never accused: 200 seeds of random timing, over small kernels of every kind."""

from __future__ import annotations

import pytest

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator.asynchrony import Timing
from tests.emulator.dense import Case, check_exact, integer_operands, run_case

SEEDS_PER_CASE = 25

# More k blocks than stages, blocks cut by an edge, one and two partial sums and warpgroups, rows
# that are multiplied and never stored, several blocks per CTA, clusters along m and n.
CASES = [
    Case(GemmConfig(16, 16, 2, 1), 16, 24, 400, num_sms=1),
    Case(GemmConfig(64, 16, 3, 1), 70, 16, 528, num_sms=1),
    Case(GemmConfig(64, 144, 2, 1), 64, 144, 272, num_sms=1),
    Case(GemmConfig(128, 16, 2, 2), 128, 16, 400, num_sms=1),
    Case(GemmConfig(16, 16, 2, 1, 2, 1), 32, 16, 400),
    Case(GemmConfig(32, 16, 2, 1, 1, 2), 32, 32, 528),
    Case(GemmConfig(64, 32, 3, 1, 1, 2), 64, 64, 400),
    Case(GemmConfig(128, 16, 2, 2, 1, 2), 128, 32, 400),
]


@pytest.mark.parametrize("seed", range(SEEDS_PER_CASE))
@pytest.mark.parametrize("case", CASES, ids=str)
def test_random_orders_give_the_same_bits(case: Case, seed: int) -> None:
    operands = integer_operands(case.m, case.n, case.k)
    check_exact(run_case(case, (Timing.RANDOM, seed), operands), *operands)
