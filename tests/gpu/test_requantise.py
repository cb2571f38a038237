"""Requantising on the GPU: every bit."""

from __future__ import annotations

import pytest

from tests.requantised import CASES, Requantised, check

LARGE = [Requantised((7168, 2112), (128, 128)), Requantised((4, 4096, 7168), (128, 128))]


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_every_bit_is_right(case: Requantised) -> None:
    check(case, "cuda")
