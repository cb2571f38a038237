"""Calls on SM100 that are computed by pairs of CTAs, whatever would have been chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

import deep_gemm
from deep_gemm import sm100_calls, sm100_k_grouped
from deep_gemm.call_cache import forget_calls
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import best_band
from deep_gemm.config.sm100 import Sm100Selection, broken_rules
from deep_gemm.config.sm100_config import Sm100GemmConfig
from tests.grouped_calls import (
    check_contiguous,
    check_masked,
    run_contiguous,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import Layout, exact_operand, poison, row_ends, row_ids

N, K = 24, 144


@contextmanager
def paired(block_n: int = 32, num_stages: int = 2, num_sms: int = 2) -> Iterator[None]:
    """Every call is solved by pairs, so few that each gets several blocks."""

    def chosen(problem: GemmProblem) -> Sm100Selection:
        config = Sm100GemmConfig(
            *(block_n, num_stages, problem.grouping, *problem.mn_major, *problem.gran_k),
            d_bytes=problem.d_bytes,
            cluster_m=2,
        )
        assert not broken_rules(config)
        return Sm100Selection(config, best_band(problem, config))

    forget_calls()
    with (
        mock.patch.object(sm100_calls, "chosen", chosen),
        mock.patch.object(sm100_k_grouped, "chosen", chosen),
        deep_gemm.override(num_sms=num_sms),
    ):
        yield
    forget_calls()


def contiguous(layout: Layout, dtype: torch.dtype = torch.bfloat16) -> Callable[..., None]:
    """What padding holds is NaN; so half of a pair multiplies that where the other has rows."""

    def run(device: str = "cpu") -> None:
        a = poison(exact_operand((len(layout.row_groups), K), 1, device), layout.row_groups < 0)
        b = exact_operand((layout.num_groups, N, K), 128, device, 1)
        check_contiguous(run_contiguous(a, b, layout, dtype), a, b, layout)

    return run


def masked(masked_m: list[int], m_max: int) -> Callable[..., None]:
    def run(device: str = "cpu") -> None:
        a = exact_operand((len(masked_m), m_max, K), 1, device)
        b = exact_operand((len(masked_m), N, K), 128, device, 1)
        poison(a, ~valid_rows(masked_m, m_max))
        check_masked(run_masked(a, b, masked_m), a, b, masked_m)

    return run


# Odd numbers of blocks along M, groups that meet within a pair's 256 rows, or within a CTA's 128.
M_GROUPED = {
    "ids aligned to 128": contiguous(row_ids([(0, 100), (1, 200), (2, 5)], 128)),
    "ids aligned to 256": contiguous(row_ids([(1, 20), (0, 140)], 256)),
    "ids anywhere": contiguous(row_ids([(0, 5), (1, 140), (-1, 9), (0, 30)], 1), torch.float32),
    "nothing but padding": contiguous(row_ids([(-1, 140)], 1, num_groups=2)),
    "ends aligned to 128": contiguous(row_ends([130, 0, 20], 128)),
    "ends anywhere": contiguous(row_ends([5, 260, 1], 1, behind=7)),
    "padding of two blocks": contiguous(row_ends([3, 0, 20], 256)),
    "masked": masked([130, 0, 20], 144),
}
