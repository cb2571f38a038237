"""Sums of tcgen05.mma with FP32 accumulators, as other people have measured them.

Nobody here has run a Blackwell. PTX promises no order and no precision. The model is that of
MMA-Sim (arXiv 2511.10909), which its authors have checked on a B200; DeepGEMM's issue 176 has
measured the 25 bits for kind::f8f6f4 independently. Vectors that were recorded on a B200 through
mma.sync fit it for BF16 and FP16, but that is another path to the tensor cores. In short:

- one instruction is one sum over its whole K: exact products, not renormalised, and D, aligned to
  the largest exponent among them, cut toward zero to 25 fractional bits, added exactly, cut toward
  zero to FP32;
- scale factors are added to the exponents of the products. One source (MMA-Sim). What happens below
  2^-126 differs between two sources; here alignment never goes below 2^-126;
- zero is +0, NaN is 0x7FFFFFFF, and a scale factor of 0xFF is NaN. One source (MMA-Sim).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.float_formats import Format

ALIGNED_BITS = 25
"""Fractional bits of the aligned terms below their common exponent."""

_RESULT_BITS = 23
_SMALLEST_EXPONENT = -126
_SMALLEST_POWER = 2.0**_SMALLEST_EXPONENT
_NAN = np.array(0x7FFFFFFF, dtype=np.uint32).view(np.float32)
_NAN_SCALE = 0xFF

Codes = NDArray[np.uint8] | NDArray[np.uint16]


@lru_cache(maxsize=4)
def _tables(of: Format) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By code: the value, and two to the exponent that aligns products, 0 for zeros."""
    codes = np.arange(1 << of.bits).astype(of.codes)
    magnitude = codes.astype(np.int64) & ((1 << of.bits - 1) - 1)
    exponents = np.maximum(magnitude >> of.mantissa_bits, 1) - of.bias
    powers = np.where(magnitude == 0, 0.0, np.exp2(exponents.astype(np.float64)))
    return of.decode(codes).astype(np.float64), powers


def scales_of(codes: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What scale factors in UE8M0 stand for."""
    scales = np.exp2(codes.astype(np.float64) - 127)
    scales[codes == _NAN_SCALE] = np.nan
    return scales


def multiply(
    a: Codes,
    b: Codes,
    c: NDArray[np.float32] | None,
    of_a: Format,
    of_b: Format,
    sfa: NDArray[np.uint8] | None = None,
    sfb: NDArray[np.uint8] | None = None,
) -> NDArray[np.float32]:
    """One tcgen05.mma, (a * sfa) @ (b * sfb).T + c.

    Args:
        a: [m, k] codes; k = 32 on hardware for 8 bits, 16 for 16.
        b: [n, k] codes.
        c: [m, n], or None for zero.
        of_a: format of a.
        of_b: format of b.
        sfa: [m] scale factors in UE8M0, or None for ones; both or neither.
        sfb: [n].

    Returns:
        [m, n].
    """
    c = np.zeros((len(a), len(b)), dtype=np.float32) if c is None else c
    (values_a, powers_a), (values_b, powers_b) = _of_codes(a, of_a), _of_codes(b, of_b)
    largest, term = np.zeros(c.shape), np.empty(c.shape)
    for of_row, of_column in zip(powers_a, powers_b, strict=True):
        np.multiply(of_row[:, None], of_column, out=term)
        np.maximum(largest, term, out=largest)
    scale: NDArray[np.float64] | float = 1.0
    if sfa is not None and sfb is not None:
        scale = scales_of(sfa)[:, None] * scales_of(sfb)
    with np.errstate(invalid="ignore", over="ignore"):
        # A NaN has no say: the sum is one in any case.
        largest = np.fmax(np.fmax(largest * scale, _powers(c)), _SMALLEST_POWER)
        unit = 2.0**ALIGNED_BITS / largest
        # Integers below 2^34: float64 adds them exactly. A sum begun at +0 is never -0.
        total = np.trunc(c * unit) + 0.0
        factor = scale * unit
        for of_row, of_column in zip(values_a, values_b, strict=True):
            np.multiply(of_row[:, None], of_column, out=term)
            term *= factor
            total += np.trunc(term, out=term)
        result = _truncated(total / unit)
    result[np.isnan(result)] = _NAN
    return result


def _of_codes(codes: Codes, of: Format) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values, and the powers of two that align them, [k, rows]."""
    values, powers = (np.ascontiguousarray(table[codes].T) for table in _tables(of))
    return values, powers


def _powers(c: NDArray[np.float32]) -> NDArray[np.float64]:
    """Two to the exponent of each c; the smallest for subnormals, zeros, and what is no number."""
    mantissa, exponent = np.frexp(c)
    is_number = np.isfinite(c) & (mantissa != 0)
    wanted = np.where(is_number, exponent - 1, _SMALLEST_EXPONENT)
    powers: NDArray[np.float64] = np.exp2(np.maximum(wanted, _SMALLEST_EXPONENT).astype(np.float64))
    return powers


def _truncated(value: NDArray[np.float64]) -> NDArray[np.float32]:
    """Cut toward zero to FP32."""
    _, exponent = np.frexp(value)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, _SMALLEST_EXPONENT) - _RESULT_BITS)
    cut: NDArray[np.float32] = (np.trunc(value / unit) * unit).astype(np.float32)
    return cut
