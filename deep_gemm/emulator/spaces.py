"""State spaces: which memory of which CTA an address of a lane means.

Generic addresses of shared memory are its shared::cluster addresses in a window of their own; those
of the other spaces are the addresses in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.memory import split_shared

if TYPE_CHECKING:
    from deep_gemm.emulator.cta import Cta
    from deep_gemm.emulator.warp import Mask, Warp

SHARED_WINDOW = 0x7200_0000_0000
PARAMETER_WINDOW = 0x7000_0000_0000
WINDOW_BYTES = 1 << 32
_WINDOW_MASK = 0xFFFF_0000_0000


class Target(NamedTuple):
    """Lanes that access one space of one CTA.

    Attributes:
        cta: whose memory it is.
        space: "param", "global" or "shared".
        mask: the lanes.
    """

    cta: Cta
    space: str
    mask: Mask


def is_within(address: int, window: int) -> bool:
    """Whether a generic address lies in a window."""
    return 0 <= address - window < WINDOW_BYTES


def in_window(addresses: NDArray[np.uint64], window: int) -> NDArray[np.bool_]:
    """Which generic addresses lie in a window."""
    inside: NDArray[np.bool_] = (addresses & np.uint64(_WINDOW_MASK)) == np.uint64(window)
    return inside


def targets(
    warp: Warp, space: str, addresses: NDArray[np.uint64], mask: Mask
) -> Iterator[tuple[Target, NDArray[np.uint64]]]:
    """Splits an access by the memory that it goes to.

    Args:
        warp: that executes it.
        space: "" for generic, "global", "param", "shared", "shared::cta" or "shared::cluster".
        addresses: [32].
        mask: lanes that count.

    Returns:
        Each target with addresses in its space, [32]; those of shared memory are CTA-relative.

    Raises:
        HazardError: R13, a shared::cta address of another CTA, or a rank that does not exist; R12,
            a CTA that has left.
    """
    if space == "":
        is_shared, is_param = (
            in_window(addresses, window) & mask for window in (SHARED_WINDOW, PARAMETER_WINDOW)
        )
        if is_shared.any():
            yield from _shared(warp, addresses & np.uint64(0xFFFF_FFFF), is_shared)
        for name, lanes in (("param", is_param), ("global", mask & ~is_shared & ~is_param)):
            if lanes.any():
                yield Target(warp.cta, name, lanes), addresses
    elif space == "shared::cluster":
        yield from _shared(warp, addresses, mask)
    elif space.startswith("shared"):
        for target, offsets in _shared(warp, addresses, mask):
            if target.cta is not warp.cta:
                raise HazardError(
                    "R13", f"a shared::cta access to CTA {target.cta.index}, which is another one"
                )
            yield target, offsets
    else:
        yield Target(warp.cta, space, mask), addresses


def _shared(
    warp: Warp, addresses: NDArray[np.uint64], mask: Mask
) -> Iterator[tuple[Target, NDArray[np.uint64]]]:
    ranks, offsets = split_shared(addresses)
    for rank in np.unique(ranks[mask]):
        cta = warp.cta.cluster.cta_of_rank(int(rank))
        yield Target(cta, "shared", mask & (ranks == rank)), offsets.astype(np.uint64)
