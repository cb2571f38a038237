"""Undefined values in registers: what was never written, or computed from what was not.

They may be computed with, as long as nothing depends on them: compilers load early what they may
not need, and WGMMA multiplies rows that nobody stores. Undefined is an error (R26) where it is an
address, a predicate that decides, an operand of a barrier or a copy, or data for global memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import Access, HazardError
from deep_gemm.emulator.ir import Instruction, Pair, Register, Sink, Vector
from deep_gemm.emulator.operands import LANES

Mask = NDArray[np.bool_]

Spread = Callable[[Sequence[Mask], Sequence[Any]], Mask]
"""Which lanes of a result are undefined, from those of the sources and the sources' values."""


class Undefined:
    """The undefined lanes of a warp's registers."""

    def __init__(self, num_slots: int) -> None:
        """Starts with all registers undefined."""
        self._lanes: dict[int, Mask] = dict.fromkeys(range(num_slots), np.ones(LANES, np.bool_))
        self._origins: dict[int, Access] = {}

    def touches(self, slots: frozenset[int]) -> bool:
        """Whether a lane of one of the registers is undefined."""
        return not self._lanes.keys().isdisjoint(slots)

    def lanes(self, slot: int) -> Mask:
        """The register's undefined lanes."""
        return self._lanes.get(slot, _NONE)

    def columns(self, slots: Sequence[int]) -> Mask:
        """The undefined lanes of registers: [32, registers]."""
        return np.stack([self.lanes(slot) for slot in slots], axis=1)

    def origin(self, slots: Iterable[int]) -> Access | None:
        """Where an undefined value was read from memory, if it was."""
        return next((self._origins[slot] for slot in slots if slot in self._origins), None)

    def define(self, slot: int, mask: Mask) -> None:
        """Lanes are written with defined values."""
        if slot in self._lanes:
            self.mark(slot, self._lanes[slot] & ~mask, self._origins.get(slot))

    def mark(self, slot: int, lanes: Mask, origin: Access | None = None) -> None:
        """Just these lanes of a register are undefined."""
        if not lanes.any():
            self.clear((slot,))
            return
        self._lanes[slot] = lanes
        if origin is not None:
            self._origins[slot] = origin

    def taint(self, slot: int, lanes: Mask, origin: Access | None = None) -> None:
        """These lanes of a register are undefined, too."""
        if lanes.any():
            self.mark(slot, self.lanes(slot) | lanes, origin)

    def clear(self, slots: Iterable[int]) -> None:
        """All lanes of registers are defined."""
        for slot in slots:
            self._lanes.pop(slot, None)
            self._origins.pop(slot, None)

    def require(self, slots: frozenset[int], mask: Mask, what: str) -> None:
        """Checks that lanes of registers are defined.

        Raises:
            HazardError: R26, one is not.
        """
        if not self.touches(slots):
            return
        for slot in slots:
            bad = self.lanes(slot) & mask
            if bad.any():
                lane, origin = int(np.argmax(bad)), self.origin((slot,))
                why = "never written" if origin is None else "computed from undefined memory"
                raise HazardError("R26", f"{what} undefined in lane {lane}: {why}", origin)


_NONE = np.zeros(LANES, dtype=np.bool_)

_ADDRESS_ARITHMETIC = ("cvta", "mapa", "getctarank", "isspacep")
_ACROSS_LANES = ("vote", "match", "redux")

_NUM_DATA = {"shfl": 1, **dict.fromkeys(_ACROSS_LANES, 1), **dict.fromkeys(_ADDRESS_ARITHMETIC, 2)}
"""By opcode, how many operands behind the result may be undefined: then the result is."""


def needs(instruction: Instruction) -> tuple[object, ...]:
    """The operands of an instruction with effects that must be defined in every lane that acts.

    Not among them: destinations, data that stays in the CTA, and accumulators.
    """
    operands, opcode = instruction.operands, instruction.opcode
    if opcode in ("st", "stmatrix") or instruction.name.startswith("tcgen05.st."):
        return operands[:1]
    if opcode == "tcgen05" and instruction.modifiers[0] != "ld":
        return operands
    if opcode in ("bar", "barrier") and "red" not in instruction.modifiers:
        return operands
    if operands and isinstance(operands[0], Register | Vector | Pair | Sink):
        operands = operands[1:]
    return operands[_NUM_DATA.get(opcode, 0) :]


def data(instruction: Instruction) -> tuple[object, ...]:
    """Operands of an instruction with effects that decide whether its result is defined.

    Not of shfl, whose result in one lane is defined as its operand in another lane is.
    """
    if instruction.opcode == "shfl":
        return ()
    return instruction.operands[1 : 1 + _NUM_DATA.get(instruction.opcode, 0)]


def spread_effect(opcode: str, lanes: Mask, mask: Mask) -> Mask:
    """Which lanes of the result are undefined, from those of `data`, if `mask` executes it."""
    if opcode in _ACROSS_LANES:
        return mask & (lanes & mask).any()
    return mask & lanes


def spread(opcode: str) -> Spread:
    """How undefined lanes of an instruction's sources become undefined lanes of its result."""
    return {"selp": _spread_selp, "and": _spread_and, "or": _spread_or}.get(opcode, _spread_any)


def _spread_any(lanes: Sequence[Mask], values: Sequence[Any]) -> Mask:
    result: Mask = np.logical_or.reduce(list(lanes))
    return result


def _spread_selp(lanes: Sequence[Mask], values: Sequence[Any]) -> Mask:
    result: Mask = np.where(values[2], lanes[0], lanes[1]) | lanes[2]
    return result


def _spread_and(lanes: Sequence[Mask], values: Sequence[Any]) -> Mask:
    decided = [~undefined & (value == 0) for undefined, value in zip(lanes, values, strict=True)]
    result: Mask = _spread_any(lanes, values) & ~decided[0] & ~decided[1]
    return result


def _spread_or(lanes: Sequence[Mask], values: Sequence[Any]) -> Mask:
    return _spread_and(lanes, [~value for value in values])
