"""Strong accesses: volatile, relaxed, acquire and release ones, and atomics.

They are no races among themselves, and they synchronise: what a releasing one tells, an acquiring
one of the same address learns. A relaxed one tells what was known at the last fence, and what it
learns counts from the next fence on. Scopes are not checked.
"""

from __future__ import annotations

from typing import NamedTuple


class Strength(NamedTuple):
    """What a strong access does beside accessing.

    Attributes:
        acquires: whether it learns at once.
        releases: whether it tells all that is known.
    """

    acquires: bool
    releases: bool


def strength_of(order: str) -> Strength | None:
    """The strength of a load or store by its modifiers, such as ".acquire.gpu"; None if weak."""
    if order in ("", ".weak"):
        return None
    return atomic_strength(order)


def atomic_strength(order: str) -> Strength:
    """The strength of an atomic by its modifiers; without any it is relaxed."""
    return Strength(".acq" in order, ".release" in order or ".acq_rel" in order)
