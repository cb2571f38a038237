"""Operands as functions of a warp: what an instruction reads, for all 32 lanes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import Address, Immediate, Negated, Register, Special, Symbol
from deep_gemm.emulator.memory import RANK_SHIFT

if TYPE_CHECKING:
    from deep_gemm.emulator.warp import Warp


@dataclass(frozen=True)
class Symbols:
    """What names in the program stand for.

    Attributes:
        addresses: of every parameter and variable.
        shared: names whose address is an offset in the shared memory of the CTA that asks.
    """

    addresses: dict[str, int]
    shared: frozenset[str]


LANES = 32
Lanes = NDArray[Any]
Fetch = Callable[["Warp"], Lanes]


def constant(value: int | float, dtype: Any) -> Lanes:
    """The value in every lane; integers wrap to the type's width."""
    dtype = np.dtype(dtype)
    if dtype.kind == "u" and isinstance(value, int):
        value &= (1 << (8 * dtype.itemsize)) - 1
    result = np.full(LANES, value, dtype=dtype)
    result.flags.writeable = False
    return result


def fetcher(operand: object, symbols: Symbols, dtype: Any) -> Fetch:
    """Reads an operand.

    Args:
        operand: register, negated predicate, immediate, symbol or special register.
        symbols: addresses of what is named. Shared ones are CTA-relative.
        dtype: NumPy type of an immediate.
    """
    match operand:
        case Register(slot=slot):
            return lambda warp: warp.registers[slot]
        case Negated(register=Register(slot=slot)):
            return lambda warp: np.logical_not(warp.registers[slot])
        case Immediate(value=value):
            lanes = constant(value, dtype)
            return lambda warp: lanes
        case Special(name=name):
            return lambda warp: warp.special[name]
        case Symbol(name=name, offset=offset):
            lanes = constant(symbols.addresses[name] + offset, dtype)
            if name in symbols.shared:
                return lambda warp: lanes + lanes.dtype.type(warp.cta.rank << RANK_SHIFT)
            return lambda warp: lanes
        case _:
            raise EmulationError(f"operand {operand} cannot be read as a value")


def address(operand: object, symbols: Symbols) -> Fetch:
    """The address of `[base + offset]`, as uint64."""
    if not isinstance(operand, Address):
        raise EmulationError(f"operand {operand} is not an address")
    base = fetcher(operand.base, symbols, np.uint64)
    offset = constant(operand.offset, np.uint64)
    return lambda warp: base(warp).astype(np.uint64) + offset
