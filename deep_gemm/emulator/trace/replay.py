"""When what was recorded would have happened: times that are modelled, not measured.

A small simulation in the order of modelled time, after the run. Each warp goes through its records;
an instruction costs INSTRUCTION_CLOCKS, and a wait is over when the last of what it waits for has
happened. So times follow from what depends on what, not from the order in which the emulator ran
the warps.

What warps share is served first come, first served: a CTA's tensor cores, one wgmma after the
other once all four warps have issued it; its TMA loads; its cp.async; its TMA stores.

What is approximated:

- All PTX instructions cost the same, warps of one CTA never compete for issue slots, shared memory
  has no latency and no conflicts, and lanes that diverge are timed as if they ran in turn.
- Every copy has the same latency. It waits for its like in its CTA, and for nobody else's traffic:
  TMA and cp.async, which has few bytes, do not delay each other. CTAs begin together.
- The recorded run decided every branch. A test of an mbarrier that found its phase over may be
  earlier in the model than the phase's end; the warp then waits before its next wgmma, as it would
  have done on the other branch.
- A store is done when it has read shared memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

from deep_gemm.emulator.trace.machine import WARPS_OF_WARPGROUP, Event, Kind, Machine, Part, Signal
from deep_gemm.emulator.trace.model import INSTRUCTION_CLOCKS
from deep_gemm.emulator.trace.recorder import (
    Arrive,
    Commit,
    Copy,
    CopyArrive,
    CopyCommit,
    CopyWait,
    Load,
    Mma,
    MmaWait,
    Phase,
    Record,
    Store,
    StoreCommit,
    StoreMatrix,
    StoreWait,
    Sync,
    Wait,
)


def replay(records: Mapping[tuple[int, int], list[Record]]) -> list[Event]:
    """Models when everything happened.

    Args:
        records: of a `Recorder`.

    Returns:
        All events, by their start.

    Raises:
        EmulationError: the records are not those of a whole run.
    """
    machine = Machine(itertools.chain.from_iterable(records.values()))
    for (cta, warp), own in sorted(records.items()):
        _Warp(machine, cta, warp, own).start()
    machine.run()
    return sorted(machine.events, key=lambda event: (event.start, event.end))


class _Groups:
    """What a warp has started and not waited for: wgmma or stores, in groups."""

    def __init__(self) -> None:
        self.open: list[Part] = []
        self._closed: list[list[Part]] = []

    def commit(self) -> list[Part]:
        """Closes the open group, and returns it."""
        self._closed.append(self.open)
        self.open = []
        return self._closed[-1]

    def take(self, keep: int) -> list[Part]:
        """The parts of all closed groups but the latest `keep`, which are waited for now."""
        count = max(0, len(self._closed) - keep)
        taken = [part for group in self._closed[:count] for part in group]
        del self._closed[:count]
        return taken


class _Warp:
    """A warp's way through its records."""

    def __init__(self, machine: Machine, cta: int, warp: int, records: list[Record]) -> None:
        self._machine = machine
        self._cta = cta
        self._index = warp
        self._records = iter(records)
        self._record = records[0]
        self._num_steps = 0
        self._work: Kind = "other work"
        self._tested: list[Phase] = []
        self._last_landing = 0.0
        # Of the groups of cp.async that were closed and not waited for, when they have landed.
        self._copy_groups: list[float] = []
        self._products = _Groups()
        self._num_products = 0
        self._group_start = 0.0
        self._stores = _Groups()
        self._num_stores = 0

    def start(self) -> None:
        """Begins at clock 0."""
        self._go_on(0.0)

    def _go_on(self, now: float) -> None:
        """Works from one record to the next."""
        record = next(self._records, None)
        if record is None:
            return
        then = now + (record.num_steps - self._num_steps) * INSTRUCTION_CLOCKS
        if isinstance(record.operation, StoreMatrix):
            self._work = "epilogue"
        elif isinstance(record.operation, Load | Copy | Mma) and self._work != "promotion":
            self._work = "issue"
        self._record, self._num_steps = record, record.num_steps
        self._event(self._work, now, then)
        self._machine.at(then, self._perform)

    def _perform(self, now: float) -> None:
        match self._record.operation:
            case Wait(phases=phases, is_test=True):
                self._tested += phases
                self._go_on(now)
            case Wait(phases=phases):
                is_cluster = any(phase.kind == "barrier.cluster" for phase in phases)
                self._wait("wait for warps" if is_cluster else "wait for a barrier", phases, now)
            case Sync(phase=phase):
                self._machine.arrive(self._cta, phase, now)
                self._wait("wait for warps", (phase,), now)
            case Arrive(phases=phases):
                for phase in phases:
                    self._machine.arrive(self._cta, phase, now)
                self._event("arrive", now, now, phases=phases)
                self._go_on(now)
            case Load() | Copy() | CopyArrive() | CopyCommit() | CopyWait():
                self._copy(now)
            case Mma() | Commit() | MmaWait():
                self._multiply(now)
            case StoreMatrix() | Store() | StoreCommit() | StoreWait():
                self._store(now)

    def _copy(self, now: float) -> None:
        machine = self._machine
        match self._record.operation:
            case Load(number=number, phases=phases, num_bytes=num_bytes):
                landing = machine.load(self._cta, num_bytes, now)
                for phase in phases:
                    machine.at(landing, lambda then, phase=phase: machine.count(phase, then))  # type: ignore[misc]
                self._event("load", now, landing, number=number, phases=phases, bytes=num_bytes)
            case Copy(num_bytes=num_bytes):
                landing = machine.copy(self._cta, num_bytes, now)
                self._last_landing = max(self._last_landing, landing)
                self._event("copy", now, landing, bytes=num_bytes)
            case CopyArrive(phases=phases):
                landing = max(self._last_landing, now)
                for phase in phases:
                    machine.at(landing, lambda then, phase=phase: machine.count(phase, then))  # type: ignore[misc]
                self._event("arrive", landing, landing, phases=phases)
            case CopyCommit():
                self._copy_groups.append(self._last_landing)
            case CopyWait(keep=keep):
                landed = max(self._landing_of_all_but(keep), now)
                self._event("wait for copies", now, landed)
                machine.at(landed, self._go_on)
                return
        self._go_on(now)

    def _landing_of_all_but(self, keep: int | None) -> float:
        """When all groups of cp.async but the latest `keep` have landed; if None, all cp.async."""
        if keep is None:
            self._copy_groups.clear()
            return self._last_landing
        over = self._copy_groups[: max(0, len(self._copy_groups) - keep)]
        del self._copy_groups[: len(over)]
        return over[-1] if over else 0.0

    def _multiply(self, now: float) -> None:
        match self._record.operation:
            case Mma() if self._tested:
                tested, self._tested = self._tested, []
                self._wait("wait for a barrier", tested, now, self._multiply)
            case Mma(n=n, loads=loads):
                self._issue_product(n, loads, now)
                self._go_on(now)
            case Commit():
                self._watch_group(self._products.commit())
                self._go_on(now)
            case MmaWait(keep=keep):
                self._wait("wait for wgmma", self._products.take(keep), now)
                self._work = "promotion"

    def _issue_product(self, n: int, loads: tuple[int, ...], now: float) -> None:
        part = Part(self._cta, "wgmma", self._index // WARPS_OF_WARPGROUP, self._num_products)
        self._num_products += 1
        if not self._products.open:
            self._group_start = now
        self._products.open.append(part)
        self._work = "other work"
        span = self._machine.multiply(part, n, now)
        if span:
            self._event("wgmma", *span, warpgroup=part.issuer, n=n, loads=loads)

    def _watch_group(self, parts: list[Part]) -> None:
        """Notes when a group of products is complete; once per warpgroup."""
        if self._index % WARPS_OF_WARPGROUP == 0 and parts:
            start, line, last = self._group_start, self._record.line, parts[-1].number

            def note(then: float) -> None:
                self._event("wgmma group", start, then, line, last=last)

            self._machine.when(parts, start, note)

    def _store(self, now: float) -> None:
        match self._record.operation:
            case Store(num_bytes=num_bytes):
                part = Part(self._cta, "store", self._index, self._num_stores)
                self._num_stores += 1
                self._stores.open.append(part)
                start, end = self._machine.store(part, now)
                self._event("store", start, end, bytes=num_bytes)
            case StoreCommit():
                self._stores.commit()
            case StoreWait(keep=keep):
                self._wait("wait for stores", self._stores.take(keep), now)
                return
        self._go_on(now)

    def _wait(
        self,
        kind: Kind,
        signals: Iterable[Signal],
        now: float,
        go_on: Callable[[float], None] | None = None,
    ) -> None:
        """Goes on, or does `go_on`, when all signals are given."""
        signals = tuple(signals)
        phases = tuple(signal for signal in signals if isinstance(signal, Phase))

        def resume(then: float) -> None:
            self._event(kind, now, then, phases=phases)
            (go_on or self._go_on)(then)

        self._work = "other work"
        self._machine.when(signals, now, resume)

    def _event(
        self, kind: Kind, start: float, end: float, line: int | None = None, **args: object
    ) -> None:
        """Notes what takes so long; it comes from the present record if no line is given."""
        line = self._record.line if line is None else line
        self._machine.events.append(Event(self._cta, self._index, kind, start, end, line, args))
