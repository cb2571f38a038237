"""Which cells of tensor memory a tcgen05.mma takes for D, for A and for scale factors.

From TVM, Triton and CUTLASS; PTX says the same in words.
"""

from __future__ import annotations

import numpy as np

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.tensor_memory import NUM_LANES, QUARTER, Cells, rectangle, split

_QUARTERS = NUM_LANES // QUARTER
_K_COLUMNS = 8
"""Columns of A in tensor memory that one instruction takes."""


def accumulator_cells(m: int, n: int, cta_group: int, taddr: int) -> Cells:
    """Cells of D in each CTA, [rows of a CTA, n].

    Raises:
        HazardError: R20, the address is not where such an accumulator may begin.
    """
    lane, column = split(taddr)
    rows = m // cta_group
    if lane not in ((0, 16) if rows == 64 and cta_group == 1 else (0,)):
        text = f"lane {lane}, for M = {m} and cta_group::{cta_group}"
        raise HazardError("R20", f"tcgen05.mma with an accumulator from {text}")
    if rows == NUM_LANES:
        return rectangle(0, NUM_LANES, column, n)
    row = np.arange(rows)
    if cta_group == 1:
        of_rows: Cells = rectangle(0, NUM_LANES, column, n)[row // 16 * QUARTER + row % 16 + lane]
        return of_rows
    # M = 128 of a pair: the right half of the columns lies below the left one.
    both = rectangle(0, NUM_LANES, column, n // 2)
    return np.concatenate((both[:rows], both[rows:]), axis=1)


def scale_cells(rows: int, taddr: int) -> Cells:
    """Cells of scale factors, [4, rows]: the same in each quarter of the lanes."""
    lane, column = split(taddr)
    if lane:
        raise HazardError("R20", f"tcgen05.mma with scale factors from lane {lane}")
    columns = -(-rows // QUARTER)
    cells = rectangle(0, NUM_LANES, column, columns).reshape(_QUARTERS, QUARTER, columns)
    by_row: Cells = cells.transpose(0, 2, 1).reshape(_QUARTERS, -1)[:, :rows]
    return by_row


def operand_cells(m: int, cta_group: int, taddr: int) -> Cells:
    """Cells of A in tensor memory, [rows of a CTA, 8]: words along K."""
    if cta_group == 2 and m == NUM_LANES:
        raise EmulationError(
            "tcgen05.mma with A in tensor memory, M = 128 and cta_group::2 is not modelled: where A"
            " lies is not known"
        )
    return accumulator_cells(m, _K_COLUMNS, cta_group, taddr)
