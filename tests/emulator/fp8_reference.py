"""One element of one FP8 WGMMA in exact numbers: slow, and sharing nothing with the emulator."""

from __future__ import annotations

import struct
from fractions import Fraction

# (mantissa bits, exponent bias) of each format.
SHAPES = {"e4m3": (3, 7), "e5m2": (2, 15)}

NAN_BITS = 0x7FFFFFFF
POSITIVE_INFINITY, NEGATIVE_INFINITY = 0x7F800000, 0xFF800000


def decode_fp8(code: int, fp8: str) -> tuple[Fraction | float, int]:
    """The value of a code, a float if it is no number, and the exponent that aligns it."""
    mantissa_bits, bias = SHAPES[fp8]
    sign = -1 if code & 0x80 else 1
    field, mantissa = divmod(code & 0x7F, 2**mantissa_bits)
    if fp8 == "e4m3" and code & 0x7F == 0x7F:
        return float("nan"), 0
    if fp8 == "e5m2" and field == 31:
        return (float("nan") if mantissa else sign * float("inf")), 0
    if field == 0:
        return sign * Fraction(mantissa, 2**mantissa_bits) * Fraction(2) ** (1 - bias), 1 - bias
    significand = 1 + Fraction(mantissa, 2**mantissa_bits)
    return sign * significand * Fraction(2) ** (field - bias), field - bias


def decode_fp32(bits: int) -> tuple[Fraction | float, int]:
    field, mantissa = bits >> 23 & 0xFF, bits & 0x7FFFFF
    value = struct.unpack("<f", struct.pack("<I", bits))[0]
    if field == 255:
        return value, 0
    exponent = max(field, 1) - 127
    significand = Fraction(mantissa, 2**23) + (field > 0)
    return (-1 if bits >> 31 else 1) * significand * Fraction(2) ** exponent, exponent


def special_result(pairs: list[tuple[Fraction | float, Fraction | float]], c: object) -> int | None:
    """The bits of a result that NaN and infinities decide, or None."""
    terms: list[object] = [c]
    for x, y in pairs:
        if isinstance(x, float) or isinstance(y, float):
            terms.append(float(x) * float(y))
    special = [term for term in terms if isinstance(term, float)]
    if not special:
        return None
    if len(set(special)) > 1 or special[0] != special[0]:
        return NAN_BITS
    return POSITIVE_INFINITY if special[0] > 0 else NEGATIVE_INFINITY


def element(
    a: list[int], b: list[int], c_bits: int | None, formats: tuple[str, str] = ("e4m3", "e4m3")
) -> int:
    """The bits of one element of one FP8 WGMMA."""
    left = [decode_fp8(code, formats[0]) for code in a]
    right = [decode_fp8(code, formats[1]) for code in b]
    c, c_exponent = decode_fp32(c_bits or 0)
    pairs = [(x, y) for (x, _), (y, _) in zip(left, right, strict=True)]
    special = special_result(pairs, c)
    if special is not None:
        return special
    terms = [
        (x * y, x_exponent + y_exponent)
        for (x, x_exponent), (y, y_exponent) in zip(left, right, strict=True)
        if x * y != 0
    ]
    if c_bits is not None:
        terms.append((c, c_exponent))
    if not terms:
        return 0
    unit = Fraction(2) ** (max(exponent for _, exponent in terms) - 13)
    # int() of a fraction cuts toward zero.
    total = sum(int(value / unit) for value, _ in terms)
    surplus = max(abs(total).bit_length() - 14, 0)
    kept = (abs(total) >> surplus << surplus) * unit
    return bits_of(-kept if total < 0 else kept)


def bits_of(value: Fraction) -> int:
    bits: int = struct.unpack("<I", struct.pack("<f", float(value)))[0]
    assert decode_fp32(bits)[0] == value, "a result that FP32 cannot hold"
    return bits if value else 0
