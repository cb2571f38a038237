"""Tensor memory of a CTA: 128 lanes of 512 columns of 32 bits, and who has allocated what.

A cell is one lane of one column. Cells are given by their index, lane * 512 + column, in arrays of
any shape. Who may access them when is in tensor_order.py.

What is stricter here than PTX, or rests on one source: an allocation is freed as a whole; later
ones of a CTA are not larger than earlier ones (PTX alone says so).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError

NUM_LANES = 128
NUM_COLUMNS = 512
QUARTER = 32
"""Lanes that one warp of four reaches with tcgen05.ld and tcgen05.st."""

LANE_SHIFT = 16
"""Bit of an address where the lane begins; the column is below."""

_MIN_COLUMNS = 32

Cells = NDArray[np.int64]
Words = NDArray[np.uint32]
Flags = NDArray[np.bool_]


def split(address: int) -> tuple[int, int]:
    """Lane and column of an address.

    Raises:
        HazardError: R20, there is no such cell.
    """
    lane, column = address >> LANE_SHIFT, address & ((1 << LANE_SHIFT) - 1)
    if lane >= NUM_LANES or column >= NUM_COLUMNS:
        raise HazardError("R20", f"tensor memory at {address:#010x}: lane {lane}, column {column}")
    return lane, column


@dataclass(frozen=True, slots=True)
class Allocation:
    """Columns that a warp has allocated.

    Attributes:
        first: the first column.
        size: number of columns.
        warp: index of the warp in its CTA.
    """

    first: int
    size: int
    warp: int


class TensorMemory:
    """The cells of one CTA.

    Attributes:
        allocations: by first column.
        is_relinquished: whether the CTA has given up the right to allocate.
        cta_group: of the first instruction, which all others share; 0 before.
        requests: by agent, how many columns its tcgen05.alloc asks for.
        granted: by agent, the first column that it has been given and not taken note of.
    """

    def __init__(self) -> None:
        """Starts with nothing allocated or written."""
        self.allocations: dict[int, Allocation] = {}
        self.is_relinquished = False
        self.cta_group = 0
        self.requests: dict[int, int] = {}
        self.granted: dict[int, int] = {}
        # NaN in all formats: what is computed from undefined cells shows that it is wrong.
        self._words = np.full(NUM_LANES * NUM_COLUMNS, 0xFFFFFFFF, dtype=np.uint32)
        self._defined = np.zeros(NUM_LANES * NUM_COLUMNS, dtype=np.bool_)
        self._is_allocated = np.zeros(NUM_COLUMNS, dtype=np.bool_)
        self._largest = NUM_COLUMNS

    def use_group(self, cta_group: int) -> None:
        """An instruction with a cta_group is executed.

        Raises:
            HazardError: R34, an earlier one had another: ptxas refuses such a kernel.
        """
        if self.cta_group not in (0, cta_group):
            text = f"tcgen05 with cta_group::{cta_group} after one with ::{self.cta_group}"
            raise HazardError("R34", text)
        self.cta_group = cta_group

    def check_request(self, num_columns: int) -> None:
        """Checks that a number of columns may be asked for.

        Raises:
            HazardError: R19, it may not, whatever is free.
        """
        is_power = num_columns & (num_columns - 1) == 0
        if not is_power or not _MIN_COLUMNS <= num_columns <= NUM_COLUMNS:
            text = f"a power of two from {_MIN_COLUMNS} to {NUM_COLUMNS}, got {num_columns}"
            raise HazardError("R19", f"tcgen05.alloc: the number of columns must be {text}")
        if self.is_relinquished:
            raise HazardError("R19", "tcgen05.alloc after relinquish_alloc_permit")
        if num_columns > self._largest:
            text = f"{num_columns} columns after {self._largest}: allocations must not grow"
            raise HazardError("R19", f"tcgen05.alloc of {text}")

    def free_column(self, num_columns: int, *others: TensorMemory) -> int | None:
        """The first column of free ones, here and in others at once; None if there are none."""
        for first in range(0, NUM_COLUMNS - num_columns + 1, _MIN_COLUMNS):
            wanted = slice(first, first + num_columns)
            if not any(memory._is_allocated[wanted].any() for memory in (self, *others)):
                return first
        return None

    def allocate(self, first: int, num_columns: int, warp: int) -> None:
        """Gives columns that are free to a warp; their contents are undefined."""
        self.allocations[first] = Allocation(first, num_columns, warp)
        self._is_allocated[first : first + num_columns] = True
        self._largest = num_columns
        self._defined.reshape(NUM_LANES, NUM_COLUMNS)[:, first : first + num_columns] = False

    def deallocate(self, address: int, num_columns: int) -> Cells:
        """Ends an allocation; returns its cells, which are to be closed.

        Raises:
            HazardError: R19, there is none of this address and size.
        """
        lane, column = split(address)
        allocation = self.allocations.get(column)
        if lane or allocation is None or allocation.size != num_columns:
            held = ", ".join(f"{a.size} from {a.first}" for a in self.allocations.values())
            text = f"tcgen05.dealloc of {num_columns} columns at {address:#x}"
            raise HazardError("R19", f"{text}; allocated are {held or 'none'}")
        del self.allocations[column]
        return rectangle(0, NUM_LANES, column, num_columns)

    def close(self, cells: Cells) -> None:
        """Cells may not be accessed any more: their columns are free, or about to be."""
        self._is_allocated[np.unique(cells % NUM_COLUMNS)] = False

    def check(self, cells: Cells) -> None:
        """Checks that cells may be accessed.

        Raises:
            HazardError: R20, columns beyond the last; R19, one is not allocated.
        """
        columns = cells % NUM_COLUMNS
        if cells.max(initial=0) >= self._words.size:
            raise HazardError("R20", "tensor memory beyond its last cell")
        is_allocated = self._is_allocated[columns]
        if not is_allocated.all():
            column = int(columns.reshape(-1)[np.argmin(is_allocated.reshape(-1))])
            raise HazardError("R19", f"column {column} of tensor memory is not allocated")

    def read(self, cells: Cells) -> tuple[Words, Flags]:
        """The words of cells, and which are defined."""
        return self._words[cells], self._defined[cells]

    def write(self, cells: Cells, words: Words, defined: Flags | bool = True) -> None:
        """Stores words."""
        self._words[cells] = words
        self._defined[cells] = defined

    def check_exit(self) -> None:
        """Checks that nothing is left.

        Raises:
            HazardError: R19, columns are still allocated.
        """
        for allocation in self.allocations.values():
            text = f"{allocation.size} columns from {allocation.first}, of warp {allocation.warp}"
            raise HazardError("R19", f"the CTA left without tcgen05.dealloc of {text}")


def rectangle(lane: int, num_lanes: int, column: int, num_columns: int) -> Cells:
    """Cells of lanes and columns, [lanes, columns].

    Raises:
        HazardError: R20, they reach beyond the last column or lane.
    """
    if column + num_columns > NUM_COLUMNS or lane + num_lanes > NUM_LANES:
        text = f"columns {column} to {column + num_columns - 1}, lanes {lane} to"
        raise HazardError("R20", f"tensor memory: {text} {lane + num_lanes - 1}")
    lanes = np.arange(lane, lane + num_lanes, dtype=np.int64)[:, None]
    return lanes * NUM_COLUMNS + np.arange(column, column + num_columns)
