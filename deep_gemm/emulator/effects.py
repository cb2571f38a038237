"""Instructions that do more than compute: memory, lanes, barriers. Each is resolved once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deep_gemm.emulator import (
    addresses,
    atomics,
    barrier_reductions,
    bulk_copies,
    copies,
    fences,
    map_forms,
    matrices,
    matrix_moves,
    mbarrier_forms,
    remote_stores,
    synchronisation,
    tensor_copies,
    tensor_forms,
    tensor_moves,
    umma,
    warp_lanes,
)
from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.ir import Immediate, Instruction, Register, Vector
from deep_gemm.emulator.modifiers import LEVELS, SCOPE, parts
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.spaces import targets
from deep_gemm.emulator.strong import strength_of
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]
Build = Callable[[Instruction, Symbols], Execute]

_BYTES = {"8": 1, "16": 2, "32": 4, "64": 8}


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


_ORDERS = rf"(?:\.weak|\.volatile|(?:\.mmio)?\.relaxed{SCOPE}|\.acquire{SCOPE}|\.release{SCOPE})"
_ACCESS = (
    rf"(?:ld|st)(?P<order>{_ORDERS})?"
    r"(?:\.(?P<space>global|param(?:::entry)?|shared(?:::cta|::cluster)?))?"
    rf"(?:\.c[agsv]|\.lu|\.wb|\.wt|\.nc)*{LEVELS}(?:\.v[248])?"
    r"\.(?P<kind>[bus]|f(?=32|64))(?P<bits>8|16|32|64)"
)


def _load(instruction: Instruction, symbols: Symbols) -> Execute:
    """ld: each lane reads its own address, into one register or a vector of them."""
    found = parts(instruction, _ACCESS)
    destination, source, *_ = instruction.operands
    where = address(source, symbols)
    slots = slots_of(destination)
    size, space = _BYTES[found["bits"]], found["space"].partition("::entry")[0]
    dtype = np.dtype(f"{'i' if found['kind'] == 's' else 'u'}{size}")
    total = size * len(slots)
    strong = strength_of(found["order"])

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        data, undefined = np.zeros((LANES, total), np.uint8), np.zeros((LANES, total), np.bool_)
        for target, at in targets(warp, space, where(warp), mask):
            words, unknown = target.cta.load(target.space, at, total, target.mask, warp, strong)
            data |= words
            undefined |= unknown
        for i, slot in enumerate(slots):
            held = warp.registers[slot].dtype
            value = np.ascontiguousarray(data[:, i * size : (i + 1) * size]).view(dtype)[:, 0]
            if size != held.itemsize:
                # Signed types are extended by their sign.
                value = value.astype(f"{dtype.kind}{held.itemsize}")
            warp.write(slot, value.view(held), mask)
        if undefined.any():
            for i, slot in enumerate(slots):
                part = undefined[:, i * size : (i + 1) * size]
                lanes: Mask = np.logical_or.reduce(part, axis=1)
                warp.undefined.taint(slot, lanes, warp.cta.cluster.access())
        if strong is not None:
            warp.poll()
        return None

    return execute


def _store(instruction: Instruction, symbols: Symbols) -> Execute:
    """st: each lane writes its own address."""
    found = parts(instruction, _ACCESS)
    destination, source, *_ = instruction.operands
    where = address(destination, symbols)
    size, space = _BYTES[found["bits"]], found["space"]
    items = source.items if isinstance(source, Vector) else (source,)
    fetches = [fetcher(item, symbols, _immediate_type(item, size)) for item in items]
    slots = [item.slot if isinstance(item, Register) else -1 for item in items]
    strong = strength_of(found["order"])

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        parts_ = [
            np.ascontiguousarray(fetch(warp)).view(np.uint8).reshape(LANES, -1)[:, :size]
            for fetch in fetches
        ]
        data = np.concatenate(parts_, axis=1)
        defined = None
        if warp.undefined.touches(frozenset(slots)):
            defined = ~warp.undefined.columns(slots).repeat(size, axis=1)
        for target, at in targets(warp, space, where(warp), mask):
            if target.space == "global":
                warp.undefined.require(frozenset(slots), target.mask, "an operand is")
            target.cta.store(target.space, at, data, target.mask, warp, defined, strong)
        return None

    return execute


def _immediate_type(operand: object, size: int) -> Any:
    """The type of a constant that is stored: a float's bits are those of its width."""
    is_float = isinstance(operand, Immediate) and isinstance(operand.value, float)
    return np.dtype(f"{'f' if is_float else 'u'}{size}")


def _setmaxnreg(instruction: Instruction, symbols: Symbols) -> Execute:
    parts(instruction, r"setmaxnreg\.(?:inc|dec)\.sync\.aligned\.u32")

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "setmaxnreg")
        return None

    return execute


_TABLE: dict[str, Build] = {
    **remote_stores.TABLE,
    "ld": _load,
    "st": _store,
    "setmaxnreg": _setmaxnreg,
    **addresses.TABLE,
    **atomics.TABLE,
    **map_forms.TABLE,
    **fences.TABLE,
    **matrix_moves.TABLE,
    **mbarrier_forms.TABLE,
    **barrier_reductions.TABLE,
    **synchronisation.TABLE,
    **warp_lanes.TABLE,
    **copies.TABLE,
    **bulk_copies.TABLE,
    **matrices.TABLE,
    **tensor_copies.TABLE,
    **tensor_forms.TABLE,
    **tensor_moves.TABLE,
    **umma.TABLE,
}
