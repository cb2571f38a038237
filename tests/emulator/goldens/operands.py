"""Operands that bring out how WGMMA aligns, cuts and adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

M = 64
LARGEST = 0x7E
"""Code of the largest e4m3 magnitude; the next one is NaN."""

Codes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Operands:
    """Problems of one shape.

    Attributes:
        a: [problems, 64, bytes of K].
        b: [problems, n, bytes of K].
        c: [problems, 64, n] FP32, or None to begin without.
    """

    a: Codes
    b: Codes
    c: Floats | None = None


Family = Callable[[int, int, int], Operands]
"""Of the number of problems, n and the bytes of K."""


def _codes(rng: np.random.Generator, *shape: int, low: int = 0, high: int = LARGEST) -> Codes:
    """e4m3 codes of either sign with magnitudes from low to high."""
    signs = rng.integers(0, 2, shape) << 7
    return (rng.integers(low, high + 1, shape) | signs).astype(np.uint8)


def _any(num: int, n: int, k: int) -> Operands:
    rng = np.random.default_rng(1)
    return Operands(_codes(rng, num, M, k), _codes(rng, num, n, k))


def _with_nan(num: int, n: int, k: int) -> Operands:
    """One NaN in about a tenth of the rows and columns, of either sign."""
    rng = np.random.default_rng(2)
    a, b = _codes(rng, num, M, k), _codes(rng, num, n, k)
    for operand in (a, b):
        operand[rng.random(operand.shape) < 0.1 / k] = 0x7F
        operand[rng.random(operand.shape) < 0.1 / k] = 0xFF
    return Operands(a, b)


def _one_huge(num: int, n: int, k: int) -> Operands:
    """One term 8 to 15 powers of two above the others, so that 13 bits below it end among them."""
    rng = np.random.default_rng(3)
    row = np.arange(M)
    exponent = (7 - row % 8)[:, None]
    a = (exponent << 3 | rng.integers(0, 8, (num, M, k))).astype(np.uint8)
    a |= (rng.integers(0, 2, a.shape) << 7).astype(np.uint8)
    place = rng.integers(0, k, (num, M))
    np.put_along_axis(a, place[..., None], _codes(rng, num, M, 1, low=0x78), axis=2)
    exponent = (np.arange(n) % 15)[:, None]
    b = (exponent << 3 | rng.integers(0, 8, (num, n, k))).astype(np.uint8)
    return Operands(a, b)


def _cancelling(num: int, n: int, k: int) -> Operands:
    """Neighbours cancel but for the last few terms, which are small: what is left was cut."""
    rng = np.random.default_rng(4)
    a, b = _codes(rng, num, M, k, high=0x5F), _codes(rng, num, n, k, high=0x5F)
    a[..., 1::2] = a[..., ::2] ^ 0x80
    b[..., 1::2] = b[..., ::2]
    a[..., -6:] = _codes(rng, num, M, 6, high=0x3F)
    b[..., -6:] = _codes(rng, num, n, 6, high=0x3F)
    return Operands(a, b)


def _growing(num: int, n: int, k: int) -> Operands:
    """Positive products only: the accumulator outgrows them, and ever more of them is cut off."""
    rng = np.random.default_rng(5)
    shapes = (num, M, k), (num, n, k)
    a, b = (rng.integers(0x20, 0x48, shape).astype(np.uint8) for shape in shapes)
    return Operands(a, b)


def _denormal(num: int, n: int, k: int) -> Operands:
    rng = np.random.default_rng(6)
    return Operands(_codes(rng, num, M, k, high=7), _codes(rng, num, n, k, high=9))


def _largest(num: int, n: int, k: int) -> Operands:
    """Largest magnitudes: all of one sign, or of signs that change with the row and the column."""
    rng = np.random.default_rng(7)
    a = np.full((num, M, k), LARGEST, dtype=np.uint8)
    b = np.full((num, n, k), LARGEST, dtype=np.uint8)
    a[:, M // 2 :] |= (rng.integers(0, 2, (num, M // 2, k)) << 7).astype(np.uint8)
    b[:, n // 2 :, ::3] = 0x7D
    return Operands(a, b)


def _few(num: int, n: int, k: int) -> Operands:
    """Mostly zeros of either sign: one to three products, or none at all."""
    rng = np.random.default_rng(8)
    a, b = _codes(rng, num, M, k), _codes(rng, num, n, k)
    for operand in (a, b):
        operand[rng.random(operand.shape) < 0.75] &= 0x80
    a[:, ::16] &= 0x80
    return Operands(a, b, None)


C_EDGES = np.array(
    [0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800001, 0x00FFFFFF]
    + [0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345]
    + [0x3F800000, 0x3F8003FF, 0x3F8007FF, 0x3F7FFFFF, 0xBF8003FF, 0x477FFC00, 0xC77FFFFF],
    dtype=np.uint32,
)
"""Bits of accumulators at the ends of FP32 and where 13 bits of fraction end."""


def _arbitrary_c(rng: np.random.Generator, num: int, n: int) -> Floats:
    bits = rng.integers(0, 2**32, (num, M, n), dtype=np.uint32)
    edges = rng.random(bits.shape) < 0.4
    bits[edges] = rng.choice(C_EDGES, int(edges.sum()))
    return bits.view(np.float32)


def _c_alone(num: int, n: int, k: int) -> Operands:
    """Any C, and products that are all zeros, of either sign."""
    rng = np.random.default_rng(9)
    a, b = _codes(rng, num, M, k), _codes(rng, num, n, k)
    return Operands(a & 0x80, b, _arbitrary_c(rng, num, n))


def _c_any(num: int, n: int, k: int) -> Operands:
    rng = np.random.default_rng(10)
    some = _any(num, n, k)
    return Operands(some.a, some.b, _arbitrary_c(rng, num, n))


def _c_near(num: int, n: int, k: int) -> Operands:
    """C with all its 24 bits, from far below the products to far above them."""
    rng = np.random.default_rng(11)
    some = _any(num, n, k)
    exponent = rng.integers(-30, 45, (num, M, n))
    c = rng.uniform(1, 2, exponent.shape) * np.exp2(exponent) * rng.choice([-1, 1], exponent.shape)
    return Operands(some.a, some.b, c.astype(np.float32))


def _c_cancels(num: int, n: int, k: int) -> Operands:
    """C is minus the exact sum, or off by little: what is left shows what was cut from which."""
    rng = np.random.default_rng(12)
    shapes = (num, M, k), (num, n, k)
    a, b = (_codes(rng, *shape, low=0x28, high=0x4F) for shape in shapes)
    values = _e4m3_values()
    exact = np.einsum("pmk,pnk->pmn", values[a], values[b])
    off = rng.choice([0, 0, 2.0**-6, -(2.0**-9), 2.0**-12], exact.shape)
    return Operands(a, b, (off - exact).astype(np.float32))


def _c_zero(num: int, n: int, k: int) -> Operands:
    """C is +0 or -0, with few products or none."""
    rng = np.random.default_rng(13)
    some = _few(num, n, k)
    zeros = rng.choice(np.array([0.0, -0.0], dtype=np.float32), (num, M, n))
    return Operands(some.a, some.b, zeros)


def _c_below(num: int, n: int, k: int) -> Operands:
    """The smallest products there are beside C near and below FP32's smallest normal number."""
    rng = np.random.default_rng(14)
    bits = rng.integers(0, 0x01800000, (num, M, n), dtype=np.uint32)
    bits |= rng.integers(0, 2, bits.shape, dtype=np.uint32) << np.uint32(31)
    a, b = _codes(rng, num, M, k, high=1), _codes(rng, num, n, k, high=1)
    a[:, : M // 2] &= 0x80
    return Operands(a, b, bits.view(np.float32))


def _e4m3_values() -> NDArray[np.float64]:
    """[256] values; what they are for NaN does not matter here."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    magnitude = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    return np.where(code & 0x80, -magnitude, magnitude)


FAMILIES: dict[str, Family] = {
    "any": _any,
    "with_nan": _with_nan,
    "one_huge": _one_huge,
    "cancelling": _cancelling,
    "growing": _growing,
    "denormal": _denormal,
    "largest": _largest,
    "few": _few,
    "c_alone": _c_alone,
    "c_any": _c_any,
    "c_near": _c_near,
    "c_cancels": _c_cancels,
    "c_zero": _c_zero,
    "c_below": _c_below,
}
"""e4m3 operands by what is special about them."""


def e5m2_values(num: int, n: int, k: int) -> Operands:
    """Any e5m2 codes; infinities and NaN in the first rows of A only."""
    rng = np.random.default_rng(15)
    a = _codes(rng, num, M, k, high=0x7B)
    a[:, :4, 5] = [0x7C, 0xFC, 0x7D, 0xFF]
    return Operands(a, _codes(rng, num, n, k, high=0x7B))


def bf16_values(num: int, n: int, k: int) -> Operands:
    """BF16 numbers of many magnitudes."""
    rng = np.random.default_rng(16)

    def some(rows: int) -> Codes:
        shape = num, rows, k // 2
        values = rng.standard_normal(shape) * np.exp2(rng.integers(-20, 20, shape))
        bits = values.astype(np.float32).view(np.uint32) >> np.uint32(16)
        return bits.astype(np.uint16).view(np.uint8)

    return Operands(some(M), some(n), _c_near(num, n, k).c)


def f16_values(num: int, n: int, k: int) -> Operands:
    """FP16 numbers of many magnitudes, denormals among them."""
    rng = np.random.default_rng(17)

    def some(rows: int) -> Codes:
        shape = num, rows, k // 2
        values = rng.standard_normal(shape) * np.exp2(rng.integers(-20, 12, shape))
        return values.astype(np.float16).view(np.uint8)

    return Operands(some(M), some(n), _c_near(num, n, k).c)
