"""Seeded defects of SM100's kernel for MQA logits: the emulator, or a wrong logit, finds each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.emulator.arch import on_arch
from tests.emulator.sm100_mqa_defects import DEFECTS, decode
from tests.emulator.test_defects import headers, seed
from tests.emulator.test_mqa_defects import Defect, outcome

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.fixture(autouse=True)
def blackwell() -> Iterator[None]:
    with on_arch("100a"):
        yield


def test_without_a_defect_nothing_is_found(headers: Path) -> None:
    assert outcome(decode) == ""


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_is_found(defect: Defect, headers: Path) -> None:
    seed(defect, headers)  # type: ignore[arg-type]
    assert outcome(defect.case) == defect.outcome
