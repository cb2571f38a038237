"""The arithmetic of tcgen05.mma against exact fractions, to the bit.

What it is compared with is the model that umma_arithmetic.py states, written a second time; neither
has been compared with a Blackwell by us.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.float_formats import BF16, E4M3, E5M2, FP16
from deep_gemm.emulator.umma_arithmetic import multiply
from tests.emulator.fp8_reference import NAN_BITS, decode_fp8, decode_fp32, special_result

K = 32
FORMATS = {"e4m3": E4M3, "e5m2": E5M2}


def rounded_to_zero(value: Fraction) -> int:
    """Bits of the FP32 value next to a fraction, toward zero; infinity beyond the largest."""
    if value == 0:
        return 0
    sign, value = (1 << 31 if value < 0 else 0), abs(value)
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    exponent -= value < Fraction(2) ** exponent
    if exponent > 127:
        return sign | 0x7F800000
    place = max(exponent, -126)
    units = int(value / Fraction(2) ** (place - 23))
    # A subnormal has the field 0, and so have its 23 bits.
    return sign | (units + (place + 126 << 23))


def element(
    a: list[int],
    b: list[int],
    c_bits: int,
    formats: tuple[str, str],
    scales: tuple[int, int] | None = None,
) -> int:
    """Bits of one element of the result."""
    left = [decode_fp8(code, formats[0]) for code in a]
    right = [decode_fp8(code, formats[1]) for code in b]
    c, c_exponent = decode_fp32(c_bits)
    if scales is not None and 255 in scales:
        return NAN_BITS
    special = special_result([(x, y) for (x, _), (y, _) in zip(left, right, strict=True)], c)
    if special is not None:
        return special
    power = 0 if scales is None else sum(scales) - 254
    terms = [
        (x * y * Fraction(2) ** power, x_exponent + y_exponent + power)
        for (x, x_exponent), (y, y_exponent) in zip(left, right, strict=True)
        if x * y != 0
    ]
    if c != 0:
        terms.append((c, c_exponent))
    unit = Fraction(2) ** (max([-126, *(exponent for _, exponent in terms)]) - 25)
    # int() of a fraction cuts toward zero.
    return rounded_to_zero(sum(int(value / unit) for value, _ in terms) * unit)


def check(
    a: list[int],
    b: list[int],
    c_bits: int,
    formats: tuple[str, str] = ("e4m3", "e4m3"),
    scales: tuple[int, int] | None = None,
) -> None:
    factors = (None, None)
    if scales is not None:
        factors = tuple(np.array([code], dtype=np.uint8) for code in scales)
    result = multiply(
        np.array([a], dtype=np.uint8),
        np.array([b], dtype=np.uint8),
        np.array([[c_bits]], dtype=np.uint32).view(np.float32),
        *(FORMATS[name] for name in formats),
        *factors,
    )
    assert hex(result.view(np.uint32)[0, 0]) == hex(element(a, b, c_bits, formats, scales))


CODES = st.one_of(
    st.lists(st.integers(0, 255), min_size=K, max_size=K),
    st.lists(st.sampled_from([0, 1, 0x81, 8, 0x38, 0x7B, 0xFB, 0x7E]), min_size=K, max_size=K),
    st.lists(st.integers(0, 0x20), min_size=K, max_size=K),
)
C_BITS = st.one_of(
    st.integers(0, 2**32 - 1),
    st.sampled_from([0, 1 << 31, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0xFFC00000]),
    st.floats(-(2.0**20), 2.0**20, width=32).map(lambda x: int(np.float32(x).view(np.uint32))),
)
SCALES = st.tuples(*[st.one_of(st.integers(110, 144), st.integers(0, 255))] * 2)


@settings(max_examples=300)
@given(a=CODES, b=CODES, c_bits=C_BITS, formats=st.tuples(*[st.sampled_from(sorted(FORMATS))] * 2))
@example(a=[0x7E] * K, b=[0x7E] * K, c_bits=0x7F7FFFFF, formats=("e4m3", "e4m3"))
def test_any_element(a: list[int], b: list[int], c_bits: int, formats: tuple[str, str]) -> None:
    check(a, b, c_bits, formats)


@settings(max_examples=300)
@given(a=CODES, b=CODES, c_bits=C_BITS, scales=SCALES)
@example(a=[1] * K, b=[1] * K, c_bits=0, scales=(0, 0))
@example(a=[0x7E] * K, b=[0x7E] * K, c_bits=0, scales=(254, 254))
@example(a=[0] * K, b=[0] * K, c_bits=0, scales=(255, 127))
# 32 products of 2^-152, which alignment to 2^-126 leaves nothing of.
@example(a=[0x38] * K, b=[0x38] * K, c_bits=0, scales=(51, 51))
def test_any_scaled_element(
    a: list[int], b: list[int], c_bits: int, scales: tuple[int, int]
) -> None:
    check(a, b, c_bits, scales=scales)


def test_25_bits_are_kept_of_what_is_aligned() -> None:
    """1 + 2^-25 + 2^-25 keeps both small terms, 1 + 2^-26 + 2^-26 neither; FP32 has 23 bits."""
    big = FP16.encode(np.array([[1.0, 2.0**-12, 2.0**-12, -1.0]], dtype=np.float32))
    for exponent, kept in ((-13, 2.0**-24), (-14, 0.0)):
        small = np.array([[1.0, 2.0**exponent, 2.0**exponent, 1.0]], dtype=np.float32)
        assert multiply(big, FP16.encode(small), None, FP16, FP16)[0, 0] == kept


def test_the_result_is_cut_toward_zero() -> None:
    a = BF16.encode(np.array([[1.0, 2.0**-12, 2.0**-12, 2.0**-13]], dtype=np.float32))
    b = BF16.encode(np.array([[1.0, 2.0**-12, 2.0**-12, 2.0**-12]], dtype=np.float32))
    expected = 1 + 2.0**-23
    for sign in (1, -1):
        flipped = a ^ np.uint16(0x8000 if sign < 0 else 0)
        assert multiply(flipped, b, None, BF16, BF16)[0, 0] == sign * expected


@pytest.mark.parametrize("n", [8, 80])
def test_elements_of_a_whole_instruction_do_not_mix(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = (rng.integers(0, 256, (rows, K), dtype=np.uint8) for rows in (128, n))
    a[rng.random(a.shape) < 0.98] &= 0x77
    sfa, sfb = (rng.integers(100, 150, rows, dtype=np.uint8) for rows in (128, n))
    c = rng.integers(0, 2**32, (128, n), dtype=np.uint32)
    whole = multiply(a, b, c.view(np.float32), E4M3, E4M3, sfa, sfb).view(np.uint32)
    for i, j in zip(rng.integers(0, 128, 200), rng.integers(0, n, 200), strict=True):
        scales = int(sfa[i]), int(sfb[j])
        expected = element(a[i].tolist(), b[j].tolist(), int(c[i, j]), ("e4m3", "e4m3"), scales)
        assert whole[i, j] == expected


def test_a_sum_is_that_of_numpy_where_nothing_is_cut() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-8, 9, (rows, K)).astype(np.float32) for rows in (128, 16))
    c = rng.integers(-100, 101, (128, 16)).astype(np.float32)
    result = multiply(E4M3.encode(a), E4M3.encode(b), c, E4M3, E4M3)
    np.testing.assert_array_equal(result, a @ b.T + c)
    assert not math.isnan(result.sum())
