"""Differences from the recording that are none of the emulator's, each excused to the bit or bound.

An excuse takes the words that were computed and those that were recorded, and tells which of them
need not be equal.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]
Excuse = Callable[[Words, Words], NDArray[np.bool_]]


def stale_predicate(computed: Words, recorded: Words) -> NDArray[np.bool_]:
    """cluster_barriers: ptxas miscompiles a loop around try_wait whose predicate is read behind it.

    ptxas 12.9 and 13.0, from -O1 on, peel the loop's first try_wait into another predicate than the
    rest of the loop. What reads p behind the loop reads the latter, which nobody has set if the
    first try succeeds (-O0 is right). So the program stores -1 for each of the three phases that it
    has seen, words 3 to 5 of a thread's six, where PTX says the phase.
    """
    word = np.arange(computed.size) % 6
    return (word >= 3) & (computed == word - 3) & (recorded == 0xFFFFFFFF)


_LOGARITHM_ERROR = 2.0**-22.6
_EXACT = (3, 5, 6)
_LOGARITHM = 8


def approximations(computed: Words, recorded: Words) -> NDArray[np.bool_]:
    """float_functions: what PTX only bounds may be off by one unit in the last place.

    Words 3, 5 and 6 of a row of ten, rcp.rn, sqrt.rn and div.rn, may not. lg2.approx may be off by
    2^-22.6 if that is more: its error is absolute near 1.
    """
    column = np.arange(computed.size) % 10
    is_near = np.abs(computed.astype(np.int64) - recorded.astype(np.int64)) <= 1
    with np.errstate(invalid="ignore"):
        error = np.abs(computed.view(np.float32).astype(np.float64) - recorded.view(np.float32))
    is_near |= (column == _LOGARITHM) & (error <= _LOGARITHM_ERROR)
    return is_near & ~np.isin(column, _EXACT)
