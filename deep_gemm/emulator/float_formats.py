"""Floats of 8 and 16 bits: their codes as FP32 values, and FP32 values rounded to them.

All four formats are exact in FP32. Codes of 16-bit formats are uint16, those of FP8 uint8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.arithmetic import Lanes

_F32_NAN = np.uint32(0x7FFFFFFF).view(np.float32)


@dataclass(frozen=True)
class Format:
    """A float of at most 16 bits.

    Attributes:
        bits: of a code.
        mantissa_bits: of them.
        nan: the code that conversions give for a NaN.
        largest: the code of the largest finite value.
        infinity: the code of infinity; None if the format has none.
    """

    bits: int
    mantissa_bits: int
    nan: int
    largest: int
    infinity: int | None

    @property
    def codes(self) -> type[np.unsignedinteger]:
        """NumPy's type of a code."""
        return np.uint8 if self.bits == 8 else np.uint16

    @property
    def bias(self) -> int:
        """Of the exponent."""
        return (1 << self.bits - self.mantissa_bits - 2) - 1

    @property
    def smallest_exponent(self) -> int:
        """Of a normal value; subnormals share it."""
        return 1 - self.bias

    def decode(self, codes: Lanes) -> NDArray[np.float32]:
        """The values of codes; every NaN is the canonical one."""
        magnitude = (codes & self.codes((1 << self.bits - 1) - 1)).astype(np.int64)
        exponent = magnitude >> self.mantissa_bits
        fraction = magnitude & ((1 << self.mantissa_bits) - 1)
        significand = np.where(exponent > 0, fraction + (1 << self.mantissa_bits), fraction)
        power = np.maximum(exponent, 1) - self.bias - self.mantissa_bits
        with np.errstate(over="ignore"):
            values = np.ldexp(significand.astype(np.float64), power).astype(np.float32)
        if self.infinity is not None:
            values = np.where(magnitude == self.infinity, np.float32(np.inf), values)
        values = np.where(codes >> (self.bits - 1) == 1, -values, values)
        limit = self.largest if self.infinity is None else self.infinity
        decoded: NDArray[np.float32] = np.where(magnitude > limit, _F32_NAN, values)
        return decoded

    def encode(self, values: Lanes, truncates: bool = False, saturates: bool = False) -> Lanes:
        """Values rounded to the format.

        Args:
            values: FP32 or FP64.
            truncates: toward zero instead of to the nearest, ties to even.
            saturates: what is too large, infinity too, becomes the largest finite value.
        """
        is_nan, is_infinite = np.isnan(values), np.isinf(values)
        magnitude = np.where(is_nan | is_infinite, 0, np.abs(values)).astype(np.float64)
        _, exponent = np.frexp(magnitude)
        # A code grows by one from each value to the next, across exponents too.
        place = np.maximum(exponent - 1, self.smallest_exponent)
        place[magnitude == 0] = self.smallest_exponent
        scaled = np.ldexp(magnitude, self.mantissa_bits - place)
        units = (np.trunc(scaled) if truncates else np.rint(scaled)).astype(np.int64)
        code = units + ((place - self.smallest_exponent) << self.mantissa_bits)
        overflow = self._overflow(truncates, saturates)
        code = np.where(code > self.largest, overflow, code)
        code = np.where(is_infinite, self._overflow(False, saturates), code)
        code |= np.signbit(values).astype(np.int64) << (self.bits - 1)
        return np.where(is_nan, self.nan, code).astype(self.codes)

    def _overflow(self, truncates: bool, saturates: bool) -> int:
        if truncates or saturates:
            return self.largest
        return self.nan if self.infinity is None else self.infinity


FP16 = Format(16, 10, nan=0x7FFF, largest=0x7BFF, infinity=0x7C00)
BF16 = Format(16, 7, nan=0x7FFF, largest=0x7F7F, infinity=0x7F80)
E4M3 = Format(8, 3, nan=0x7F, largest=0x7E, infinity=None)
E5M2 = Format(8, 2, nan=0x7F, largest=0x7B, infinity=0x7C)
