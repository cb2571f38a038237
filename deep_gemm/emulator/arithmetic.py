"""The value semantics of PTX opcodes that NumPy does not have, on arrays of any one shape.

Every function takes and gives arrays of the types that its opcode names, and never writes to one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError

Lanes = NDArray[Any]
Mask = NDArray[np.bool_]

_F32_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
_BF16_NAN = np.uint32(0x7FFF)
_WIDER = {
    np.dtype(f"{kind}{size}"): np.dtype(f"{kind}{2 * size}") for kind in "iu" for size in (2, 4)
}
# Of a double's fraction: those below the last bit of a float and the one after it.
_FAR_BITS = (1 << 28) - 1


def multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The low half of a * b + c."""
    return a * b + c


def wide_multiply(a: Lanes, b: Lanes) -> Lanes:
    """The whole product, in the type twice as wide."""
    return a.astype(_WIDER[a.dtype]) * b


def wide_multiply_add(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The whole product plus c, in the type twice as wide."""
    return wide_multiply(a, b) + c


def high_multiply(a: Lanes, b: Lanes) -> Lanes:
    """The high half of the product of 16- or 32-bit integers."""
    return (wide_multiply(a, b) >> (8 * a.dtype.itemsize)).astype(a.dtype)


def high_multiply_64(a: Lanes, b: Lanes) -> Lanes:
    """The high half of the product of 64-bit integers, from products of their halves."""
    low = 0xFFFFFFFF
    # A signed high half shifts arithmetically, so the same sums serve both types.
    a_high, b_high = a >> 32, b >> 32
    a_low, b_low = a & low, b & low
    carry = ((a_low.view(np.uint64) * b_low.view(np.uint64)) >> np.uint64(32)).view(a.dtype)
    middle = a_high * b_low + carry
    other = a_low * b_high + (middle & low)
    product: Lanes = a_high * b_high + (middle >> 32) + (other >> 32)
    return product


def divide(a: Lanes, b: Lanes, active: Mask | None) -> Lanes:
    """Quotient, cut toward zero. By zero it is unspecified.

    Raises:
        HazardError: an active lane divides by zero.
    """
    divisor = _divisor(b, active)
    # The lowest number divided by -1 wraps.
    with np.errstate(over="ignore"):
        floor: Lanes = a // divisor
        is_cut = (floor < 0) & (floor * divisor != a)
    quotient: Lanes = floor + is_cut.astype(a.dtype)
    return quotient


def remainder(a: Lanes, b: Lanes, active: Mask | None) -> Lanes:
    """Remainder, with the sign of a. By zero it is unspecified.

    Raises:
        HazardError: an active lane divides by zero.
    """
    divisor = _divisor(b, active)
    with np.errstate(over="ignore"):
        result: Lanes = np.fmod(a, divisor)
    return result


def _divisor(b: Lanes, active: Mask | None) -> Lanes:
    zero = b == 0
    if not zero.any():
        return b
    bad = zero if active is None else zero & active
    if bad.any():
        raise HazardError("R0", f"division by zero in lanes {np.flatnonzero(bad).tolist()}")
    return np.where(zero, b.dtype.type(1), b)


def shift_left(a: Lanes, amount: Lanes) -> Lanes:
    """`a << amount`; 0 if the amount is the width or more."""
    return np.left_shift(a, _clamped(a, amount))


def shift_right(a: Lanes, amount: Lanes) -> Lanes:
    """`a >> amount`; 0, or the sign in every bit, if the amount is the width or more."""
    return np.right_shift(a, _clamped(a, amount))


def _clamped(a: Lanes, amount: Lanes) -> Lanes:
    """The amount in the type of `a`. NumPy defines a shift by the width as PTX does."""
    width = np.uint32(8 * a.dtype.itemsize)
    clamped: Lanes = np.minimum(amount, width).astype(a.dtype, copy=False)
    return clamped


def insert_bits(a: Lanes, b: Lanes, position: Lanes, length: Lanes) -> Lanes:
    """b with its bits from `position` on replaced by the low `length` bits of a.

    Bits beyond the width are dropped. PTX leaves positions and lengths above 255 open; as measured
    on an H100, 32-bit ones count by their low bytes, 64-bit ones are taken as they are.
    """
    one = a.dtype.type(1)
    if a.dtype.itemsize == 4:
        position, length = position & np.uint32(0xFF), length & np.uint32(0xFF)
    ones = shift_left(np.full_like(a, one), length) - one
    mask = shift_left(ones, position)
    result: Lanes = (shift_left(a, position) & mask) | (b & ~mask)
    return result


def select(a: Lanes, b: Lanes, choice: Lanes) -> Lanes:
    """a where the predicate is set, else b."""
    return np.where(choice, a, b)


def negate_f32(a: Lanes) -> Lanes:
    """-a; a NaN becomes the one that the hardware gives."""
    return _canonical(-a)


def magnitude_f32(a: Lanes) -> Lanes:
    """a without its sign; a NaN becomes the one that the hardware gives."""
    return _canonical(np.abs(a))


def add_f32(a: Lanes, b: Lanes) -> Lanes:
    """The nearest float of a + b, ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _canonical(a + b)


def subtract_f32(a: Lanes, b: Lanes) -> Lanes:
    """The nearest float of a - b, ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _canonical(a - b)


def multiply_f32(a: Lanes, b: Lanes) -> Lanes:
    """The nearest float of a * b, ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _canonical(a * b)


def fma_f32(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The nearest float of a * b + c, rounded once, ties to even."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = a.astype(np.float64) * b  # exact
        total = product + c
        # Rounding twice only goes wrong where the first result is midway between two floats, and
        # there, as in a NaN, the far bits are all 0.
        if (total.view(np.int64) & _FAR_BITS).all():
            return total.astype(np.float32)
        return _canonical(rounded_to_odd(total, product, c).astype(np.float32))


def fma_down_f32(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """The greatest float that is not above a * b + c; an exact difference of zero is -0."""
    with np.errstate(over="ignore", invalid="ignore"):
        product = a.astype(np.float64) * b  # exact
        total = rounded_to_odd(product + c, product, c)
        nearest = total.astype(np.float32)
        down = np.where(nearest > total, np.nextafter(nearest, np.float32(-np.inf)), nearest)
        cancelled = (total == 0) & (np.signbit(product) != np.signbit(c))
        return _canonical(np.where(cancelled, np.float32(-0.0), down))


def rounded_to_odd(total: Lanes, a: Lanes, b: Lanes) -> Lanes:
    """a + b in FP64, truncated, with the last bit set if anything was lost.

    That keeps it off a midpoint between floats that it is not on.

    Args:
        total: the nearest double of a + b.
        a: FP64.
        b: FP32 or FP64.
    """
    part = total - a
    lost = (a - (total - part)) + (b - part)
    bits = total.view(np.int64)
    # Where the total is not finite, `lost` is NaN, which is neither above nor below 0.
    above = lost > 0
    inexact = above | (lost < 0)
    step = np.where(above == (total > 0), 1, -1)
    return np.where(inexact & ((bits & 1) == 0), bits + step, bits).view(np.float64)


def minimum_f32(a: Lanes, b: Lanes) -> Lanes:
    """The lesser one; -0 is less than +0, and a NaN loses against a number."""
    return _chosen_f32(a, b, _order(a) <= _order(b))


def maximum_f32(a: Lanes, b: Lanes) -> Lanes:
    """The greater one; +0 is greater than -0, and a NaN loses against a number."""
    return _chosen_f32(a, b, _order(a) >= _order(b))


def maximum_or_nan_f32(a: Lanes, b: Lanes) -> Lanes:
    """The greater one, as `maximum_f32`, but a NaN wins."""
    nan = np.float32(np.nan)
    return _canonical(np.where(np.isnan(a) | np.isnan(b), nan, maximum_f32(a, b)))


def _chosen_f32(a: Lanes, b: Lanes, is_first: Lanes) -> Lanes:
    chosen = np.where((is_first & ~np.isnan(a)) | np.isnan(b), a, b)
    return _canonical(chosen)


def _order(value: Lanes) -> Lanes:
    """Integers in the order of the floats."""
    bits = value.view(np.int32)
    order: Lanes = bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))
    return order


def _canonical(value: Lanes) -> Lanes:
    """The same floats with every NaN the one that the hardware gives."""
    nan = np.isnan(value)
    return np.where(nan, _F32_NAN, value) if nan.any() else value


def round_to_bf16x2(high: Lanes, low: Lanes) -> Lanes:
    """Both floats rounded to the nearest bfloat16, ties to even, the first in the high half."""
    packed: Lanes = (_bf16(high) << np.uint32(16)) | _bf16(low)
    return packed


def _bf16(value: Lanes) -> Lanes:
    bits = value.view(np.uint32)
    sixteen = np.uint32(16)
    rounded: Lanes = (bits + np.uint32(0x7FFF) + ((bits >> sixteen) & np.uint32(1))) >> sixteen
    nan = np.isnan(value)
    return np.where(nan, _BF16_NAN, rounded) if nan.any() else rounded
