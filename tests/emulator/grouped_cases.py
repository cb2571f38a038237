"""Grouped products with forced configurations, each checked in full: a few blocks a CTA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from tests.grouped_calls import (
    check_contiguous,
    check_k_grouped,
    check_masked,
    run_contiguous,
    run_k_grouped,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import (
    Layout,
    Operand,
    exact_operand,
    flat_operand,
    poison,
    row_ends,
    row_ids,
    sf_layouts,
)

N, K = 24, 144


@dataclass(frozen=True)
class GroupedCase:
    """A call whose result is checked in full, and the configuration that it is forced to take.

    Attributes:
        name: what it is.
        config: the configuration.
        run: makes the call; fails where its result is wrong.
        num_sms: multiprocessors, so few that each gets several blocks.
    """

    name: str
    config: GemmConfig
    run: Callable[[], None]
    num_sms: int = 1

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def contiguous(layout: Layout, sf_layout: str = "row-major") -> Callable[[], None]:
    """What padding holds is NaN, and D has columns that belong to nobody."""

    def run() -> None:
        x, sfa = exact_operand((len(layout.row_groups), K), 1, "cpu")
        poison((x, sfa), layout.row_groups < 0)
        a = x, sf_layouts(sfa)[sf_layout]
        b = exact_operand((layout.num_groups, N, K), 128, "cpu", 1)
        check_contiguous(run_contiguous(a, b, layout, row_stride=N + 8), a, b, layout)

    return run


def masked(masked_m: list[int], m_max: int) -> Callable[[], None]:
    def run() -> None:
        groups = len(masked_m)
        a = exact_operand((groups, m_max, K), 1, "cpu")
        b: Operand = exact_operand((groups, N, K), 128, "cpu", 1)
        poison(a, ~valid_rows(masked_m, m_max))
        check_masked(run_masked(a, b, masked_m), a, b, masked_m)

    return run


def k_grouped(ks: list[int], m: int = 66, c: str = "none") -> Callable[[], None]:
    def run() -> None:
        a, b = flat_operand(m, ks, "cpu"), flat_operand(N, ks, "cpu", 2)
        d, values = run_k_grouped(a, b, ks, torch.float32, c)
        check_k_grouped(d, a, b, ks, values)

    return run


def m_grouped_config(*sizes: int) -> GemmConfig:
    return GemmConfig(*sizes, grouping=Grouping.M_GROUPED)


def k_grouped_config(*sizes: int) -> GemmConfig:
    return GemmConfig(*sizes, grouping=Grouping.K_GROUPED, gran_n=1, d_bytes=4)


SHORT, TALL = m_grouped_config(16, 32, 3, 1), m_grouped_config(128, 32, 3, 2)
# Five blocks, one more than slots. No group has a whole slab: all of D is copied by threads.
PARTIAL = GroupedCase(
    "partial",
    m_grouped_config(64, 32, 3, 1),
    contiguous(row_ids([(0, 5), (2, 40), (1, 3), (0, 10), (2, 6)], 1)),
)
IDS = GroupedCase("ids", TALL, contiguous(row_ids([(0, 70), (1, 20)], 32)))
ENDS = GroupedCase("ends", TALL, contiguous(row_ends([20, 0, 70], 32, behind=10)))
ODD_ROWS = GroupedCase(
    "odd rows", SHORT, contiguous(row_ids([(0, 5), (1, 2), (2, 20)], 1), "MN-major padded")
)
MANY = GroupedCase(
    "33 groups", SHORT, contiguous(row_ends([0, 4] + [0] * 18 + [5] + [0] * 11 + [3], 1))
)
MASKED = GroupedCase("masked", SHORT, masked([20, 0, 3], 24))
PEERS = GroupedCase(
    "peers", m_grouped_config(16, 16, 3, 1, 1, 2), contiguous(row_ids([(0, 5), (1, 20)], 16)), 2
)

STRETCHES = GroupedCase("k-grouped", k_grouped_config(64, 32, 3, 1), k_grouped([128, 0, 640]))
SUMS = GroupedCase("k-grouped sums", k_grouped_config(64, 16, 3, 1), k_grouped([0, 256], c="d"))
ONE_BLOCK = GroupedCase("one block", k_grouped_config(64, 32, 3, 1), k_grouped([256], m=8))
# Two slices per warpgroup: one partial sum, and more k blocks than scale factors come together.
IN_TURN = GroupedCase("in turn", k_grouped_config(128, 32, 3, 1), k_grouped([0, 640]))

# An odd number of tiles below each other, for clusters of two: the last row lies side by side.
LEFT_OVER = GroupedCase(
    "left over", m_grouped_config(16, 16, 3, 1, 2), contiguous(row_ids([(0, 20), (1, 5)], 16)), 2
)

CASES = [
    LEFT_OVER,
    PARTIAL,
    IDS,
    ENDS,
    ODD_ROWS,
    MANY,
    MASKED,
    PEERS,
    STRETCHES,
    SUMS,
    ONE_BLOCK,
    IN_TURN,
]
