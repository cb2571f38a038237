"""Instructions that compute registers from registers alone, each resolved once into a function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from deep_gemm.emulator import approximations, bits, conversions, float_pairs, halves, opcodes
from deep_gemm.emulator.arithmetic import Lanes, Mask
from deep_gemm.emulator.errors import UnknownOpcodeError
from deep_gemm.emulator.opcodes import DTYPES, DType, Operation
from deep_gemm.emulator.ptx import (
    Immediate,
    Instruction,
    Negated,
    Operand,
    Pair,
    Register,
    Special,
    Vector,
)

# What occurs in every kernel comes last: it is the faster one where two modules have the same.
_OPERATIONS = {
    **approximations.OPERATIONS,
    **bits.OPERATIONS,
    **conversions.OPERATIONS,
    **float_pairs.OPERATIONS,
    **halves.OPERATIONS,
    **opcodes.OPERATIONS,
}

Convert = Callable[[Lanes], Lanes]
Compute = Callable[..., Any]


class Pure(Protocol):
    """A pure instruction as a function of its sources."""

    def __call__(
        self, sources: Sequence[Lanes], active: Mask | None = None
    ) -> Lanes | tuple[Lanes, ...]:
        """Computes all lanes.

        Args:
            sources: [32] per source operand, or per item of a source vector. A register is in the
                type that it is held in, anything else in that of `operand_type`.
            active: [32] lanes that count, None for all. What the others hold raises no error.

        Returns:
            [32] in the type that the destination is held in; it may share memory with a source. A
            tuple, with one per register, if the destination is a pair or a vector.
        """


def evaluate(instruction: Instruction, sources: Sequence[Lanes]) -> Lanes | tuple[Lanes, ...]:
    """Computes a pure instruction in all lanes; see `Pure`.

    Raises:
        UnknownOpcodeError: the instruction is not pure, or not known.
        HazardError: rule R0, a division by zero.
    """
    return _compiled(instruction)(sources)


def compile_pure(instruction: Instruction) -> Pure:
    """The function that an instruction computes.

    Raises:
        UnknownOpcodeError: it is not pure, or not known, or not with these operands.
    """
    operation = _operation(instruction)
    sources = _flat(instruction.operands[1:])
    if operation is None or len(sources) != len(operation.sources):
        raise _unknown(instruction)
    readers = [
        _reader(instruction, operand, wanted)
        for operand, wanted in zip(sources, operation.sources, strict=True)
    ]
    compute = _written(instruction, operation)
    if operation.wants_active:
        return lambda sources, active=None: compute(*_read(readers, sources), active)
    if any(readers):
        return lambda sources, active=None: compute(*_read(readers, sources))
    return lambda sources, active=None: compute(*sources)


def operand_type(instruction: Instruction, index: int) -> DType:
    """The type in which an instruction wants what is not a register.

    Args:
        instruction: any; if it is not pure, its last modifier that is a type decides.
        index: of the operand.

    Returns:
        Unsigned for all integers, of each item if the operand is a vector. A float constant where
        bits are wanted is the float of their width.
    """
    operation = _operation(instruction)
    if operation is not None:
        # The items of a vector are of one type, so the index is right for each of them.
        name = operation.sources[index - 1] if index else operation.result
    else:
        types = [modifier for modifier in instruction.modifiers if modifier in DTYPES]
        name = types[-1] if types else "u32"
    operand = instruction.operands[index]
    is_float = isinstance(operand, Immediate) and isinstance(operand.value, float)
    return _held(f"f{8 * DTYPES[name].itemsize}" if is_float else name)


_compiled = lru_cache(maxsize=None)(compile_pure)


def _operation(instruction: Instruction) -> Operation | None:
    """What the instruction computes; None if it is not a pure one that is known."""
    if instruction.opcode == "mov" and any(
        isinstance(operand, Vector) for operand in instruction.operands
    ):
        return _vector_move(instruction)
    return _OPERATIONS.get(instruction.name)


def _vector_move(instruction: Instruction) -> Operation | None:
    """`mov.b64 d, {a, b}` joins, `mov.b64 {a, b}, d` splits; the first item has the low bits."""
    if instruction.modifiers not in (("b32",), ("b64",)) or len(instruction.operands) != 2:
        return None
    (whole,) = instruction.modifiers
    destination, source = instruction.operands
    joins = isinstance(source, Vector)
    vector = source if joins else destination
    if not isinstance(vector, Vector):
        return None
    count = len(vector.items)
    part = f"b{8 * DTYPES[whole].itemsize // count}"
    if part not in ("b16", "b32") or part == whole:
        return None
    wide, narrow = DTYPES[whole], DTYPES[part]
    if joins:
        return Operation(
            lambda *parts: np.stack(parts, -1).view(wide)[..., 0], whole, (part,) * count
        )
    return Operation(lambda value: _split(value, count, narrow), part, (whole,))


def _split(value: Lanes, count: int, narrow: DType) -> tuple[Lanes, ...]:
    bits = 8 * narrow.itemsize
    return tuple((value >> value.dtype.type(i * bits)).astype(narrow) for i in range(count))


def _held(name: str) -> DType:
    """The type of the arrays that hold values of a PTX type: integers are unsigned."""
    dtype = DTYPES[name]
    return np.dtype(f"u{dtype.itemsize}") if dtype.kind == "i" else dtype


def _flat(operands: Sequence[Operand]) -> list[Operand]:
    """The operands, vectors replaced by their items."""
    items = (operand.items if isinstance(operand, Vector) else (operand,) for operand in operands)
    return [item for group in items for item in group]


def _read(readers: Sequence[Convert | None], sources: Sequence[Lanes]) -> list[Lanes]:
    return [
        source if reader is None else reader(source)
        for reader, source in zip(readers, sources, strict=True)
    ]


def _reader(instruction: Instruction, operand: Operand, wanted: str) -> Convert | None:
    """From what an operand is held in to what the operation wants; None if that is the same."""
    dtype = DTYPES[wanted]
    if isinstance(operand, Special):
        # Some are 64 bits wide and are read as 32 too.
        return lambda value: value.astype(_held(wanted), copy=False).view(dtype)
    if isinstance(operand, Negated):
        operand = operand.register
    if isinstance(operand, Register):
        held = _held(operand.type)
        if held.itemsize < dtype.itemsize:
            raise _unknown(instruction)
    elif isinstance(operand, Immediate) and isinstance(operand.value, float):
        held = np.dtype(f"f{dtype.itemsize}")
    else:
        held = _held(wanted)
    return _conversion(instruction, held, dtype)


def _written(instruction: Instruction, operation: Operation) -> Compute:
    """The operation's function with its results as the destinations are held."""
    destination = instruction.operands[0]
    if isinstance(destination, Pair):
        return _paired(instruction, operation, destination)
    if isinstance(destination, Vector):
        writers = [_writer(instruction, operation, item) for item in destination.items]
        wanted = [isinstance(item, Register) for item in destination.items]
        return lambda *values: tuple(
            value if writer is None else writer(value)
            for value, writer, is_wanted in zip(
                operation.function(*values), writers, wanted, strict=True
            )
            if is_wanted
        )
    function, writer = operation.function, _writer(instruction, operation, destination)
    return function if writer is None else lambda *values: writer(function(*values))


def _paired(instruction: Instruction, operation: Operation, pair: Pair) -> Compute:
    if operation.second is None:
        raise _unknown(instruction)
    functions = [
        function
        for operand, function in (
            (pair.first, operation.function),
            (pair.second, operation.second),
        )
        if isinstance(operand, Register)
    ]
    return lambda *values: tuple(function(*values) for function in functions)


def _writer(instruction: Instruction, operation: Operation, destination: Operand) -> Convert | None:
    if not isinstance(destination, Register):
        return None
    dtype, held = DTYPES[operation.result], _held(destination.type)
    if held.itemsize < dtype.itemsize:
        raise _unknown(instruction)
    return _conversion(instruction, dtype, held)


def _conversion(instruction: Instruction, held: DType, wanted: DType) -> Convert | None:
    """From one type of an array to another; None if they are the same.

    Bits are kept, so only `cvt` may change the width: it cuts, or extends by the sign of `held`.
    """
    if held == wanted:
        return None
    if "b" in (held.kind, wanted.kind):
        raise _unknown(instruction)
    if held.itemsize == wanted.itemsize:
        return lambda value: value.view(wanted)
    if instruction.opcode != "cvt" or "f" in (held.kind, wanted.kind):
        raise _unknown(instruction)
    return lambda value: value.astype(wanted)


def _unknown(instruction: Instruction) -> UnknownOpcodeError:
    return UnknownOpcodeError(
        f"PTX line {instruction.line}: unknown instruction: {instruction.text}"
    )
