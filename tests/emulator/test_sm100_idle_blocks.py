"""Many blocks without a product, behind one with: nobody may wait for what comes behind them."""

from __future__ import annotations

from unittest import mock

import pytest

import deep_gemm
from deep_gemm import sm100_k_grouped
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import Sm100Selection
from deep_gemm.config.sm100_config import Sm100GemmConfig
from tests.emulator.arch import on_arch
from tests.sm100_k_groups import KCase, run_k_case

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("num_ctas", [1, 2])
def test_more_blocks_without_a_product_than_the_ring_of_blocks_has_slots(num_ctas: int) -> None:
    """Scale factors of the block before them were held back until another block had some."""

    def chosen(problem: GemmProblem) -> Sm100Selection:
        config = Sm100GemmConfig(
            *(16, 2, problem.grouping, *problem.mn_major, *problem.gran_k),
            d_bytes=problem.d_bytes,
            cluster_m=num_ctas,
        )
        return Sm100Selection(config, 1)

    with (
        on_arch("100a"),
        mock.patch.object(sm100_k_grouped, "chosen", chosen),
        deep_gemm.override(num_sms=num_ctas),
    ):
        run_k_case(KCase("nt", (128, 0), m=16, n=80), "cpu")
