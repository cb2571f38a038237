"""Operands of tcgen05.mma and tcgen05.cp in shared memory: descriptors of 64 bits.

Meaning of the offsets, for an element (mn, k) of es bytes and a swizzle of W bytes:

    K-major, swizzled    mn % 8 * W + mn / 8 * SBO + k * es
    K-major, none        mn % 8 * 16 + mn / 8 * SBO + k * es % 16 + k * es / 16 * LBO
    MN-major, swizzled   mn * es % W + mn * es / W * LBO + k % 8 * W + k / 8 * SBO
    MN-major, none       mn * es % 16 + mn * es / 16 * SBO + k % 8 * 16 + k / 8 * LBO

The swizzle is that of TMA, on bits of the whole address. A base offset other than 0 is not modelled
under a swizzle: there is a formula for it, but nobody is known to use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import EmulationError, HazardError

SWIZZLE_BYTES = {0: 0, 2: 128, 4: 64, 6: 32}
"""By a descriptor's layout code. Code 1, with atoms of 32 bytes, is for TF32 alone."""

CORE_ROWS = 8
CORE_BYTES = 16

_RESERVED_BITS = (14, 15, 30, 31, *range(53, 61))
_ADDRESS_UNIT = 16


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A shared-memory operand descriptor of SM100.

    Attributes:
        start: CTA-relative address of the first element, in bytes.
        lbo: leading-dimension byte offset.
        sbo: stride-dimension byte offset.
        swizzle_bytes: width of the swizzle, 0 for none.
    """

    start: int
    lbo: int
    sbo: int
    swizzle_bytes: int


def decode_descriptor(desc: int) -> Descriptor:
    """Splits the 64-bit descriptor of an operand in shared memory.

    Raises:
        HazardError: R16, a reserved bit is set, the constant is missing, or the layout does not
            exist.
        EmulationError: it is legal, but not modelled.
    """
    what = f"tcgen05 descriptor {desc:#018x}"
    wrong = [bit for bit in _RESERVED_BITS if desc >> bit & 1]
    if wrong:
        raise HazardError("R16", f"{what}: reserved bits must be 0: {wrong}")
    if desc >> 46 & 7 != 1:
        raise HazardError("R16", f"{what}: bits 46 to 48 must be 0b001, got {desc >> 46 & 7:#05b}")
    if desc >> 52 & 1:
        raise HazardError("R16", f"{what}: an absolute leading dimension is for sm_103a and MXF4")
    layout = desc >> 61
    if layout == 1:
        raise HazardError("R16", f"{what}: swizzle atoms of 32 bytes are for TF32 alone")
    if layout not in SWIZZLE_BYTES:
        raise HazardError("R16", f"{what}: layout code {layout} does not exist")
    # Without a swizzle it means nothing, but Triton sets it.
    if layout and desc >> 49 & 7:
        text = f"only base offset 0 is modelled, got {desc >> 49 & 7}"
        raise EmulationError(f"{what}: {text}")
    start, lbo, sbo = ((desc >> shift & 0x3FFF) * _ADDRESS_UNIT for shift in (0, 16, 32))
    return Descriptor(start, lbo, sbo, SWIZZLE_BYTES[layout])


@lru_cache(maxsize=4096)
def operand_offsets(
    desc: int, rows: int, k_bytes: int, is_mn_major: bool, element_bytes: int
) -> NDArray[np.int64]:
    """Where an operand lies in shared memory.

    Args:
        desc: its descriptor.
        rows: of M for operand A, of N for operand B.
        k_bytes: bytes of K: 32 for every tcgen05.mma.
        is_mn_major: whether neighbours along MN are neighbours in memory.
        element_bytes: 1 or 2.

    Returns:
        [rows, k_bytes] CTA-relative address of every byte; the bytes of an element follow each
        other in both majors.

    Raises:
        HazardError: R16, as decode_descriptor; R15, a swizzled operand does not start where its
            pattern allows.
    """
    descriptor = decode_descriptor(desc)
    row = np.arange(rows, dtype=np.int64)[:, None]
    k, within = divmod(np.arange(k_bytes, dtype=np.int64), element_bytes)
    _check_start(descriptor, k_bytes, is_mn_major)
    if is_mn_major:
        offsets = _mn_major(descriptor, row * element_bytes, k) + within
    else:
        offsets = _k_major(descriptor, row, k * element_bytes + within)
    address = descriptor.start + offsets
    width = descriptor.swizzle_bytes
    swizzled: NDArray[np.int64] = address ^ (address >> 3 & max(0, width - CORE_BYTES))
    swizzled.flags.writeable = False
    return swizzled


def _k_major(of: Descriptor, row: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets of bytes, from rows and bytes of K."""
    width = of.swizzle_bytes
    lines: NDArray[np.int64] = row % CORE_ROWS * (width or CORE_BYTES) + row // CORE_ROWS * of.sbo
    return lines + (k if width else k % CORE_BYTES + k // CORE_BYTES * of.lbo)


def _mn_major(of: Descriptor, mn: NDArray[np.int64], k: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offsets of elements, from bytes of MN and from elements of K."""
    width = of.swizzle_bytes or CORE_BYTES
    # Without a swizzle the two strides change their roles.
    of_mn, of_k = (of.lbo, of.sbo) if of.swizzle_bytes else (of.sbo, of.lbo)
    along_mn: NDArray[np.int64] = mn % width + mn // width * of_mn
    return along_mn + k % CORE_ROWS * width + k // CORE_ROWS * of_k


def _check_start(descriptor: Descriptor, k_bytes: int, is_mn_major: bool) -> None:
    width = descriptor.swizzle_bytes
    if not width:
        return
    into = descriptor.start % (CORE_ROWS * width)
    if into + (0 if is_mn_major else k_bytes) > (0 if is_mn_major else width):
        where = "at its start" if is_mn_major else f"in the first {width} bytes, with {k_bytes}"
        raise HazardError(
            "R15",
            f"tcgen05 descriptor: with a {width}-byte swizzle and base offset 0, an operand must"
            f" lie {where} of a {CORE_ROWS * width}-byte pattern, got start address"
            f" {descriptor.start:#x}",
        )
