"""tcgen05.ld and tcgen05.st: which register of which lane has which cell of tensor memory.

Four code bases agree on the maps (CUTLASS, Triton, tilus, TVM); the figures of the PTX ISA were not
readable. They are asynchronous. Here a ld has its result at once, as PTX honours a register that is
used before the wait (one source, and DeepGEMM relies on it); what may overwrite the cells, or has
written them too late, is found by tensor_order.py, at whatever time things happen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Address, Immediate, Instruction, Register, Vector
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.races import Kind
from deep_gemm.emulator.tensor_memory import NUM_COLUMNS, NUM_LANES, QUARTER, Cells, Flags, split
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_FORM = (
    r"tcgen05\.{what}\.sync\.aligned\.(?P<shape>16x64b|16x128b|16x256b|32x32b|16x32bx2)"
    r"\.x(?P<count>\d+)(?P<halves>\.{halves}::16b)?\.b32"
)
_HALF = 16
_MAX_REGISTERS = 128
_REGISTERS = {"32x32b": 1, "16x64b": 1, "16x128b": 2, "16x256b": 4, "16x32bx2": 1}
"""Of a lane, for .x1."""


def lanes_columns(
    shape: str, num_registers: int, split_at: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where registers lie in tensor memory, relative to the address.

    Args:
        shape: of the instruction, such as "32x32b".
        num_registers: of each lane.
        split_at: columns between the halves of 16x32bx2.

    Returns:
        Lanes and columns, each [32 lanes, registers].
    """
    lane = np.arange(LANES, dtype=np.int64)[:, None]
    register = np.arange(num_registers, dtype=np.int64)
    if shape == "32x32b":
        lanes, columns = lane, register
    elif shape == "16x64b":
        lanes, columns = 8 * (lane & 1) + (lane >> 2), (lane >> 1 & 1) + 2 * register
    elif shape == "16x128b":
        lanes = (lane >> 2) + 8 * (register & 1)
        columns = (lane & 3) + 4 * (register >> 1)
    elif shape == "16x256b":
        lanes = (lane >> 2) + 8 * (register >> 1 & 1)
        columns = 2 * (lane & 3) + (register & 1) + 8 * (register >> 2)
    else:
        lanes, columns = lane & 15, register + np.where(lane < _HALF, 0, split_at)
    both = np.broadcast_arrays(lanes, columns)
    return both[0], both[1]


@lru_cache(maxsize=256)
def _cells(shape: str, num_registers: int, split_at: int, is_packed: bool) -> Cells:
    """Cells relative to the address, [32, registers], or [32, registers, 2] with two halves."""
    lanes, columns = lanes_columns(shape, num_registers, split_at)
    if not is_packed:
        return lanes * NUM_COLUMNS + columns
    halves = 2 * columns[..., None] + np.arange(2)
    return lanes[..., None] * NUM_COLUMNS + halves


def _place(warp: Warp, taddr: NDArray[np.uint64], shape: str) -> int:
    """The first cell of an access of a warp.

    The hardware takes the quarter of the lanes from the warp, and no notice of the address's: zero,
    or the right one, is accepted (DeepGEMM and TVM pass zero).
    """
    if (taddr != taddr[0]).any():
        raise HazardError("R8", "tcgen05.ld or .st with addresses that differ between lanes")
    lane, column = split(int(taddr[0]))
    own = warp.index % (NUM_LANES // QUARTER) * QUARTER
    within = lane % QUARTER
    if lane - within not in (0, own):
        text = f"lane {lane} of tensor memory; warp {warp.index} has {own} to {own + QUARTER - 1}"
        raise HazardError("R20", f"tcgen05.ld or .st from {text}")
    if within not in ((0,) if shape == "32x32b" else (0, _HALF)):
        raise HazardError("R20", f"tcgen05.ld or .st of shape {shape} from lane {lane}")
    return (own + within) * NUM_COLUMNS + column


class _Access:
    """What ld and st have in common, resolved."""

    def __init__(self, instruction: Instruction, symbols: Symbols, is_load: bool) -> None:
        what, halves = ("ld", "pack") if is_load else ("st", "unpack")
        found = parts(instruction, _FORM.format(what=what, halves=halves))
        shape, operands = found["shape"], list(instruction.operands)
        vector = operands.pop(0 if is_load else -1)
        items = vector.items if isinstance(vector, Vector) else (vector,)
        count = int(found["count"]) * _REGISTERS[shape]
        splits = shape == "16x32bx2"
        self.is_packed = bool(found["halves"])
        if (
            len(items) != count
            or count > _MAX_REGISTERS
            or count & (count - 1)
            or len(operands) != 1 + splits
            or not isinstance(operands[0], Address)
            # How the halves are split where they are packed is not known.
            or (splits and self.is_packed)
        ):
            raise unknown(instruction)
        split_at = 0
        if splits:
            if not isinstance(operands[1], Immediate):
                raise unknown(instruction)
            split_at = int(operands[1].value)
        self.items = items
        self._shape = shape
        self._where = address(operands[0], symbols)
        self._relative = _cells(shape, count, split_at, self.is_packed)

    def cells(self, warp: Warp, mask: Mask, kind: Kind) -> Cells:
        """The cells that a warp accesses, noted and allowed."""
        warp.require_converged(mask, kind.value[2:])
        cells = _place(warp, self._where(warp), self._shape) + self._relative
        if (self._relative % NUM_COLUMNS).max() + cells.min() % NUM_COLUMNS >= NUM_COLUMNS:
            raise HazardError("R20", f"{kind.value} beyond the last column of tensor memory")
        warp.cta.cluster.tensor_order.move(warp, kind, cells)
        return cells


def _load(instruction: Instruction, symbols: Symbols) -> Execute:
    access = _Access(instruction, symbols, is_load=True)
    slots = [item.slot if isinstance(item, Register) else None for item in access.items]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        words, defined = warp.cta.tensor.read(access.cells(warp, mask, Kind.TENSOR_LOAD))
        if access.is_packed:
            words = words[..., 0] & np.uint32(0xFFFF) | words[..., 1] << np.uint32(16)
            defined = np.logical_and.reduce(defined, axis=-1)
        for i, slot in enumerate(slots):
            if slot is None:
                continue
            value = np.ascontiguousarray(words[:, i])
            warp.write(slot, value.view(warp.registers[slot].dtype), mask)
            if not defined[:, i].all():
                warp.undefined.taint(slot, ~defined[:, i] & mask, warp.cta.cluster.access())
        return None

    return execute


def _store(instruction: Instruction, symbols: Symbols) -> Execute:
    access = _Access(instruction, symbols, is_load=False)
    fetches = [fetcher(item, symbols, np.uint32) for item in access.items]
    slots = [item.slot if isinstance(item, Register) else -1 for item in access.items]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        cells = access.cells(warp, mask, Kind.TENSOR_STORE)
        words = np.stack([fetch(warp).view(np.uint32) for fetch in fetches], axis=1)
        defined: Flags = np.ones(words.shape, dtype=np.bool_)
        if warp.undefined.touches(frozenset(slots)):
            defined = ~warp.undefined.columns(slots)
        if access.is_packed:
            words = np.stack((words & np.uint32(0xFFFF), words >> np.uint32(16)), axis=-1)
            defined = np.repeat(defined[..., None], 2, axis=-1)
        warp.cta.tensor.write(cells, words, defined)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "tcgen05.ld": _load,
    "tcgen05.st": _store,
}
