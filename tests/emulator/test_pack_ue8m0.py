"""The packing kernels in the emulator."""

from __future__ import annotations

import pytest

from tests.packings import (
    EDGES,
    K_GROUPED,
    LAYOUTS,
    KGroupedPacking,
    Packing,
    check,
    check_k_grouped,
)

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("case", EDGES + LAYOUTS, ids=str)
def test_every_bit_is_right_and_nothing_else_is_written(case: Packing) -> None:
    check(case, "cpu")


@pytest.mark.parametrize("case", K_GROUPED, ids=str)
def test_groups_along_k_begin_with_a_new_word(case: KGroupedPacking) -> None:
    check_k_grouped(case, "cpu")


def test_rows_behind_the_last_group_become_zero() -> None:
    check_k_grouped(KGroupedPacking((128, 640), 8), "cpu", spare_words=3)
