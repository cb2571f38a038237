"""Instructions that do more than compute: memory, lanes, barriers. Each is resolved once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deep_gemm.emulator import copies, matrices, synchronisation
from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.ir import Address, Instruction, Pair, Register, Sink, Vector
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]
Build = Callable[[Instruction, Symbols], Execute]

_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}
_UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def find(instruction: Instruction, symbols: Symbols) -> Execute | None:
    """The instruction's effect; None if it is a pure computation."""
    for prefix, build in _TABLE.items():
        name = instruction.name
        if name == prefix or name.startswith(prefix + "."):
            return build(instruction, symbols)
    return None


def slots_of(operand: object) -> list[int]:
    """Slots of a register, or of a vector of registers."""
    match operand:
        case Register(slot=slot):
            return [slot]
        case Vector(items=items):
            return [slot for item in items for slot in slots_of(item)]
        case _:
            raise EmulationError(f"operand {operand} is not a register")


def _nothing(warp: Warp, mask: Mask) -> Wait | None:
    return None


def _ignore(instruction: Instruction, symbols: Symbols) -> Execute:
    return _nothing


def _element_bytes(instruction: Instruction) -> int:
    kind = instruction.modifiers[-1]
    return _BYTES[kind.lstrip("busf")]


def _load(instruction: Instruction, symbols: Symbols) -> Execute:
    """ld: each lane reads its own address, into one register or a vector of them."""
    destination, source = instruction.operands
    where = address(source, symbols)
    slots = slots_of(destination)
    size = _element_bytes(instruction)
    space = instruction.modifiers[0]
    total = size * len(slots)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        data, undefined = warp.cta.load(space, where(warp), total, mask, warp)
        for i, slot in enumerate(slots):
            old = warp.registers[slot]
            part = np.ascontiguousarray(data[:, i * size : (i + 1) * size])
            value = part.view(_UNSIGNED[size])[:, 0]
            if value.dtype.itemsize == old.dtype.itemsize:
                value = value.view(old.dtype)
            else:
                value = value.astype(old.dtype)
            warp.write(slot, value, mask)
            if undefined is not None:
                lanes = undefined[:, i * size : (i + 1) * size].any(axis=1)
                kept = warp.undefined.lanes(slot)
                warp.undefined.mark(slot, kept | lanes, warp.cta.cluster.access())
        return None

    return execute


def _store(instruction: Instruction, symbols: Symbols) -> Execute:
    """st: each lane writes its own address."""
    destination, source = instruction.operands
    where = address(destination, symbols)
    slots = slots_of(source)
    size = _element_bytes(instruction)
    space = instruction.modifiers[0]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        parts = [
            np.ascontiguousarray(warp.registers[slot]).view(np.uint8).reshape(LANES, -1)[:, :size]
            for slot in slots
        ]
        defined = None
        if warp.undefined.touches(frozenset(slots)):
            lanes = np.stack([~warp.undefined.lanes(slot) for slot in slots], axis=1)
            defined = lanes.repeat(size, axis=1)
        data = np.concatenate(parts, axis=1)
        warp.cta.store(space, where(warp), data, mask, warp, defined)
        return None

    return execute


def _shuffle(instruction: Instruction, symbols: Symbols) -> Execute:
    """shfl.sync.idx: every lane reads the register of one lane of the warp."""
    mode = instruction.modifiers[1]
    target, value, lane, _, members = instruction.operands
    if mode != "idx":
        raise EmulationError(f"shfl.sync.{mode} is not known")
    fetch, source = fetcher(value, symbols, np.uint32), fetcher(lane, symbols, np.uint32)
    fetch_members = fetcher(members, symbols, np.uint32)
    registers = [target.first, target.second] if isinstance(target, Pair) else [target]
    value_slot = value.slot if isinstance(value, Register) else -1

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        _require_members(warp, mask, fetch_members(warp), "shfl.sync")
        lanes = source(warp) & np.uint32(LANES - 1)
        if not warp.alive[lanes[mask]].all():
            raise HazardError("R8", "shfl.sync reads a lane that has left")
        undefined = warp.undefined.lanes(value_slot)[lanes]
        origin = warp.undefined.origin((value_slot,))
        to = slots_of(registers[0])[0]
        warp.write(to, fetch(warp)[lanes], mask)
        if undefined.any():
            warp.undefined.mark(to, warp.undefined.lanes(to) | undefined & mask, origin)
        if len(registers) == 2 and not isinstance(registers[1], Sink):
            warp.write(slots_of(registers[1])[0], np.ones(LANES, dtype=np.bool_), mask)
        return None

    return execute


def _elect(instruction: Instruction, symbols: Symbols) -> Execute:
    """elect.sync: true in one lane, here the lowest."""
    target, members = instruction.operands
    if not isinstance(target, Pair):
        raise EmulationError("elect.sync needs two destinations")
    fetch_members = fetcher(members, symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        _require_members(warp, mask, fetch_members(warp), "elect.sync")
        leader = int(np.flatnonzero(mask)[0])
        if not isinstance(target.first, Sink):
            lanes = np.full(LANES, leader, dtype=np.uint32)
            warp.write(slots_of(target.first)[0], lanes, mask)
        if not isinstance(target.second, Sink):
            warp.write(slots_of(target.second)[0], np.arange(LANES) == leader, mask)
        return None

    return execute


def _require_members(warp: Warp, mask: Mask, members: Any, what: str) -> None:
    named = (int(members[np.flatnonzero(mask)[0]]) >> np.arange(LANES)) & 1 == 1
    if not (mask == (named & warp.alive)).all():
        raise HazardError("R8", f"{what} without all the lanes that its member mask names")


def _setmaxnreg(instruction: Instruction, symbols: Symbols) -> Execute:
    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "setmaxnreg")
        return None

    return execute


def _stmatrix(instruction: Instruction, symbols: Symbols) -> Execute:
    """stmatrix: lanes 8i to 8i + 7 address the rows of matrix i, lane l holds row l / 4 of each."""
    destination, source = instruction.operands
    if "x4" not in instruction.modifiers or "trans" in instruction.modifiers:
        raise EmulationError(f"{instruction.name} is not known")
    if not isinstance(destination, Address):
        raise EmulationError("stmatrix needs an address")
    where = address(destination, symbols)
    slots = slots_of(source)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "stmatrix")
        words = np.stack([warp.registers[slot].astype(np.uint32) for slot in slots])
        rows = words.reshape(len(slots), 8, 4).view(np.uint8).reshape(len(slots) * 8, 16)
        defined = None
        if warp.undefined.touches(frozenset(slots)):
            lanes = np.stack([~warp.undefined.lanes(slot) for slot in slots])
            defined = lanes.reshape(len(slots) * 8, 4).repeat(4, axis=1)
        warp.cta.store("shared", where(warp), rows, mask, warp, defined)
        return None

    return execute


_TABLE: dict[str, Build] = {
    "ld": _load,
    "st": _store,
    "shfl.sync": _shuffle,
    "elect.sync": _elect,
    "setmaxnreg": _setmaxnreg,
    "stmatrix": _stmatrix,
    "prefetch": _ignore,
    **synchronisation.TABLE,
    **copies.TABLE,
    **matrices.TABLE,
}
