"""The arithmetic of WGMMA on BF16 and FP16 against an exact scalar reference, to the bit."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.float_formats import BF16, FP16, Format
from deep_gemm.emulator.wgmma_halves import multiply

K = 16
NAN_BITS = 0x7FFFFFFF
FORMATS = {"bf16": BF16, "f16": FP16}


def split(bits: int, mantissa_bits: int, bias: int) -> tuple[Fraction, int]:
    """A finite float's value and the exponent that aligns it: subnormals have the smallest one."""
    width = 32 if mantissa_bits == 23 else 16
    field = bits >> mantissa_bits & (1 << width - 1 - mantissa_bits) - 1
    significand = bits & (1 << mantissa_bits) - 1 | (field > 0) << mantissa_bits
    exponent = max(field, 1) - bias
    value = Fraction(2) ** (exponent - mantissa_bits) * significand
    return (-value if bits >> width - 1 else value), exponent


def cut(value: Fraction, unit: Fraction) -> Fraction:
    """Toward zero to a multiple of the unit."""
    return int(value / unit) * unit


def element(a: list[int], b: list[int], c: int, of: Format) -> Fraction:
    """One element of a product of finite operands."""
    terms = []
    for x, y in zip(a, b, strict=True):
        (value_x, exponent_x), (value_y, exponent_y) = (
            split(code, of.mantissa_bits, of.bias) for code in (x, y)
        )
        terms.append((value_x * value_y, exponent_x + exponent_y))
    terms.append(split(c, 23, 127))
    largest = max([exponent for value, exponent in terms if value], default=-126)
    unit = Fraction(2) ** (max(largest, -126) - 25)
    total = sum(cut(value, unit) for value, _ in terms)
    exponent = -126
    while abs(total) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    return cut(total, Fraction(2) ** (exponent - 23))


def codes(of: Format) -> st.SearchStrategy[list[int]]:
    """K finite codes: any, near one, or half of them zeros."""
    one = 0x3F80 if of is BF16 else 0x3C00
    magnitudes = st.one_of(
        st.integers(0, of.largest), st.integers(one - 0x400, one + 0x400), st.just(0)
    )
    signed = st.tuples(magnitudes, st.sampled_from([0, 0x8000])).map(lambda pair: sum(pair))
    return st.lists(signed, min_size=K, max_size=K)


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150)
@given(data=st.data())
def test_equals_the_reference(name: str, data: st.DataObject) -> None:
    of = FORMATS[name]
    a, b = data.draw(codes(of)), data.draw(codes(of))
    near = st.floats(-(2.0**20), 2.0**20, width=32).map(lambda x: int(np.float32(x).view("u4")))
    anything = st.integers(0, 2**32 - 1).filter(lambda bits: bits >> 23 & 0xFF != 0xFF)
    c = data.draw(near | anything)
    expected = element(a, b, c, of)
    codes_a, codes_b = (np.array([row], dtype=np.uint16) for row in (a, b))
    bits_of_c = np.array([[c]], dtype=np.uint32)
    result = multiply(codes_a, codes_b, bits_of_c.view(np.float32), of)[0, 0]
    if abs(expected) >= Fraction(2) ** 128:
        assert result == (np.inf if expected > 0 else -np.inf)
    else:
        assert Fraction(float(result)) == expected
        assert expected != 0 or not np.signbit(result)


@pytest.mark.parametrize("name", FORMATS)
def test_infinities_and_nan(name: str) -> None:
    of = FORMATS[name]
    infinity, one = of.infinity or 0, 0x3F80 if of is BF16 else 0x3C00
    rows = [[infinity, one], [infinity, infinity | 0x8000], [infinity, 0], [of.nan | 0x8000, one]]
    a = np.array([row + [0] * (K - 2) for row in rows], dtype=np.uint16)
    b = np.array([[one] * K, [0] * K], dtype=np.uint16)
    bits = multiply(a, b, None, of).view(np.uint32)
    assert bits[:, 0].tolist() == [0x7F800000, NAN_BITS, 0x7F800000, NAN_BITS]
    assert bits[:, 1].tolist() == [NAN_BITS] * 4
