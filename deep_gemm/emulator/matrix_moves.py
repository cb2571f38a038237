"""ldmatrix and stmatrix: 8 x 8 matrices of 16-bit elements between shared memory and fragments.

Lanes 8i to 8i + 7 address the rows of matrix i, which register i holds: lane l has two elements,
from 2(l % 4) on, of row l / 4, or of column l / 4 with .trans.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.ir import Instruction, Register, Vector
from deep_gemm.emulator.modifiers import SHARED, parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, address
from deep_gemm.emulator.spaces import targets
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_PATTERN = (
    r"(?:ld|st)matrix\.sync\.aligned(?:\.m8n8)?\.x(?P<count>[124])(?:\.m8n8)?(?P<trans>\.trans)?"
    rf"{SHARED}?\.b16(?P<trans_last>\.trans)?"
)
_ROW_BYTES = 16


def fragments_of(rows: NDArray[np.uint8], transposed: bool) -> NDArray[np.uint32]:
    """What lanes hold, [matrices, 32], of rows [matrices * 8, 16 bytes]."""
    elements = rows.view(np.uint16).reshape(-1, 8, 8)
    if transposed:
        elements = elements.transpose(0, 2, 1)
    return np.ascontiguousarray(elements).view(np.uint32).reshape(-1, LANES)


def rows_of(fragments: NDArray[np.uint32], transposed: bool) -> NDArray[np.uint8]:
    """The inverse of `fragments_of`."""
    elements = np.ascontiguousarray(fragments).view(np.uint16).reshape(-1, 8, 8)
    if transposed:
        elements = elements.transpose(0, 2, 1)
    return np.ascontiguousarray(elements).view(np.uint8).reshape(-1, _ROW_BYTES)


def _slots(instruction: Instruction, operand: object, count: int) -> list[int]:
    items = operand.items if isinstance(operand, Vector) else (operand,)
    slots = [item.slot for item in items if isinstance(item, Register)]
    if len(slots) != count:
        raise unknown(instruction)
    return slots


def _load(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, _PATTERN)
    count, transposed = int(found["count"]), bool(found["trans"] or found["trans_last"])
    where = address(instruction.operands[1], symbols)
    slots = _slots(instruction, instruction.operands[0], count)
    with_rows = np.arange(LANES) < 8 * count

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "ldmatrix")
        rows = np.zeros((LANES, _ROW_BYTES), dtype=np.uint8)
        undefined = np.zeros((LANES, _ROW_BYTES), dtype=np.bool_)
        for target, offsets in targets(warp, "shared", where(warp), with_rows):
            words, unknown = target.cta.load("shared", offsets, _ROW_BYTES, target.mask, warp)
            rows |= words
            undefined |= unknown
        for slot, words in zip(slots, fragments_of(rows[: 8 * count], transposed), strict=True):
            warp.write(slot, words.view(warp.registers[slot].dtype), mask)
        if undefined.any():
            as_bytes = undefined[: 8 * count].astype(np.uint8)
            for slot, words in zip(slots, fragments_of(as_bytes, transposed), strict=True):
                warp.undefined.mark(slot, words != 0, warp.cta.cluster.access())
        return None

    return execute


def _store(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, _PATTERN)
    count, transposed = int(found["count"]), bool(found["trans"] or found["trans_last"])
    where = address(instruction.operands[0], symbols)
    slots = _slots(instruction, instruction.operands[1], count)
    with_rows = np.arange(LANES) < 8 * count

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "stmatrix")
        words = np.stack([warp.registers[slot].view(np.uint32) for slot in slots])
        rows = np.zeros((LANES, _ROW_BYTES), dtype=np.uint8)
        rows[: 8 * count] = rows_of(words, transposed)
        defined = np.ones((LANES, _ROW_BYTES), dtype=np.bool_)
        if warp.undefined.touches(frozenset(slots)):
            ones = np.where(warp.undefined.columns(slots).T, np.uint32(2**32 - 1), np.uint32(0))
            defined[: 8 * count] = rows_of(ones, transposed) == 0
        for target, offsets in targets(warp, "shared", where(warp), with_rows):
            target.cta.store("shared", offsets, rows, target.mask, warp, defined)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "ldmatrix": _load,
    "stmatrix": _store,
}
