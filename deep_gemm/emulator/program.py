"""A kernel's instructions, each resolved once into a function of a warp and a mask of lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator import alu, effects
from deep_gemm.emulator.errors import UnknownOpcodeError
from deep_gemm.emulator.ir import (
    Address,
    Guard,
    Instruction,
    Kernel,
    Label,
    Pair,
    Register,
    TensorAddress,
    Vector,
)
from deep_gemm.emulator.operands import Fetch, Symbols, fetcher
from deep_gemm.emulator.warp import LANES, Mask, Wait, Warp

Execute = Callable[[Warp, Mask], "Wait | None"]


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction, resolved.

    Attributes:
        execute: does it for the lanes of a mask; a Wait if they cannot go on.
        guard: the predicate, if any.
        target: where a branch goes.
        is_exit: whether it ends its lanes.
        is_wgmma: whether it may touch accumulators that are in flight.
        touched: slots of all registers that it names.
        accumulators: those of them that some wgmma accumulates in, unless this is one.
    """

    execute: Execute
    guard: Guard | None = None
    target: int | None = None
    is_exit: bool = False
    is_wgmma: bool = False
    touched: frozenset[int] = frozenset()
    accumulators: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Program:
    """A kernel, ready to be executed by any number of warps.

    Attributes:
        kernel: what was parsed.
        registers: by slot.
        steps: by program counter.
        lines: line of the PTX text, by program counter.
        texts: the instruction's text, by program counter.
        symbols: what the kernel's names stand for.
    """

    kernel: Kernel
    registers: tuple[Register, ...]
    steps: tuple[Step, ...]
    lines: tuple[int, ...]
    texts: tuple[str, ...]
    symbols: Symbols


def compile_kernel(kernel: Kernel, symbols: Symbols) -> Program:
    """Resolves every instruction.

    Args:
        kernel: what was parsed.
        symbols: what its names stand for.

    Raises:
        UnknownOpcodeError: an instruction is not known.
    """
    accumulators = frozenset(
        register.slot
        for instruction in kernel.instructions
        if instruction.name.startswith("wgmma.mma_async")
        for register in _registers(instruction.operands[:1])
    )
    steps = (_step(instruction, kernel, symbols) for instruction in kernel.instructions)
    return Program(
        kernel,
        kernel.registers,
        tuple(
            step if step.is_wgmma else replace(step, accumulators=step.touched & accumulators)
            for step in steps
        ),
        tuple(instruction.line for instruction in kernel.instructions),
        tuple(" ".join(instruction.text.split()) for instruction in kernel.instructions),
        symbols,
    )


def _step(instruction: Instruction, kernel: Kernel, symbols: Symbols) -> Step:
    touched = frozenset(register.slot for register in _registers(instruction.operands))
    guard = instruction.guard
    if instruction.opcode == "bra":
        label = instruction.operands[0]
        if not isinstance(label, Label):
            raise UnknownOpcodeError(f"line {instruction.line}: {instruction.text}")
        return Step(_nothing, guard, target=kernel.labels[label.name], touched=touched)
    if instruction.opcode in ("ret", "exit"):
        return Step(_nothing, guard, is_exit=True)
    effect = effects.find(instruction, symbols)
    if effect is not None:
        is_wgmma = instruction.opcode == "wgmma"
        return Step(effect, guard, is_wgmma=is_wgmma, touched=touched)
    return Step(_pure(instruction, symbols), guard, touched=touched)


def _pure(instruction: Instruction, symbols: Symbols) -> Execute:
    """An instruction that only computes registers from registers."""
    compute = alu.compile_pure(instruction)
    destination, *sources = instruction.operands
    fetches: list[Fetch] = [
        fetcher(item, symbols, alu.operand_type(instruction, i + 1))
        for i, operand in enumerate(sources)
        for item in (operand.items if isinstance(operand, Vector) else (operand,))
    ]
    slots = _destinations(destination)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        result: Any = compute([fetch(warp) for fetch in fetches], mask)
        results: Sequence[NDArray[Any]] = result if isinstance(result, tuple) else (result,)
        for slot, value in zip(slots, results, strict=True):
            warp.write(slot, np.broadcast_to(value, (LANES,)), mask)
        return None

    return execute


def _destinations(operand: object) -> list[int]:
    if isinstance(operand, Pair):
        return _destinations(operand.first) + _destinations(operand.second)
    return [register.slot for register in _registers((operand,))]


def _registers(operands: Sequence[object]) -> Iterator[Register]:
    for operand in operands:
        match operand:
            case Register():
                yield operand
            case Address(base=base):
                yield from _registers((base,))
            case TensorAddress(base=base, coordinates=coordinates):
                yield from _registers((base, *coordinates))
            case Vector(items=items):
                yield from _registers(items)
            case Pair(first=first, second=second):
                yield from _registers((first, second))
            case _:
                pass


def _nothing(warp: Warp, mask: Mask) -> Wait | None:
    return None
