"""The arithmetic of FP8 WGMMA against an exact scalar reference, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.wgmma import multiply
from tests.emulator.fp8_reference import (
    NAN_BITS,
    NEGATIVE_INFINITY,
    POSITIVE_INFINITY,
    decode_fp8,
    element,
)

K = 32
FORMATS = ("e4m3", "e5m2")


def reference(
    a: np.ndarray, b: np.ndarray, c: np.ndarray | None, formats: tuple[str, str]
) -> np.ndarray:
    bits = None if c is None else c.view(np.uint32)
    rows = [
        [
            element(x.tolist(), y.tolist(), None if bits is None else int(bits[i, j]), formats)
            for j, y in enumerate(b)
        ]
        for i, x in enumerate(a)
    ]
    return np.array(rows, dtype=np.uint32)


def check(
    a: np.ndarray,
    b: np.ndarray,
    c: np.ndarray | None = None,
    formats: tuple[str, str] = ("e4m3", "e4m3"),
) -> np.ndarray:
    """Compares `multiply` with the reference to the bit and returns its result."""
    result = multiply(a, b, c, a_format=formats[0], b_format=formats[1])
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result.view(np.uint32), reference(a, b, c, formats))
    return result


EDGES = (0x00, 0x80, 0x01, 0x81, 0x07, 0x08, 0x38, 0x3F, 0x7B, 0x7E, 0xFE)


def codes(low: int = 0, high: int = 255) -> st.SearchStrategy[list[int]]:
    """K codes of a range: any, of far-apart magnitudes, or half of them zeros."""
    one = st.integers(low, high)
    edges = st.sampled_from([code for code in EDGES if low <= code <= high])
    sparse = st.one_of(st.just(0), one)
    return st.one_of(*(st.lists(item, min_size=K, max_size=K) for item in (one, edges, sparse)))


FP32_BITS = st.one_of(
    st.none(),
    st.integers(0, 2**32 - 1),
    st.sampled_from(
        [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x00FFFFFF, 0x7F7FFFFF, 0xFF7FFFFF]
        + [POSITIVE_INFINITY, NEGATIVE_INFINITY, 0x7F800001, 0xFFC00000]
    ),
    # Of the magnitude of products, where alignment to one or the other is close.
    st.floats(-(2.0**20), 2.0**20, width=32).map(lambda x: int(np.float32(x).view(np.uint32))),
)


def row(values: list[int]) -> np.ndarray:
    return np.array([values], dtype=np.uint8)


def fp32(bits: int | None) -> np.ndarray | None:
    return None if bits is None else np.array([[bits]], dtype=np.uint32).view(np.float32)


@settings(max_examples=400)
@given(a=codes(), b=codes(), c_bits=FP32_BITS, formats=st.tuples(*[st.sampled_from(FORMATS)] * 2))
def test_any_element_equals_the_reference(
    a: list[int], b: list[int], c_bits: int | None, formats: tuple[str, str]
) -> None:
    check(row(a), row(b), fp32(c_bits), formats)


@settings(max_examples=400)
@given(a=codes(0, 0x7E), b=codes(0, 0x7E), c_bits=FP32_BITS, signs=st.integers(0, 2**K - 1))
@example(a=[0x7E] * K, b=[0x7E] * K, c_bits=0x7F7FFFFF, signs=0)
@example(a=[0x7E] * K, b=[0x7E] * K, c_bits=None, signs=2**K - 1)
@example(a=[0x01] * K, b=[0x01] * K, c_bits=0x007FFFFF, signs=0)
def test_numbers_only(a: list[int], b: list[int], c_bits: int | None, signs: int) -> None:
    signed = [code | (signs >> i & 1) << 7 for i, code in enumerate(a)]
    check(row(signed), row(b), fp32(c_bits))


@settings(max_examples=400)
@given(a=codes(0, 0x7E), rest=codes(0, 0x0F), c_bits=FP32_BITS)
def test_products_that_cancel_leave_what_alignment_spared(
    a: list[int], rest: list[int], c_bits: int | None
) -> None:
    left = a[:12] + [code | 0x80 for code in a[:12]] + rest[:8]
    right = a[12:24] * 2 + rest[8:16]
    check(row(left), row(right), fp32(c_bits))


def random_codes(rng: np.random.Generator, rows: int, fp8: str, spread: str) -> np.ndarray:
    """[rows, K] codes without NaN and infinities."""
    largest = 0x7E if fp8 == "e4m3" else 0x7B
    low, high = {"all": (0, largest), "smallest": (0, 7), "large": (largest - 16, largest)}[spread]
    magnitudes = rng.integers(low, high + 1, (rows, K))
    return (magnitudes | rng.integers(0, 2, (rows, K)) << 7).astype(np.uint8)


@pytest.mark.parametrize("spread", ["all", "smallest", "large"])
@pytest.mark.parametrize("b_format", FORMATS)
@pytest.mark.parametrize("a_format", FORMATS)
def test_four_chained_steps(a_format: str, b_format: str, spread: str) -> None:
    rng = np.random.default_rng(7)
    accum = None
    for _ in range(4):
        a, b = random_codes(rng, 16, a_format, spread), random_codes(rng, 8, b_format, spread)
        accum = check(a, b, accum, (a_format, b_format))
    assert accum is not None and np.count_nonzero(accum) > 100


@pytest.mark.parametrize("n", [8, 24, 256])
def test_elements_of_a_whole_instruction_do_not_mix(n: int) -> None:
    """All 64 x n at once, NaN here and there, equal the elements one at a time."""
    rng = np.random.default_rng(n)
    a = rng.integers(0, 256, (64, K), dtype=np.uint8)
    b = rng.integers(0, 256, (n, K), dtype=np.uint8)
    a[rng.random(a.shape) < 0.98] &= 0x77
    b[rng.random(b.shape) < 0.98] &= 0x77
    c = rng.integers(0, 2**32, (64, n), dtype=np.uint32).view(np.float32)
    whole = multiply(a, b, c).view(np.uint32)
    assert 0 < np.count_nonzero(whole == NAN_BITS) < whole.size / 2
    picked = np.arange(64 * n) if n == 8 else rng.choice(64 * n, 400, replace=False)
    for i, j in zip(*np.divmod(picked, n), strict=True):
        expected = element(a[i].tolist(), b[j].tolist(), int(c.view(np.uint32)[i, j]))
        assert whole[i, j] == expected, (i, j)


@pytest.mark.parametrize("n", [8, 128])
def test_small_integers_are_exact(n: int) -> None:
    """Sums below 2^14 of products that no alignment can cut: what a plain product gives."""
    by_value = {float(decode_fp8(code, "e4m3")[0]): code for code in range(0x7F)}
    by_value |= {-value: code | 0x80 for value, code in by_value.items() if value}
    rng = np.random.default_rng(3)
    a, b = rng.integers(-4, 5, (64, K)), rng.integers(-4, 5, (n, K))
    c = rng.integers(-8000, 8000, (64, n)).astype(np.float32)
    to_code = np.vectorize(lambda value: by_value[float(value)], otypes=[np.uint8])
    np.testing.assert_array_equal(multiply(to_code(a), to_code(b), c), a @ b.T + c)


# Codes of E4M3: 448, 1.75, 1, 1/64 and the subnormal 1/128.
C448, C1_75, C1, C2_M6, C2_M7 = 0x7E, 0x3E, 0x38, 0x08, 0x04


def padded(*values: int) -> np.ndarray:
    return row([*values, *[0] * (K - len(values))])


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        # 448 * 448 has exponent 16, so that units are 8: 31 products of 7.5 vanish.
        ([C448] + [0x4F] * 31, [C448] + [C1] * 31, None, 448.0 * 448),
        # 31 products of 8 do not; the sum's own unit is 16, which cuts half of the last away.
        ([C448] + [0x50] * 31, [C448] + [C1] * 31, None, 448.0 * 448 + 240),
        # A significand product above 2 does not raise the common exponent: 2^-13 survives.
        ([C1_75, C1_75 | 0x80, C2_M6], [C1_75, C1_75, C2_M7], None, 2.0**-13),
        # The accumulator raises it: to exponent 4, units of 2^-9, and 2^-13 does not survive.
        ([C2_M6], [C2_M7], 16.0, 16.0),
        # The accumulator loses its low bits even where there is nothing to add, toward zero.
        ([], [], 1.0 + 2.0**-14, 1.0),
        ([], [], -(1.0 + 2.0**-13 + 2.0**-14), -(1.0 + 2.0**-13)),
        # Each term is cut by itself, toward zero: small ones do not lower a negative sum.
        ([C448 | 0x80] + [0xCF] * 31, [C448] + [C1] * 31, None, -448.0 * 448),
        # Subnormal accumulators are aligned to exponent -126.
        ([], [], 2.0**-139 + 2.0**-140, 2.0**-139),
        ([], [], 2.0**-140, 0.0),
        # Far below a product an accumulator is nothing, far above it all.
        ([C1], [C1], 2.0**-100, 1.0),
        ([C448], [C448], 2.0**100, 2.0**100),
    ],
)
def test_known_sums(a: list[int], b: list[int], c: float | None, expected: float) -> None:
    tile = None if c is None else np.array([[c]], dtype=np.float32)
    assert check(padded(*a), padded(*b), tile)[0, 0] == expected


@pytest.mark.parametrize("c", [None, -0.0, -(2.0**-149)])
@pytest.mark.parametrize("code", [0x00, 0x80])
def test_zero_is_positive(code: int, c: float | None) -> None:
    tile = None if c is None else np.array([[c]], dtype=np.float32)
    assert check(row([code] * K), row([C1] * K), tile).view(np.uint32)[0, 0] == 0


@pytest.mark.parametrize("code", [0x7F, 0xFF])
def test_nan_spreads_over_its_row_only(code: int) -> None:
    a = np.full((16, K), C1, dtype=np.uint8)
    a[3, 17] = code
    result = check(a, np.zeros((8, K), dtype=np.uint8)).view(np.uint32)
    assert (result[3] == NAN_BITS).all() and (np.delete(result, 3, axis=0) == 0).all()


INFINITY = 0x7C


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        ([INFINITY], [C1], None, POSITIVE_INFINITY),
        ([INFINITY | 0x80], [C1], 1.0, NEGATIVE_INFINITY),
        ([INFINITY], [0], None, NAN_BITS),
        ([INFINITY, INFINITY | 0x80], [C1, C1], None, NAN_BITS),
        ([INFINITY], [C1], -np.inf, NAN_BITS),
        ([C1], [C1], -np.inf, NEGATIVE_INFINITY),
        ([], [], np.nan, NAN_BITS),
    ],
)
def test_infinities_of_e5m2(a: list[int], b: list[int], c: float | None, expected: int) -> None:
    tile = None if c is None else np.array([[c]], dtype=np.float32)
    result = check(padded(*a), padded(*b), tile, ("e5m2", "e4m3"))
    assert result.view(np.uint32)[0, 0] == expected


def test_strided_operands_give_the_same() -> None:
    rng = np.random.default_rng(5)
    a, b = random_codes(rng, 32, "e4m3", "all"), random_codes(rng, 16, "e4m3", "all")
    c = rng.standard_normal((16, 32)).astype(np.float32)
    strided = multiply(a[::2], np.asfortranarray(b), c[:, ::2])
    np.testing.assert_array_equal(strided, multiply(a[::2].copy(), b, c[:, ::2].copy()))
