"""Seeded defects of CTA pairs: the emulator finds each in its default timing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from deep_gemm.emulator.errors import HazardError
from deep_gemm.kernels import sm100_fp8_gemm
from tests.emulator.arch import on_arch
from tests.emulator.defects import WRONG
from tests.emulator.sm100_pair_defects import (
    PAIR_DEFECTS,
    PairDefect,
    dense,
    odd_number_of_blocks,
    two_groups,
)
from tests.emulator.test_defects import headers, seed, translated

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


def outcome(run: Callable[[], None]) -> str:
    """What a run ends with: a rule's name, WRONG, or "" if it is right."""
    with mock.patch.object(sm100_fp8_gemm, "build", translated):
        try:
            run()
        except HazardError as hazard:
            return hazard.rule
        except AssertionError:
            return WRONG
    return ""


@pytest.mark.parametrize(
    "run", [dense, two_groups, odd_number_of_blocks], ids=lambda run: run.__name__
)
def test_without_a_defect_nothing_is_found(run: Callable[[], None], headers: Path) -> None:
    assert outcome(run) == ""


@pytest.mark.parametrize("defect", PAIR_DEFECTS, ids=str)
def test_a_defect_is_found(defect: PairDefect, headers: Path) -> None:
    seed(defect, headers)  # type: ignore[arg-type]
    assert outcome(defect.run) == defect.outcome
