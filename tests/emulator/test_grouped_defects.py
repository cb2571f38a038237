"""Seeded defects of grouped products: each ends in a run in early timing, and in what it must."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from deep_gemm import set_num_sms
from deep_gemm.config.legality import broken_rules
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import HazardError
from deep_gemm.jit.source import forget_headers
from deep_gemm.kernels import fp8_gemm, k_grouped
from tests.emulator.defects import WRONG
from tests.emulator.grouped_cases import CASES, GroupedCase
from tests.emulator.grouped_defects import GROUPED_DEFECTS, NO_DEFECT, GroupedDefect
from tests.emulator.test_defects import headers, seed, translated
from tests.grouped_calls import forced

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


def outcome(case: GroupedCase) -> str:
    """What the call ends with: a rule's name, WRONG, or "" if it is right."""
    set_num_sms(case.num_sms)
    try:
        with (
            forced(case.config),
            mock.patch.object(fp8_gemm, "build", translated),
            mock.patch.object(k_grouped, "build", translated),
        ):
            case.run()
    except HazardError as hazard:
        return hazard.rule
    except AssertionError:
        return WRONG
    finally:
        set_num_sms(0)
    return ""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_without_a_defect_nothing_is_found(
    case: GroupedCase, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not broken_rules(case.config)
    forget_headers()
    for timing in (Timing.EARLY, Timing.LATE):
        monkeypatch.setenv("DG_EMULATOR_TIMING", timing.value)
        assert outcome(case) == ""


@pytest.mark.parametrize("defect", GROUPED_DEFECTS, ids=str)
def test_a_defect_is_found(defect: GroupedDefect, headers: Path) -> None:
    seed(defect, headers)
    assert outcome(defect.case) == defect.outcome


def test_a_map_may_be_changed_with_its_fences(headers: Path) -> None:
    seed(NO_DEFECT, headers)
    assert outcome(NO_DEFECT.case) == ""
