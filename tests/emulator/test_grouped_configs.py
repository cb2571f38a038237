"""Grouped kernels with clusters, where numbers of blocks do not divide; one kernel per layout.

The reference hangs on the k-grouped ones: DG#415 (129 blocks in each group) and DG#429 (121).
"""

from __future__ import annotations

from unittest import mock

import pytest
import torch

from deep_gemm import set_num_sms
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import broken_rules
from deep_gemm.kernels import fp8_gemm
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_k_grouped,
    check_masked,
    forced,
    run_contiguous,
    run_dense,
    run_k_grouped,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import exact_operand, flat_operand, poison, row_ends, row_ids

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

N, K = 40, 144
M_GROUPED = {"grouping": Grouping.M_GROUPED}
K_GROUPED = {"grouping": Grouping.K_GROUPED, "gran_n": 1, "d_bytes": 4}

CONTIGUOUS = [
    GemmConfig(16, 16, 4, 1, 1, 2, **M_GROUPED),
    GemmConfig(64, 32, 2, 1, 1, 2, **M_GROUPED),
    GemmConfig(16, 32, 3, 1, 2, 1, **M_GROUPED),
    GemmConfig(64, 16, 3, 1, 2, 1, **M_GROUPED),
    GemmConfig(128, 16, 3, 2, **M_GROUPED),
    GemmConfig(64, 48, 3, 1, num_store_rounds=3, **M_GROUPED),
]


@pytest.fixture(autouse=True)
def few_ctas() -> object:
    """Each gets several blocks."""
    set_num_sms(4)
    yield
    set_num_sms(0)


@pytest.mark.parametrize("config", CONTIGUOUS, ids=lambda config: config.name)
@pytest.mark.parametrize(
    "layout",
    [row_ids([(1, 20), (-1, 3), (0, 50)], 1), row_ends([20, 0, 45], 16, behind=10)],
    ids=["ids", "ends"],
)
def test_contiguous(layout, config: GemmConfig) -> None:  # type: ignore[no-untyped-def]
    assert not broken_rules(config)
    a = poison(exact_operand((len(layout.row_groups), K), 1, "cpu"), layout.row_groups < 0)
    b = exact_operand((layout.num_groups, N, K), 128, "cpu", 1)
    with forced(config):
        d = run_contiguous(a, b, layout)
    check_contiguous(d, a, b, layout)


def test_masked() -> None:
    masked_m = [3, 0, 33]
    a, b = exact_operand((3, 33, K), 1, "cpu"), exact_operand((3, N, K), 128, "cpu", 1)
    poison(a, ~valid_rows(masked_m, 33))
    with forced(CONTIGUOUS[0]):
        d = run_masked(a, b, masked_m)
    check_masked(d, a, b, masked_m)


@pytest.mark.parametrize("clusters", [(2, 1), (1, 2)])
@pytest.mark.parametrize("c", ["none", "d"])
def test_k_grouped_with_an_odd_number_of_blocks(clusters: tuple[int, int], c: str) -> None:
    """DG#415 and DG#429: three blocks by three in each group."""
    config = GemmConfig(64, 16, 2, 1, *clusters, **K_GROUPED)
    assert not broken_rules(config)
    ks = [128, 0, 256]
    a, b = flat_operand(130, ks, "cpu"), flat_operand(N, ks, "cpu", 2)
    with forced(config):
        d, values = run_k_grouped(a, b, ks, c=c)
    check_k_grouped(d, a, b, ks, values)


@pytest.mark.parametrize("clusters", [(2, 1), (1, 2)])
def test_1d1d_with_an_odd_number_of_blocks(clusters: tuple[int, int]) -> None:
    """Commits 95e81b3 (DG#90) and aff9da0 (DG#147)."""
    config = GemmConfig(64, 16, 3, 1, *clusters, gran_n=1, d_bytes=4)
    assert not broken_rules(config)
    a, b = exact_operand((130, K), 1, "cpu"), exact_operand((N, K), 1, "cpu", 1)
    with forced(config):
        d, values = run_dense(a, b, torch.float32, 1, "d")
    check_dense(d, a, b, 1, values)


def test_both_contiguous_layouts_have_one_kernel() -> None:
    """vLLM warms the layout of ids up, and then serves with that of ends."""
    built = []
    build = fp8_gemm.build

    def record(source, purpose=None):  # type: ignore[no-untyped-def]
        built.append(source)
        return build(source)

    b = exact_operand((2, N, K), 128, "cpu", 1)
    with mock.patch.object(fp8_gemm, "build", record):
        for layout in (row_ids([(0, 16), (1, 32)], 16), row_ends([16, 32], 16)):
            run_contiguous(exact_operand((48, K), 1, "cpu"), b, layout)
    first, second = built
    assert first == second
