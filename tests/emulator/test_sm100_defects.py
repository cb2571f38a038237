"""Seeded defects of the SM100 kernel: the emulator finds each in its default timing."""

from __future__ import annotations

from pathlib import Path

import pytest

from deep_gemm.emulator.errors import HazardError
from deep_gemm.kernels.sm100_fp8_gemm import generate_sm100
from tests.emulator.defects import WRONG
from tests.emulator.sm100 import Case, run_case
from tests.emulator.sm100_defects import DEFECTS, FINE, MN_MAJOR, NT, Defect
from tests.emulator.test_defects import headers, seed, translated

__all__ = ["headers"]


def outcome(case: Case) -> str:
    """What a run ends with: a rule's name, WRONG, or "" if it is right."""
    try:
        run_case(case, kernel=translated(generate_sm100(case.config, "100a")))
    except HazardError as hazard:
        return hazard.rule
    except AssertionError:
        return WRONG
    return ""


@pytest.mark.parametrize("case", [NT, FINE, MN_MAJOR], ids=str)
def test_without_a_defect_nothing_is_found(case: Case, headers: Path) -> None:
    assert outcome(case) == ""


@pytest.mark.parametrize("defect", DEFECTS, ids=str)
def test_a_defect_is_found(defect: Defect, headers: Path) -> None:
    seed(defect, headers)  # type: ignore[arg-type]
    assert outcome(defect.case) == defect.outcome
