"""A kernel's instructions, each resolved once into a function of a warp and a mask of lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator import alu, effects, undefined
from deep_gemm.emulator.errors import UnknownOpcodeError
from deep_gemm.emulator.ir import (
    Address,
    Guard,
    Instruction,
    Kernel,
    Label,
    Negated,
    Pair,
    Place,
    Register,
    TensorAddress,
    Vector,
)
from deep_gemm.emulator.operands import Fetch, Symbols, fetcher
from deep_gemm.emulator.paths import Paths
from deep_gemm.emulator.warp import LANES, Mask, Wait, Warp

Execute = Callable[[Warp, Mask], "Wait | None"]

_ACQUIRE = "fence.proxy.tensormap::generic.acquire"


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
        needs: those of them that must be defined.
        accumulators: those of them that some wgmma accumulates in, unless this is one.
    """

    execute: Execute
    guard: Guard | None = None
    target: int | None = None
    is_exit: bool = False
    is_wgmma: bool = False
    touched: frozenset[int] = frozenset()
    needs: frozenset[int] = frozenset()
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
        places: the instruction's source line, if it is known, by program counter.
        symbols: what the kernel's names stand for.
        static_smem_bytes: shared memory of a CTA before the dynamic one.
        acquires_maps: whether it may use tensor maps in global memory.
    """

    kernel: Kernel
    registers: tuple[Register, ...]
    steps: tuple[Step, ...]
    lines: tuple[int, ...]
    texts: tuple[str, ...]
    places: tuple[Place | None, ...]
    symbols: Symbols
    static_smem_bytes: int
    acquires_maps: bool

    @cached_property
    def paths(self) -> Paths:
        """The ways through it."""
        return Paths(self.steps)

    def describe(self, pc: int) -> str:
        """An instruction, for reports: its source line if it is known, its line and its text."""
        line = f"line {self.lines[pc]}: {self.texts[pc]}"
        return line if self.places[pc] is None else f"{self.places[pc]}, {line}"


def compile_kernel(kernel: Kernel, symbols: Symbols, static_smem_bytes: int) -> Program:
    """Resolves every instruction.

    Args:
        kernel: what was parsed.
        symbols: what its names stand for.
        static_smem_bytes: shared memory of a CTA before the dynamic one.

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
        tuple(instruction.place for instruction in kernel.instructions),
        symbols,
        static_smem_bytes,
        any(item.name.startswith(_ACQUIRE) for item in kernel.instructions),
    )


def _step(instruction: Instruction, kernel: Kernel, symbols: Symbols) -> Step:
    touched = _slots(instruction.operands)
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
        needs = _slots(undefined.needs(instruction))
        if _slots(undefined.data(instruction)):
            effect = _tainting(effect, instruction)
        return Step(effect, guard, is_wgmma=is_wgmma, touched=touched, needs=needs)
    return Step(_pure(instruction, symbols), guard, touched=touched)


def _pure(instruction: Instruction, symbols: Symbols) -> Execute:
    """An instruction that only computes registers from registers."""
    compute = alu.compile_pure(instruction)
    destination, *sources = instruction.operands
    items = [
        (i + 1, item)
        for i, operand in enumerate(sources)
        for item in (operand.items if isinstance(operand, Vector) else (operand,))
    ]
    fetches: list[Fetch] = [
        fetcher(item, symbols, alu.operand_type(instruction, i)) for i, item in items
    ]
    source_slots = [item.slot if isinstance(item, Register) else -1 for _, item in items]
    touched = frozenset(source_slots)
    spread = undefined.spread(instruction.opcode)
    slots = _destinations(destination)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        values = [fetch(warp) for fetch in fetches]
        tainted = origin = None
        if warp.undefined.touches(touched):
            tainted = spread([warp.undefined.lanes(slot) for slot in source_slots], values)
            origin = warp.undefined.origin(touched)
        result: Any = compute(values, mask)
        results: Sequence[NDArray[Any]] = result if isinstance(result, tuple) else (result,)
        for slot, value in zip(slots, results, strict=True):
            warp.write(slot, np.broadcast_to(value, (LANES,)), mask)
            if tainted is not None:
                warp.undefined.taint(slot, tainted & mask, origin)
        return None

    return execute


def _tainting(effect: Execute, instruction: Instruction) -> Execute:
    """The effect, whose result is undefined where its data are."""
    touched = _slots(undefined.data(instruction))
    slots = _destinations(instruction.operands[0])

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        # Before the effect, which may overwrite what it reads.
        origin = warp.undefined.origin(touched)
        lanes: Mask = np.logical_or.reduce(warp.undefined.columns(sorted(touched)), axis=1)
        wait = effect(warp, mask)
        if wait is None and lanes.any():
            for slot in slots:
                tainted = undefined.spread_effect(instruction.opcode, lanes, mask)
                warp.undefined.taint(slot, tainted, origin)
        return wait

    return execute


def _destinations(operand: object) -> list[int]:
    if isinstance(operand, Pair):
        return _destinations(operand.first) + _destinations(operand.second)
    return [register.slot for register in _registers((operand,))]


def _slots(operands: Sequence[object]) -> frozenset[int]:
    return frozenset(register.slot for register in _registers(operands))


def _registers(operands: Sequence[object]) -> Iterator[Register]:
    for operand in operands:
        match operand:
            case Register():
                yield operand
            case Negated(register=register):
                yield register
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
