"""st.async: stores into a peer's shared memory, or the CTA's own, that complete on an mbarrier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.global_memory import check_alignment
from deep_gemm.emulator.ir import Instruction, Register, Vector
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.modifiers import parts
from deep_gemm.emulator.operands import LANES, Symbols, address, fetcher
from deep_gemm.emulator.races import Kind
from deep_gemm.emulator.warp import Mask, Wait, Warp

_FORM = (
    r"st\.async(?:\.weak)?(?:\.shared::cluster)?\.mbarrier::complete_tx::bytes"
    r"(?:\.v[24])?\.(?:[bus]|f)(?P<bits>32|64)"
)


def _store(instruction: Instruction, symbols: Symbols) -> Callable[[Warp, Mask], Wait | None]:
    size = int(parts(instruction, _FORM)["bits"]) // 8
    target, source, barrier = instruction.operands
    where, completes = address(target, symbols), address(barrier, symbols)
    items = source.items if isinstance(source, Vector) else (source,)
    fetches = [fetcher(item, symbols, np.dtype(f"u{size}")) for item in items]
    slots = [item.slot if isinstance(item, Register) else -1 for item in items]
    total = size * len(items)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        words = [
            np.ascontiguousarray(fetch(warp)).view(np.uint8).reshape(LANES, -1)[:, :size]
            for fetch in fetches
        ]
        data = np.concatenate(words, axis=1)
        defined = np.ones((LANES, total), np.bool_)
        if warp.undefined.touches(frozenset(slots)):
            defined = ~warp.undefined.columns(slots).repeat(size, axis=1)
        starts, places = (item(warp).astype(np.int64) for item in (where, completes))
        check_alignment("shared", starts[mask], total, total)
        for place in np.unique(places[mask]):
            lanes = np.flatnonzero(mask & (places == place))
            _send(warp, starts[lanes], int(place), data[lanes], defined[lanes])
        return None

    return execute


def _send(
    warp: Warp,
    starts: NDArray[np.int64],
    place: int,
    data: NDArray[np.uint8],
    defined: NDArray[np.bool_],
) -> None:
    """Stores rows of bytes at shared::cluster addresses, which complete on one mbarrier."""
    rank = place >> RANK_SHIFT
    if (starts >> RANK_SHIFT != rank).any():
        raise HazardError("R14", "st.async: the mbarrier is in another CTA than the bytes")
    offsets = (starts & OFFSET_MASK)[:, None] + np.arange(data.shape[1])
    barrier = place & OFFSET_MASK
    warp.cta.cluster.fill(rank, offsets, barrier, lambda: (data, defined), warp, Kind.REMOTE_STORE)


TABLE = {"st.async": _store}
