"""Results with a gap in the middle of every head."""

from __future__ import annotations

import pytest

from tests.emulator.arch import each_arch
from tests.head_gemms import check_heads

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize(
    "head_splits",
    [(128, 64, 64), (16, 8, 32), (48, 24, 0), (0, 8, 32), (64, 0, 64)],
    ids=str,
)
@pytest.mark.parametrize("num_heads", [1, 3])
def test_heads(num_heads: int, head_splits: tuple[int, int, int]) -> None:
    check_heads(37, 144, num_heads, head_splits, "cpu")
