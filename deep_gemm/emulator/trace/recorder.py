"""What a run did, warp by warp: the operations that take part in its timing.

A record holds no time. The order of an emulated run says little about when things happen on a GPU,
but what each warp does, and what each wait waits for, is the same in every order; from that
replay.py computes when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

Interval = tuple[int, int]
"""Addresses of bytes in the shared memory of a CTA, from the first to behind the last."""


class Phase(NamedTuple):
    """One round of a barrier. It is over when all that was recorded to count for it has happened.

    Attributes:
        cta: index in the grid; of the cluster's first one for a cluster barrier.
        kind: of barrier.
        barrier: address of an mbarrier, number of a named barrier, 0.
        turn: how many rounds were over before.
    """

    cta: int
    kind: Literal["mbarrier", "bar.sync", "barrier.cluster"]
    barrier: int
    turn: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Until these phases are over. A test never waits; it has found them over."""

    phases: tuple[Phase, ...]
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class Arrive:
    """Counts for phases at once."""

    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class Sync:
    """Arrives, and waits until all have."""

    phase: Phase


@dataclass(frozen=True, slots=True)
class Load:
    """A TMA load, or another bulk copy into shared memory.

    It counts for one phase in each CTA that it writes to.

    Attributes:
        number: of the load in the recording.
        phases: that it counts for.
        target: what it writes, the same in all these CTAs.
    """

    number: int
    phases: tuple[Phase, ...]
    target: Interval

    @property
    def num_bytes(self) -> int:
        """That one CTA gets."""
        return self.target[1] - self.target[0]


@dataclass(frozen=True, slots=True)
class Copy:
    """cp.async of so many bytes by all lanes together."""

    num_bytes: int


@dataclass(frozen=True, slots=True)
class CopyArrive:
    """Counts for phases once the warp's earlier copies have landed."""

    phases: tuple[Phase, ...]


@dataclass(frozen=True, slots=True)
class CopyCommit:
    """Closes a group of cp.async."""


@dataclass(frozen=True, slots=True)
class CopyWait:
    """Until at most `keep` groups of cp.async are under way; if None, no cp.async at all."""

    keep: int | None


@dataclass(frozen=True, slots=True)
class Mma:
    """A warp's part of one wgmma.

    Attributes:
        n: columns of the product.
        loads: numbers of the loads that brought its operands.
    """

    n: int
    loads: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """Closes a group of matrix products."""


@dataclass(frozen=True, slots=True)
class MmaWait:
    """Until at most `keep` groups of matrix products are running."""

    keep: int


@dataclass(frozen=True, slots=True)
class StoreMatrix:
    """stmatrix."""


@dataclass(frozen=True, slots=True)
class Store:
    """A TMA store, or another bulk copy or reduction into global memory."""

    num_bytes: int


@dataclass(frozen=True, slots=True)
class StoreCommit:
    """Closes a group of TMA stores."""


@dataclass(frozen=True, slots=True)
class StoreWait:
    """Until at most `keep` groups of TMA stores are running."""

    keep: int


Operation = (
    Wait
    | Arrive
    | Sync
    | Load
    | Copy
    | CopyArrive
    | CopyCommit
    | CopyWait
    | Mma
    | Commit
    | MmaWait
    | StoreMatrix
    | Store
    | StoreCommit
    | StoreWait
)


class Record(NamedTuple):
    """One operation of a warp.

    Attributes:
        num_steps: instructions that the warp has executed up to it.
        line: of the PTX.
        operation: what it did.
    """

    num_steps: int
    line: int
    operation: Operation


def _overlap(left: Interval, right: Interval) -> bool:
    return left[0] < right[1] and right[0] < left[1]


class Recorder:
    """Collects the records of one run; pass it to `emulator.run.run`.

    Attributes:
        records: in program order, by (CTA, warp).
        num_loads: TMA loads so far.
    """

    def __init__(self, report: Callable[[Operation], object] = lambda _: None) -> None:
        """Starts with nothing.

        Args:
            report: told every operation, to show progress.
        """
        self.records: dict[tuple[int, int], list[Record]] = {}
        self.num_loads = 0
        self._present: dict[int, list[Load]] = {}
        self._report = report

    def add(self, cta: int, warp: int, record: Record) -> None:
        """Appends what a warp did."""
        self.records.setdefault((cta, warp), []).append(record)
        self._report(record.operation)

    def new_load(self, phases: tuple[Phase, ...], target: Interval) -> Load:
        """A load that begins, and is from now on where its target's bytes come from."""
        load = Load(self.num_loads, phases, target)
        self.num_loads += 1
        for phase in phases:
            older = self._present.get(phase.cta, [])
            kept = [other for other in older if not _overlap(other.target, target)]
            self._present[phase.cta] = [*kept, load]
        return load

    def loads_of(self, cta: int, *operands: Interval) -> tuple[int, ...]:
        """Numbers of the loads that the bytes of these operands came from, in order."""
        return tuple(
            load.number
            for load in self._present.get(cta, [])
            if any(_overlap(load.target, wanted) for wanted in operands)
        )
