"""Arithmetic of WGMMA on BF16 and FP16 operands with FP32 accumulators.

The scheme is that of FP8 (wgmma.py) with more bits. Chains of 4 and 16 instructions on an H100
(tests/emulator/goldens: operands of 2^-20 to 2^20, C from 2^-30 to 2^45) prove it to the bit:
products are not renormalised; they and C are aligned to the largest exponent and cut toward zero
to 25 fractional bits; the sum is cut toward zero to FP32's 23. One bit more or less, rounding to
the nearest anywhere, or C left out of the alignment or uncut fails all four recordings.

They do not tell how subnormal operands and zeros take part in the alignment, nor anything of
subnormal sums and C, infinities and NaN: that is taken over from FP8.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.float_formats import Format

ALIGNED_BITS = 25
"""Fractional bits of the aligned terms below their common exponent."""

_RESULT_BITS = 23
_SMALLEST_EXPONENT = -126
_NAN = np.array(0x7FFFFFFF, dtype=np.uint32).view(np.float32)


def multiply(
    a: NDArray[np.uint16], b: NDArray[np.uint16], c: NDArray[np.float32] | None, of: Format
) -> NDArray[np.float32]:
    """One WGMMA, a @ b.T + c, to the bit as Hopper rounds it.

    Args:
        a: [m, k] codes; k = 16 on hardware.
        b: [n, k] codes.
        c: [m, n], or None for zero.
        of: the format of both.

    Returns:
        [m, n]; zero is +0 and NaN is 0x7FFFFFFF.
    """
    if c is None:
        c = np.zeros((len(a), len(b)), dtype=np.float32)
    exponents = (_exponents(a, of)[:, None, :] + _exponents(b, of)[None, :, :]).max(axis=2)
    _, exponent_of_c = np.frexp(c)
    # For zeros, and for what is no number, frexp gives 0.
    is_number = np.isfinite(c) & (c != 0)
    exponent_of_c = np.where(is_number, exponent_of_c - 1, _SMALLEST_EXPONENT)
    largest = np.maximum(np.maximum(exponents, exponent_of_c), _SMALLEST_EXPONENT)
    scale = np.ldexp(1.0, ALIGNED_BITS - largest)
    with np.errstate(invalid="ignore", over="ignore"):
        terms = of.decode(a).astype(np.float64)[:, None, :] * of.decode(b)[None, :, :]
        # Integers below 2^32: float64 adds them exactly, and a sum begun at +0 is never -0.
        total = np.trunc(terms * scale[..., None]).sum(axis=2, initial=0.0) + np.trunc(c * scale)
        result = _truncated(total / scale)
    result[np.isnan(result)] = _NAN
    return result


def _exponents(codes: NDArray[np.uint16], of: Format) -> NDArray[np.int64]:
    """That aligns products: subnormals have the smallest normal one; zeros have no say."""
    magnitude = codes.astype(np.int64) & 0x7FFF
    exponents = np.maximum(magnitude >> of.mantissa_bits, 1) - of.bias
    return np.where(magnitude == 0, 2 * _SMALLEST_EXPONENT, exponents)


def _truncated(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut toward zero to FP32."""
    _, exponent = np.frexp(value)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, _SMALLEST_EXPONENT) - _RESULT_BITS)
    cut: NDArray[np.float32] = (np.trunc(value / unit) * unit).astype(np.float32)
    return cut
