"""WGMMA without its asynchrony: operand descriptors, accumulator fragments and FP8 arithmetic.

The arithmetic is a model of Hopper's, not of what PTX promises, which is at least single precision
in no order. 45 cases recorded on an H100 (tests/emulator/goldens: 1 to 128 instructions in a chain,
N from 8 to 256, every swizzle, C over all bits of FP32, e4m3, e5m2 and both) equal it to the bit,
and each of its parts was broken once to see that some of them then differ:

- products are exact and not renormalised; subnormal codes align with the smallest normal exponent;
- products that are zero have no say in the alignment; C has, with -126 if it is subnormal;
- products and C are cut toward zero to 13 fractional bits, C also where all products are zero; the
  sum is cut toward zero to 13 of its own. Nothing is rounded to the nearest;
- a chain repeats this, instruction by instruction, with nothing else in between;
- a zero sum is +0; NaN is 0x7FFFFFFF whatever the operand's sign or payload; infinities pass;
- an operand's sign may be flipped (imm-scale -1), which changes nothing else.

Not recorded: FP16 accumulators, A in registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import EmulationError, HazardError

Fp8 = Literal["e4m3", "e5m2"]

WARPGROUP_THREADS = 128
MAX_N = 256

CORE_ROWS = 8
"""Rows of a core matrix: the stride byte offset leads from one group of so many to the next."""

CORE_BYTES = 16
"""Bytes of a core matrix's row, and the unit of swizzles and of addresses in descriptors."""

SWIZZLE_BYTES = (0, 128, 64, 32)
"""By a descriptor's layout code."""

RESERVED_BITS = (14, 15, 30, 31, 46, 47, 48, *range(52, 62))
RESERVED_MASK = sum(1 << bit for bit in RESERVED_BITS)


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A shared-memory operand descriptor.

    Attributes:
        start: CTA-relative address of the first element, in bytes.
        lbo: leading-dimension byte offset.
        sbo: stride-dimension byte offset.
        base_offset: where in the swizzle pattern the pattern starts, in 128-byte lines.
        layout: swizzle code: 0 none, 1 128 bytes, 2 64 bytes, 3 32 bytes.
    """

    start: int
    lbo: int
    sbo: int
    base_offset: int
    layout: int

    @property
    def swizzle_bytes(self) -> int:
        """Width of the swizzle, 0 for none."""
        return SWIZZLE_BYTES[self.layout]


def decode_descriptor(desc: int) -> Descriptor:
    """Splits the 64-bit descriptor of an operand in shared memory.

    Raises:
        HazardError: R16, a reserved bit is set.
    """
    if desc & RESERVED_MASK:
        bits = ", ".join(str(bit) for bit in RESERVED_BITS if desc >> bit & 1)
        raise HazardError("R16", f"wgmma descriptor {desc:#018x}: reserved bits must be 0: {bits}")
    start, lbo, sbo = ((desc >> shift & 0x3FFF) * CORE_BYTES for shift in (0, 16, 32))
    return Descriptor(start, lbo, sbo, base_offset=desc >> 49 & 7, layout=desc >> 62 & 3)


def operand_offsets(descriptor: Descriptor, rows: int, k_bytes: int) -> NDArray[np.int64]:
    """Where a K-major operand lies in shared memory, whatever its element size.

    Args:
        descriptor: of the operand of one instruction.
        rows: of M for operand A, of N for operand B.
        k_bytes: bytes of K, 32 for every WGMMA.

    Returns:
        [rows, k_bytes] CTA-relative address of every byte, swizzled.

    Raises:
        HazardError: R15, a swizzled operand does not start in the first row of its pattern.
        EmulationError: the base offset is not 0; its effect is not specified.
    """
    row = np.arange(rows, dtype=np.int64)[:, None]
    k = np.arange(k_bytes, dtype=np.int64)
    group = descriptor.start + row // CORE_ROWS * descriptor.sbo
    width = descriptor.swizzle_bytes
    if width == 0:
        within_core = row % CORE_ROWS * CORE_BYTES + k % CORE_BYTES
        return group + within_core + k // CORE_BYTES * descriptor.lbo
    _check_pattern_start(descriptor, k_bytes)
    address = group + row % CORE_ROWS * width + k
    # The 16-byte units of a line are permuted by address bits 7 and up, as TMA does it.
    return address ^ (address >> 3 & (width - CORE_BYTES))


def _check_pattern_start(descriptor: Descriptor, k_bytes: int) -> None:
    if descriptor.base_offset != 0:
        raise EmulationError(
            f"wgmma descriptor: only base offset 0 is modelled, got {descriptor.base_offset}"
        )
    width = descriptor.swizzle_bytes
    if descriptor.start % (CORE_ROWS * width) + k_bytes > width:
        raise HazardError(
            "R15",
            f"wgmma descriptor: with a {width}-byte swizzle and base offset 0, {k_bytes} bytes of K"
            f" must lie in the first {width} bytes of a {CORE_ROWS * width}-byte pattern,"
            f" got start address {descriptor.start:#x}",
        )


def accumulator_rows_columns(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which element of the 64 x n result each FP32 accumulator register holds.

    Args:
        n: columns, a multiple of 8 from 8 to 256.

    Returns:
        rows and columns, each [128 threads of the warpgroup, n / 2 registers].

    Raises:
        EmulationError: no such instruction shape.
    """
    if n not in range(8, MAX_N + 1, 8):
        raise EmulationError(f"wgmma: n must be a multiple of 8 from 8 to {MAX_N}, got {n}")
    thread = np.arange(WARPGROUP_THREADS, dtype=np.int64)[:, None]
    register = np.arange(n // 2, dtype=np.int64)
    warp, lane = thread // 32, thread % 32
    rows = 16 * warp + lane // 4 + 8 * (register // 2 % 2)
    columns = 8 * (register // 4) + 2 * (lane % 4) + register % 2
    return rows, columns


@dataclass(frozen=True)
class _Decoded:
    """An FP8 format by code.

    Attributes:
        values: [256] float32, infinities and NaN included.
        powers: [256] float32, two to the exponent that aligns products: subnormals have the
            smallest normal exponent; 0 for zeros, which take no part. What it is for infinities
            and NaN makes no difference.
    """

    values: NDArray[np.float32]
    powers: NDArray[np.float32]


def _decode(mantissa_bits: int, bias: int, specials: dict[int, float]) -> _Decoded:
    """Decodes all codes; `specials` are the magnitudes' codes that stand for no number."""
    code = np.arange(256)
    exponent = code >> mantissa_bits & (0x7F >> mantissa_bits)
    fraction = (code & (1 << mantissa_bits) - 1) / (1 << mantissa_bits)
    powers = np.exp2(np.maximum(exponent, 1) - bias)
    values = (fraction + (exponent > 0)) * powers
    for special, meaning in specials.items():
        values[[special, special | 0x80]] = meaning
    powers[values == 0] = 0
    values[128:] *= -1
    return _Decoded(values.astype(np.float32), powers.astype(np.float32))


_FORMATS: dict[Fp8, _Decoded] = {
    "e4m3": _decode(3, 7, {0x7F: np.nan}),
    "e5m2": _decode(2, 15, {0x7C: np.inf, 0x7D: np.nan, 0x7E: np.nan, 0x7F: np.nan}),
}

FRACTION_BITS = 13
"""Of the aligned terms below their common exponent, and of the result below its own."""

_KEPT_BITS = np.uint32(0xFFFFFFFF << 23 - FRACTION_BITS & 0xFFFFFFFF)
_EXPONENT_BITS = np.uint32(0x7F800000)
_SMALLEST_NORMAL = np.float32(2.0**-126)
_NAN = np.array(0x7FFFFFFF, dtype=np.uint32).view(np.float32)

# Products are at least 2^-32: a unit finer than this never aligns one that is not zero.
_FINEST_SCALE = 2.0**60


def multiply(
    a: NDArray[np.uint8],
    b: NDArray[np.uint8],
    c: NDArray[np.float32] | None,
    *,
    a_format: Fp8 = "e4m3",
    b_format: Fp8 = "e4m3",
) -> NDArray[np.float32]:
    """One FP8 WGMMA with FP32 accumulators, a @ b.T + c, to the bit as Hopper rounds it.

    Per element, the products (exact, not renormalised) and c are aligned to the largest
    exponent among them, cut toward zero to 13 fractional bits, added exactly, and the sum is cut
    toward zero to 13 fractional bits. Zero is +0 and NaN is 0x7FFFFFFF.

    Args:
        a: [m, k] codes; k = 32 on hardware.
        b: [n, k] codes.
        c: [m, n], or None for zero.
        a_format: of a.
        b_format: of b.

    Returns:
        [m, n].
    """
    of_a, of_b = _FORMATS[a_format], _FORMATS[b_format]
    if c is None:
        # Its exponent is then the smallest of all, so that it has no say in the alignment.
        c = np.zeros((len(a), len(b)), dtype=np.float32)
    codes_a, codes_b = a.T[:, :, None], b.T[:, None, :]
    terms = np.take(of_a.powers, codes_a) * np.take(of_b.powers, codes_b)
    largest = np.maximum(terms.max(axis=0), _powers(c))
    # Powers of two in float64: scaling by them is exact, also for subnormals.
    scale = 2.0**FRACTION_BITS / largest.astype(np.float64)
    with np.errstate(invalid="ignore"):
        np.multiply(np.take(of_a.values, codes_a), np.take(of_b.values, codes_b), out=terms)
        terms *= np.minimum(scale, _FINEST_SCALE).astype(np.float32)
        np.trunc(terms, out=terms)
        # Integers below 2^24, so that float32 adds them exactly; a sum begun at +0 is never -0.
        total = terms.sum(axis=0, initial=0.0) + np.trunc(c * scale).astype(np.float32)
        cut = (total.view(np.uint32) & _KEPT_BITS).view(np.float32)
        result: NDArray[np.float32] = (cut / scale).astype(np.float32)
    result[np.isnan(result)] = _NAN
    return result


def _powers(c: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two to the exponent of each c: -126 for subnormals and zeros, and for what is no number."""
    exponents = c.view(np.uint32) & _EXPONENT_BITS
    powers: NDArray[np.float32] = np.maximum(exponents.view(np.float32), _SMALLEST_NORMAL)
    powers[np.isinf(powers)] = _SMALLEST_NORMAL
    return powers
