"""Every hazard has an error of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deep_gemm.emulator import errors
from deep_gemm.emulator.errors import Access, DeadlockError, HazardError, OperandOverwrittenError

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "deep_gemm" / "emulator").rglob("*.py"))


def rules_in_docs() -> set[str]:
    text = (ROOT / "docs" / "hazards.md").read_text()
    _, _, table = text.partition("| rule | means |")
    cells = re.findall(r"^\| ([\w, ]+) \|", table.partition("\n\n")[0], re.MULTILINE)
    return {rule.strip() for cell in cells for rule in cell.split(",")}


def rules_in_code() -> set[str]:
    texts = [path.read_text() for path in SOURCES]
    return {rule for text in texts for rule in re.findall(r'HazardError\(\s*"(\w+)"', text)}


def test_every_rule_that_is_raised_or_described_has_its_class() -> None:
    rules = (rules_in_docs() | rules_in_code()) - {"R0"}
    assert len(rules) > 15
    for rule in rules:
        assert type(HazardError(rule, "text")) is not HazardError, rule


def test_no_two_classes_share_a_rule() -> None:
    names = [name for name, value in vars(errors).items() if isinstance(value, type)]
    hazards = [name for name in names if issubclass(getattr(errors, name), HazardError)]
    assert len(hazards) - 1 == len(set(HazardError._classes.values()))


def test_an_error_keeps_its_rule_text_and_other_access() -> None:
    other = Access(3, 7)
    error = HazardError("R3", "overwritten", other)
    assert type(error) is OperandOverwrittenError
    assert (error.rule, str(error), error.other) == ("R3", "R3: overwritten", other)
    with pytest.raises(DeadlockError, match="R11: nobody"):
        raise HazardError("R11", "nobody can go on")
