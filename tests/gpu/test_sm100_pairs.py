"""Pairs of CTAs on a Blackwell GPU, at sizes that fill it: every bit, in many launches.

Nobody has run this yet: it waits for an SM100 GPU.
"""

from __future__ import annotations

import itertools

import pytest
import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from tests.emulator.sm100 import operand
from tests.emulator.sm100_pairs import M_GROUPED, paired
from tests.grouped_calls import added, with_c
from tests.sm100_k_groups import KCase, run_k_case

pytestmark = pytest.mark.sm100

NUM_SMS = 148
NUM_LAUNCHES = 100
MAJORS = tuple(itertools.product((False, True), repeat=2))


def check_dense(
    shape: tuple[int, int, int], mn_major: tuple[bool, bool], block_n: int, c: str, device: str
) -> None:
    """A forced pair gives the exact product, and the same at every launch."""
    m, n, k = shape
    a, b = operand((m, k), 128, mn_major[0], 1), operand((n, k), 128, mn_major[1], 2)
    x, y = ((side.data.to(device), side.words.to(device)) for side in (a, b))
    d = torch.empty(m, n, device=device)
    with paired(block_n, 3, NUM_SMS):
        for _ in range(NUM_LAUNCHES if device == "cuda" else 2):
            passed, before = with_c(d, c)
            deep_gemm.fp8_gemm_nt(x, y, d, passed)
            expected = (a.exact @ b.exact.T).to(device)
            assert_bitwise_equal(d, added(expected, before, d.dtype))


@pytest.mark.parametrize("c", ["none", "d"])
@pytest.mark.parametrize("mn_major", MAJORS, ids=str)
@pytest.mark.parametrize("block_n", [32, 128, 224, 256])
def test_dense(block_n: int, mn_major: tuple[bool, bool], c: str) -> None:
    check_dense((4000, 1040, 2064), mn_major, block_n, c, "cuda")


@pytest.mark.parametrize("name", M_GROUPED)
def test_m_grouped(name: str) -> None:
    with paired(num_sms=NUM_SMS):
        for _ in range(NUM_LAUNCHES):
            M_GROUPED[name]("cuda")


@pytest.mark.parametrize("form", ["tn", "ends", "nt"])
def test_k_grouped(form: str) -> None:
    with paired(128, 4, NUM_SMS):
        for _ in range(NUM_LAUNCHES):
            run_k_case(KCase(form, (128, 0, 640, 256), m=1040, n=528, c="d"), "cuda")
