"""tcgen05.cp: rows of shared memory into lanes of tensor memory.

Issued by one thread, executed beside it, in order with its tcgen05.mma. With cta_group::2 each CTA
copies from its own shared memory into its own tensor memory.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import Symbols, address, fetcher
from deep_gemm.emulator.races import Kind
from deep_gemm.emulator.tensor_forms import GROUP, ctas_of, single_lane
from deep_gemm.emulator.tensor_memory import NUM_LANES, QUARTER, Flags, Words, rectangle, split
from deep_gemm.emulator.umma_operands import operand_offsets
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_ROWS_OF_QUARTERS = "4x256b"
_WORDS = 4
"""Of a unit of 16 bytes."""

# Rows of the source, bytes of a row, and the first lane of every copy of each 32 rows.
_COPIES: dict[str, tuple[int, int, tuple[tuple[int, ...], ...]]] = {
    "128x256b": (128, 32, ((0,), (32,), (64,), (96,))),
    "128x128b": (128, 16, ((0,), (32,), (64,), (96,))),
    "64x128b.warpx2::02_13": (64, 16, ((0, 64), (32, 96))),
    "64x128b.warpx2::01_23": (64, 16, ((0, 32), (64, 96))),
    "32x128b.warpx4": (32, 16, ((0, 32, 64, 96),)),
}


def copied_lanes(shape: str) -> list[tuple[int, int]]:
    """(row of the source, lane of tensor memory), for all that a tcgen05.cp writes."""
    if shape == _ROWS_OF_QUARTERS:
        return [(row, QUARTER * row) for row in range(4)]
    _, _, starts = _COPIES[shape]
    return [
        (QUARTER * i + row, start + row)
        for i, copies in enumerate(starts)
        for start in copies
        for row in range(QUARTER)
    ]


def _shape(instruction: Instruction) -> tuple[int, str]:
    """The cta_group, and the shape with its multicast, which may stand before or behind it."""
    shapes = r"128x256b|4x256b|128x128b|64x128b|32x128b"
    casts = r"warpx2::02_13|warpx2::01_23|warpx4"
    found = parts(
        instruction,
        rf"tcgen05\.cp{GROUP}(?:\.(?P<shape>{shapes})(?:\.(?P<cast>{casts}))?"
        rf"|\.(?P<first>{casts})\.(?P<second>{shapes}))",
    )
    names = found["shape"] or found["second"], found["cast"] or found["first"]
    shape = ".".join(filter(None, names))
    if shape not in _COPIES and shape != _ROWS_OF_QUARTERS:
        raise unknown(instruction)
    return int(found["group"]), shape


def _column(taddr: int) -> int:
    """The first column of a copy.

    Raises:
        HazardError: R20, a copy may not go there; that columns come in fours is from TVM alone.
    """
    lane, column = split(taddr)
    if lane or column % _WORDS:
        text = f"lane {lane}, column {column}: it takes lane 0 and a multiple of {_WORDS}"
        raise HazardError("R20", f"tcgen05.cp to {text}")
    return column


def _copy(instruction: Instruction, symbols: Symbols) -> Execute:
    """tcgen05.cp: rows of shared memory, K-major, into lanes of tensor memory."""
    group, shape = _shape(instruction)
    num_rows, row_bytes, _ = _COPIES.get(shape, (4, 32, ()))
    rows, lanes = (np.array(items) for items in zip(*copied_lanes(shape), strict=True))
    where = address(instruction.operands[0], symbols)
    source = fetcher(instruction.operands[1], symbols, np.uint64)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        lane = single_lane(mask, "tcgen05.cp")
        ctas, cluster = ctas_of(warp, group), warp.cta.cluster
        column = _column(int(where(warp)[lane]))
        cells = rectangle(0, NUM_LANES, column, row_bytes // 4)[lanes]
        offsets = operand_offsets(int(source(warp)[lane]), num_rows, row_bytes, False, 1)
        operation = cluster.tensor_order.issue(warp, lane, Kind.TENSOR_COPY)
        releases = []
        for cta in ctas:
            cta.order.fetch(warp, operation, offsets)
            cluster.tensor_order.write(warp, cta, operation, cells)
            releases.append(cta.begin_read("R3", offsets, reader="a tcgen05.cp"))

        def perform() -> None:
            for cta, release in zip(ctas, releases, strict=True):
                data = np.ascontiguousarray(cluster.cta_of_rank(cta.rank).tile(offsets))
                is_defined = cta.shared.is_defined(offsets).reshape(num_rows, -1, 4)
                defined: Flags = np.logical_and.reduce(is_defined, axis=2)
                words: Words = data.view(np.uint32)
                cta.tensor.write(cells, words[rows], defined[rows])
                release()

        cluster.submit(("tcgen05", warp.cta.index), perform)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {"tcgen05.cp": _copy}
