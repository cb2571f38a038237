"""Comparisons of integers and of floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.alu import evaluate
from tests.emulator.lanes import BITS, INTEGERS, LANES, REGISTER, columns, decode, hold, run, wrap

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}
UNSIGNED = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
SETP = [
    *((c, c, t) for c in COMPARISONS for t in INTEGERS),
    *((c, plain, t) for c, plain in UNSIGNED.items() for t in INTEGERS if t[0] == "u"),
    *((c, c, t) for c in ("eq", "ne") for t in BITS),
]


@pytest.mark.parametrize(("comparison", "plain", "name"), SETP)
@settings(max_examples=15)
@given(data=st.data())
def test_setp(comparison: str, plain: str, name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    rows = data.draw(columns(bits, bits))
    register = REGISTER[bits]
    got = run(f"setp.{comparison}.{name} %p0, {register}1, {register}2", *zip(*rows, strict=True))
    assert got == [COMPARISONS[plain](wrap(a, name), wrap(b, name)) for a, b in rows]


@pytest.mark.parametrize("word", ["and", "or", "xor"])
def test_setp_combines_and_gives_a_second_predicate(word: str) -> None:
    combine = {"and": lambda a, b: a and b, "or": lambda a, b: a or b, "xor": lambda a, b: a != b}
    a, b, c = [1, 1, 2, 2], [2, 2, 1, 1], [False, True, False, True]
    less = [True, True, False, False]
    for destination, expected in {
        "%p0|%p1": [less, [not v for v in less]],
        "_|%p1": [[not v for v in less]],
        "%p0|_": [less],
    }.items():
        instruction = decode(f"setp.lt.{word}.s32 {destination}, %r1, %r2, %p3")
        result = evaluate(instruction, hold(instruction, [a, b, c]))
        assert isinstance(result, tuple)
        assert [r.tolist()[:4] for r in result] == [
            [combine[word](x, y) for x, y in zip(values, c, strict=True)] for values in expected
        ]


@pytest.mark.parametrize(
    "comparison", [*COMPARISONS, *(f"{c}u" for c in COMPARISONS), "num", "nan"]
)
def test_setp_of_floats(comparison: str) -> None:
    values = [math.nan, -math.inf, -1.0, -0.0, 0.0, 1.5, math.inf]
    pairs = [(a, b) for a in values for b in values]
    for start in range(0, len(pairs), LANES):
        some = pairs[start : start + LANES]
        expected = []
        for a, b in some:
            has_nan = math.isnan(a) or math.isnan(b)
            if comparison in ("num", "nan"):
                expected.append(has_nan == (comparison == "nan"))
            elif has_nan:
                expected.append(comparison.endswith("u"))
            else:
                expected.append(COMPARISONS[comparison[:2]](a, b))
        got = run(f"setp.{comparison}.f32 %p0, %f1, %f2", *zip(*some, strict=True))
        assert got == expected
