"""deep_gemm.testing's decorators for test scripts."""

from __future__ import annotations

import os

import pytest

from deep_gemm import testing
from deep_gemm.testing import ignore_env


@pytest.mark.parametrize("holds", [True, False])
def test_a_filtered_function_runs_only_where_its_condition_holds(
    holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    @testing.test_filter(lambda: holds)
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == (8 if holds else None)
    said = capsys.readouterr().out
    assert said == ("" if holds else "double: left out, its condition does not hold here\n")
    assert double.__name__ == "double"


def test_a_condition_is_asked_at_the_call() -> None:
    answers = [False, True]

    @testing.test_filter(lambda: answers.pop(0))
    def one() -> int:
        return 1

    assert (one(), one()) == (None, 1)


def test_pytest_does_not_take_the_filter_for_a_test() -> None:
    assert not testing.test_filter.__test__


@pytest.mark.parametrize(("holds", "seen"), [(True, None), (False, "1")])
@pytest.mark.parametrize("fails", [False, True])
def test_a_variable_is_hidden_and_comes_back(
    monkeypatch: pytest.MonkeyPatch, holds: bool, seen: str | None, fails: bool
) -> None:
    monkeypatch.setenv("DG_A_VARIABLE", "1")

    @ignore_env("DG_A_VARIABLE", lambda: holds)
    def look() -> str | None:
        if fails:
            raise LookupError
        return os.environ.get("DG_A_VARIABLE")

    if fails:
        with pytest.raises(LookupError):
            look()
    else:
        assert look() == seen
    assert os.environ["DG_A_VARIABLE"] == "1"


def test_a_variable_that_is_not_set_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DG_A_VARIABLE", raising=False)
    ignore_env("DG_A_VARIABLE", lambda: True)(lambda: None)()
    assert "DG_A_VARIABLE" not in os.environ
