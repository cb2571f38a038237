"""A recorded run, precompiled, and run again without a compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator.arch import each_arch
from tests.warm_up import check_a_recorded_run

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


def test_a_recorded_run_needs_no_compiler_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_a_recorded_run("cpu", tmp_path, monkeypatch)
