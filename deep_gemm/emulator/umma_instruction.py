"""The instruction descriptor of tcgen05.mma, 32 bits: types, majors and shape.

Fields that several sources agree on (PTX, CUTLASS, Triton, TVM). Legal shapes as PTX 9.1 has them;
that N may be a multiple of 8 for M = 128 is what PTX and new CUTLASS say, older code wants 16.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.float_formats import BF16, E4M3, E5M2, FP16, Format

_TYPES: dict[str, dict[int, Format]] = {
    "f16": {0: FP16, 1: BF16},
    "f8f6f4": {0: E4M3, 1: E5M2},
    "mxf8f6f4": {0: E4M3, 1: E5M2},
}
_SMALL_TYPES = {3: "E2M3", 4: "E3M2", 5: "E2M1"}
_F32 = 1

# Bits that must be 0, by kind.
_RESERVED = {
    "f16": (0, 1, 2, 3, 6, 23, 29, 30, 31),
    "f8f6f4": (0, 1, 2, 3, 6, 23, 29, 30, 31),
    "mxf8f6f4": (0, 1, 2, 3, 6, 24, 25, 26, 31),
}


@dataclass(frozen=True, slots=True)
class Mma:
    """What one tcgen05.mma computes.

    Attributes:
        kind: "f16", "f8f6f4" or "mxf8f6f4".
        a: format of operand A.
        b: format of operand B.
        m: rows of D, of both CTAs of a pair.
        n: columns of D.
        a_is_mn_major: whether A is transposed in shared memory.
        b_is_mn_major: whether B is.
        a_is_negated: whether A counts with the opposite sign.
        b_is_negated: whether B does.
        sfa_id: which byte of a word of scale factors is A's.
        sfb_id: which one is B's.
    """

    kind: str
    a: Format
    b: Format
    m: int
    n: int
    a_is_mn_major: bool
    b_is_mn_major: bool
    a_is_negated: bool
    b_is_negated: bool
    sfa_id: int
    sfb_id: int

    @property
    def is_scaled(self) -> bool:
        """Whether scale factors take part."""
        return self.kind == "mxf8f6f4"


@lru_cache(maxsize=1024)
def decode(idesc: int, kind: str, cta_group: int) -> Mma:
    """Splits an instruction descriptor.

    Args:
        idesc: 32 bits.
        kind: "f16", "f8f6f4" or "mxf8f6f4".
        cta_group: 1 or 2.

    Raises:
        HazardError: R17, the combination does not exist.
        EmulationError: it is legal, but not modelled.
    """
    reserved = [bit for bit in _RESERVED[kind] if idesc >> bit & 1]
    if reserved:
        _refuse(idesc, f"bits {reserved} must be 0 for kind::{kind}, dense")
    is_scaled = kind == "mxf8f6f4"
    if is_scaled and not idesc >> 23 & 1:
        _refuse(idesc, "bit 23 must be 1 for kind::mxf8f6f4: its scale factors are UE8M0")
    if not is_scaled and (idesc >> 4 & 3) != _F32:
        _check_result(idesc, kind)
    mma = Mma(
        kind=kind,
        a=_type(idesc, kind, idesc >> 7 & 7),
        b=_type(idesc, kind, idesc >> 10 & 7),
        m=(idesc >> 27 & 3) * 128 if is_scaled else (idesc >> 24 & 31) * 16,
        n=(idesc >> 17 & 63) * 8,
        a_is_negated=bool(idesc >> 13 & 1),
        b_is_negated=bool(idesc >> 14 & 1),
        a_is_mn_major=bool(idesc >> 15 & 1),
        b_is_mn_major=bool(idesc >> 16 & 1),
        sfa_id=idesc >> 29 & 3 if is_scaled else 0,
        sfb_id=idesc >> 4 & 3 if is_scaled else 0,
    )
    _check_shape(idesc, mma, cta_group)
    return mma


def _type(idesc: int, kind: str, code: int) -> Format:
    if kind != "f16" and code in _SMALL_TYPES:
        raise EmulationError(f"tcgen05.mma of {_SMALL_TYPES[code]} is not modelled")
    if code not in _TYPES[kind]:
        _refuse(idesc, f"operand type {code} does not exist for kind::{kind}")
    return _TYPES[kind][code]


def _check_result(idesc: int, kind: str) -> None:
    code = idesc >> 4 & 3
    if code == 0:
        raise EmulationError("tcgen05.mma with a result in FP16 is not modelled")
    _refuse(idesc, f"result type {code} does not exist for kind::{kind}")


def _check_shape(idesc: int, mma: Mma, cta_group: int) -> None:
    rows = (64 * cta_group, 128 * cta_group)
    if mma.is_scaled and cta_group == 1:
        rows = (128, 128)
    step = 8 * cta_group
    shape = f"kind::{mma.kind} with cta_group::{cta_group}"
    if mma.m not in rows:
        _refuse(
            idesc, f"M of {shape} must be {' or '.join(map(str, sorted(set(rows))))}, got {mma.m}"
        )
    if mma.n % step or not step <= mma.n <= 256:
        _refuse(idesc, f"N of {shape} must be a multiple of {step} up to 256, got {mma.n}")
    # By PTX alone.
    if mma.b.bits == 8 and mma.b_is_mn_major and mma.n % (2 * step):
        text = f"a multiple of {2 * step} where B is MN-major and of 8 bits, got {mma.n}"
        _refuse(idesc, f"N of {shape} must be {text}")
    if mma.is_scaled and cta_group == 2 and mma.m == 128:
        raise EmulationError(
            "tcgen05.mma with scale factors, M = 128 and cta_group::2 is not modelled: where the"
            " scale factors of 64 rows lie is not known"
        )


def _refuse(idesc: int, text: str) -> None:
    raise HazardError("R17", f"instruction descriptor {idesc:#010x}: {text}")
