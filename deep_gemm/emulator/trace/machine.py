"""What a trace is made of: modelled time, what is waited for, and what all warps share."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from deep_gemm.emulator.errors import EmulationError
from deep_gemm.emulator.trace.model import (
    LOAD_BYTES_PER_CLOCK,
    LOAD_LATENCY,
    REMOTE_CLOCKS,
    STORE_CLOCKS,
    mma_clocks,
)
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    CopyArrive,
    Load,
    Operation,
    Phase,
    Record,
    Sync,
)

Kind = Literal[
    "wait for a barrier",
    "wait for wgmma",
    "wait for stores",
    "wait for copies",
    "wait for warps",
    "promotion",
    "epilogue",
    "issue",
    "other work",
    "arrive",
    "load",
    "copy",
    "wgmma",
    "wgmma group",
    "store",
]


WARPS_OF_WARPGROUP = 4


class Part(NamedTuple):
    """One wgmma of a warpgroup or one store of a warp, as something that can be waited for."""

    cta: int
    kind: Literal["wgmma", "store"]
    issuer: int
    number: int


Signal = Phase | Part
"""What happens once, and can be waited for."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that takes modelled time.

    Attributes:
        cta: index in the grid.
        warp: that does it or has started it.
        kind: what it is.
        start: in clocks since the CTA began.
        end: the same; never before start.
        line: of the PTX.
        args: what else is known.
    """

    cta: int
    warp: int
    kind: Kind
    start: float
    end: float
    line: int
    args: Mapping[str, object] = field(default_factory=dict)


class Queue:
    """A server that serves in the order of the requests."""

    def __init__(self) -> None:
        """Starts idle."""
        self._free_at = 0.0

    def serve(self, now: float, clocks: float) -> tuple[float, float]:
        """When a request made now begins and ends to be served."""
        start = max(now, self._free_at)
        self._free_at = start + clocks
        return start, self._free_at


class Machine:
    """Modelled time, the signals that have been given, and what all warps share.

    Attributes:
        events: what has happened, in the order in which its end became known.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        """Starts at clock 0.

        Args:
            records: of all warps; they tell how much counts for each phase.
        """
        self.events: list[Event] = []
        self._agenda: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        self._lacks = Counter(phase for r in records for phase in _counts_for(r.operation))
        self._given: set[Signal] = set()
        self._waiters: dict[Signal, list[Callable[[float], None]]] = defaultdict(list)
        self._tensor_cores: dict[int, Queue] = defaultdict(Queue)
        self._loads: dict[int, Queue] = defaultdict(Queue)
        self._copies: dict[int, Queue] = defaultdict(Queue)
        self._stores: dict[int, Queue] = defaultdict(Queue)
        self._issued: Counter[Part] = Counter()

    def at(self, time: float, action: Callable[[float], None]) -> None:
        """Does something at a time; equal times in the order of the calls."""
        heapq.heappush(self._agenda, (time, next(self._numbers), action))

    def run(self) -> None:
        """Until nothing is left to do.

        Raises:
            EmulationError: something is waited for that never happens; then records are missing.
        """
        while self._agenda:
            time, _, action = heapq.heappop(self._agenda)
            action(time)
        if self._waiters:
            missing = ", ".join(map(str, self._waiters))
            raise EmulationError(f"trace: the records lack what ends the waits for {missing}")

    def count(self, phase: Phase, now: float) -> None:
        """One of what a phase needs has happened."""
        self._lacks[phase] -= 1
        if not self._lacks[phase]:
            self.give(phase, now)

    def give(self, signal: Signal, now: float) -> None:
        """Lets all who wait for the signal go on."""
        self._given.add(signal)
        for waiter in self._waiters.pop(signal, []):
            waiter(now)

    def when(self, signals: Iterable[Signal], now: float, action: Callable[[float], None]) -> None:
        """Does something once all the signals are given, at once if they are."""
        missing = [signal for signal in signals if self._is_missing(signal)]
        if not missing:
            action(now)
        else:
            first, *rest = missing
            self._waiters[first].append(lambda then: self.when(rest, then, action))

    def _is_missing(self, signal: Signal) -> bool:
        # What nothing was recorded for cannot be timed, and delays nobody.
        is_known = isinstance(signal, Part) or signal in self._lacks
        return is_known and signal not in self._given

    def load(self, cta: int, num_bytes: int, now: float) -> float:
        """When a TMA load that is issued now has landed."""
        _, read = self._loads[cta].serve(now, num_bytes / LOAD_BYTES_PER_CLOCK)
        return read + LOAD_LATENCY

    def copy(self, cta: int, num_bytes: int, now: float) -> float:
        """When a cp.async that is issued now has landed."""
        _, read = self._copies[cta].serve(now, num_bytes / LOAD_BYTES_PER_CLOCK)
        return read + LOAD_LATENCY

    def store(self, part: Part, now: float) -> tuple[float, float]:
        """When a TMA store that is issued now begins and ends to read shared memory."""
        start, end = self._stores[part.cta].serve(now, STORE_CLOCKS)
        self.at(end, lambda then: self.give(part, then))
        return start, end

    def multiply(self, part: Part, n: int, now: float) -> tuple[float, float] | None:
        """When a wgmma begins and ends, told to the last of the warps that issue it."""
        self._issued[part] += 1
        if self._issued[part] < WARPS_OF_WARPGROUP:
            return None
        start, end = self._tensor_cores[part.cta].serve(now, mma_clocks(n))
        self.at(end, lambda then: self.give(part, then))
        return start, end

    def arrive(self, cta: int, phase: Phase, now: float) -> None:
        """An arrival by a thread of a CTA."""
        delay = REMOTE_CLOCKS if phase.kind == "barrier.cluster" or phase.cta != cta else 0.0
        self.at(now + delay, lambda then: self.count(phase, then))


def _counts_for(operation: Operation) -> tuple[Phase, ...]:
    match operation:
        case Arrive(phases=phases) | CopyArrive(phases=phases) | Load(phases=phases):
            return phases
        case Sync(phase=phase):
            return (phase,)
        case _:
            return ()
