"""Float opcodes against exact fractions, each rounded once."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.emulator.lanes import LANES, run


def bits_of(values: Sequence[float]) -> list[int]:
    return [int(bits) for bits in np.array(values, np.float32).view(np.uint32)]


def nearest(value: Fraction, fraction_bits: int) -> Fraction | None:
    """The nearest float with an 8-bit exponent, ties to even; None if it is infinite."""
    if value == 0:
        return value
    magnitude = abs(value)
    exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
    exponent -= magnitude < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - fraction_bits)
    rounded = round(magnitude / unit) * unit  # Fraction rounds ties to even
    if rounded >= 2**128:
        return None
    return rounded if value > 0 else -rounded


def signed(rounded: Fraction | None, negative: bool) -> float:
    magnitude = math.inf if rounded is None else abs(float(rounded))
    return -magnitude if negative else magnitude


def exact_fma(a: float, b: float, c: float) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    negative = exact < 0
    if exact == 0:
        product_is_negative = math.copysign(1, a) * math.copysign(1, b) < 0
        negative = product_is_negative and math.copysign(1, c) < 0
    return signed(nearest(exact, 23), negative)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def near_midpoints(draw: st.DrawFn) -> tuple[float, float, float]:
    """a * b is half a unit of c's last place, less up to one part in 2**28 or so."""
    fraction = draw(st.integers(2**23, 2**24 - 1))
    exponent = draw(st.integers(-149, 104) | st.integers(-149, -140))
    away = draw(st.integers(0, 3) | st.integers(0, 1000))
    first = draw(st.integers(max(-126, exponent - 100), min(127, exponent + 100)))
    signs = st.sampled_from([-1, 1])
    # a * b = 2 ** (exponent - 1), nearly; b may underflow, which is a case too.
    a = math.ldexp(draw(signs) * (2**23 - away), first - 23)
    b = float(np.float32(math.ldexp(2**23 + away, max(exponent - 1 - first, -149) - 23)))
    is_subnormal = draw(st.booleans()) and exponent == -149
    return a, b, draw(signs) * math.ldexp(fraction >> (12 if is_subnormal else 0), exponent)


ROW = st.tuples(FINITE, FINITE, FINITE) | near_midpoints()


@settings(max_examples=300)
@given(st.lists(ROW, min_size=1, max_size=LANES))
@example([(1 + 2.0**-23, 2.0**-24 - 2.0**-47, 1 + 2.0**-23)])
@example([(2.0**-100, 2.0**-49, 2.0**-149), (2.0**-75, -(2.0**-75), 3 * 2.0**-149)])
@example([(0.0, -1.0, 0.0), (0.0, -1.0, -0.0), (1.0, 1.0, -1.0), (2.0**127, 2.0, -(2.0**127))])
def test_fma_rounds_once(rows: list[tuple[float, float, float]]) -> None:
    got = run("fma.rn.f32 %f0, %f1, %f2, %f3", *zip(*rows, strict=True))
    assert bits_of(got) == bits_of([exact_fma(*row) for row in rows])


LARGEST = float(np.finfo(np.float32).max)


@settings(max_examples=300)
@given(st.lists(ROW, min_size=1, max_size=LANES))
@example([(0.0, -1.0, 0.0), (0.0, -1.0, -0.0), (1.0, 1.0, -1.0), (0.0, 1.0, 0.0)])
@example([(2.0**127, 2.0, 0.0), (-(2.0**127), 2.0, 0.0), (2.0**-149, 2.0**-149, 0.0)])
@example([(-(2.0**-149), 2.0**-149, 0.0), (2.0**-149, -(2.0**-149), 1.0)])
def test_fma_rounds_down(rows: list[tuple[float, float, float]]) -> None:
    got = run("fma.rm.f32 %f0, %f1, %f2, %f3", *zip(*rows, strict=True))
    for (a, b, c), result in zip(rows, np.array(got, np.float32), strict=True):
        exact = Fraction(a) * Fraction(b) + Fraction(c)
        with np.errstate(over="ignore"):
            above = float(np.nextafter(result, np.float32(math.inf)))
        assert result == -math.inf or Fraction(float(result)) <= exact
        assert above == math.inf or exact < Fraction(above)
        assert result != -math.inf or exact < -LARGEST
        if exact == 0:
            product = math.copysign(1, a) * math.copysign(1, b)
            assert np.signbit(result) == (product < 0 or math.copysign(1, c) < 0)


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=LANES))
def test_sums_and_products_of_floats(rows: list[tuple[float, float]]) -> None:
    a, b = zip(*rows, strict=True)
    sums = [exact_fma(x, 1.0, y) for x, y in rows]
    differences = [exact_fma(x, 1.0, -y) for x, y in rows]
    products = [exact_fma(x, y, math.copysign(0, x) * math.copysign(1, y)) for x, y in rows]
    for rounding in ("", ".rn"):
        assert bits_of(run(f"add{rounding}.f32 %f0, %f1, %f2", a, b)) == bits_of(sums)
        assert bits_of(run(f"sub{rounding}.f32 %f0, %f1, %f2", a, b)) == bits_of(differences)
        assert bits_of(run(f"mul{rounding}.f32 %f0, %f1, %f2", a, b)) == bits_of(products)


NAN, INF = math.nan, math.inf
CANONICAL = 0x7FFFFFFF


@pytest.mark.filterwarnings("error")
def test_floats_that_are_not_finite() -> None:
    a, b = [INF, INF, NAN, -INF, 3e38], [-INF, 1.0, 1.0, -1.0, 3e38]
    plus, minus = 0x7F800000, 0xFF800000
    assert bits_of(run("add.f32 %f0, %f1, %f2", a, b)) == [CANONICAL, plus, CANONICAL, minus, plus]
    assert bits_of(run("mul.f32 %f0, %f1, %f2", a, b)) == [minus, plus, CANONICAL, plus, plus]
    zero = [0.0] * 5
    fma = "fma.rn.f32 %f0, %f1, %f2, %f3"
    assert bits_of(run(fma, a, b, zero)) == [minus, plus, CANONICAL, plus, plus]
    assert bits_of(run(fma, [INF, 1.0], [0.0, 1.0], [1.0, -INF])) == [CANONICAL, minus]
    fma = "fma.rm.f32 %f0, %f1, %f2, %f3"
    assert bits_of(run(fma, a, b, zero)) == [minus, plus, CANONICAL, plus, 0x7F7FFFFF]


def test_least_and_greatest_float() -> None:
    a, b = [1.0, -0.0, 0.0, NAN, 1.0, NAN, -INF], [2.0, 0.0, -0.0, 1.0, NAN, NAN, -2.0]
    one, two = 0x3F800000, 0x40000000
    least = [one, 1 << 31, 1 << 31, one, one, CANONICAL, 0xFF800000]
    greatest = [two, 0, 0, one, one, CANONICAL, 0xC0000000]
    assert bits_of(run("min.f32 %f0, %f1, %f2", a, b)) == least
    assert bits_of(run("max.f32 %f0, %f1, %f2", a, b)) == greatest
    greatest_or_nan = [two, 0, 0, CANONICAL, CANONICAL, CANONICAL, 0xC0000000]
    assert bits_of(run("max.NaN.f32 %f0, %f1, %f2", a, b)) == greatest_or_nan


def test_sign_of_floats() -> None:
    assert bits_of(run("neg.f32 %f0, %f1", [0.0, -2.0])) == [1 << 31, 0x40000000]
    assert bits_of(run("abs.f32 %f0, %f1", [-0.0, -2.0, 2.0])) == [0, 0x40000000, 0x40000000]
    for opcode in ("neg", "abs"):
        nans = [float("nan"), -float("nan")]
        assert bits_of(run(f"{opcode}.f32 %f0, %f1", nans)) == [0x7FFFFFFF] * 2


def exact_bf16(value: float) -> int:
    rounded = signed(nearest(Fraction(value), 7), math.copysign(1, value) < 0)
    bits: int = struct.unpack("<I", struct.pack("<f", rounded))[0]
    assert bits & 0xFFFF == 0
    return bits >> 16


@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=LANES))
@example([(1 + 2.0**-8, 1 + 3 * 2.0**-8), (3.4028234663852886e38, -(2.0**-149))])
@example([(2.0**-134, 3 * 2.0**-134), (1 + 2.0**-8 + 2.0**-23, -0.0)])
def test_bf16(rows: list[tuple[float, float]]) -> None:
    got = run("cvt.rn.bf16x2.f32 %r0, %f1, %f2", *zip(*rows, strict=True))
    assert got == [(exact_bf16(high) << 16) | exact_bf16(low) for high, low in rows]


def test_bf16_of_what_is_not_finite() -> None:
    got = run("cvt.rn.bf16x2.f32 %r0, %f1, %f2", [NAN, INF, 1.0], [-INF, -NAN, NAN])
    assert got == [0x7FFFFF80, 0x7F807FFF, 0x3F807FFF]
    payload = run("cvt.rn.bf16x2.f32 %r0, %r1, %r2", [0xFFFFFFFF], [0x7F800001])
    assert payload == [0x7FFF7FFF]
