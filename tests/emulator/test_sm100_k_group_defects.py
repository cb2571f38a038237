"""Seeded defects of k-grouped products on SM100: the emulator finds each in its default timing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

import deep_gemm
from deep_gemm.emulator.errors import HazardError
from deep_gemm.kernels import sm100_fp8_gemm, sm100_k_grouped
from tests.emulator.arch import on_arch
from tests.emulator.defects import WRONG
from tests.emulator.sm100_k_group_defects import CLEARS, ENDS, K_GROUP_DEFECTS, NT, TN, KDefect
from tests.emulator.test_defects import headers, seed, translated
from tests.sm100_k_groups import KCase, run_k_case

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


def outcome(case: KCase) -> str:
    """What a run ends with: a rule's name, WRONG, or "" if it is right."""
    with (
        mock.patch.object(sm100_fp8_gemm, "build", translated),
        mock.patch.object(sm100_k_grouped, "build", translated),
        deep_gemm.override(num_sms=1),
        on_arch("100a"),
    ):
        try:
            run_k_case(case, "cpu")
        except HazardError as hazard:
            return hazard.rule
        except AssertionError:
            return WRONG
    return ""


@pytest.mark.parametrize("case", [TN, ENDS, NT, CLEARS], ids=str)
def test_without_a_defect_nothing_is_found(case: KCase, headers: Path) -> None:
    assert outcome(case) == ""


@pytest.mark.parametrize("defect", K_GROUP_DEFECTS, ids=str)
def test_a_defect_is_found(defect: KDefect, headers: Path) -> None:
    seed(defect, headers)  # type: ignore[arg-type]
    assert outcome(defect.case) == defect.outcome
