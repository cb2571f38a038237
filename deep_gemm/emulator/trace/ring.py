"""What barriers and warps are for, and the life of each stage: found by use, in any program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deep_gemm.emulator.trace.machine import WARPS_OF_WARPGROUP, Event
from deep_gemm.emulator.trace.recorder import CopyArrive, Load, Phase, Record, Wait

Barrier = tuple[int, int]
"""CTA and address."""


def stages(events: Iterable[Event]) -> dict[Barrier, int]:
    """The barriers of loads that some wgmma reads, numbered per CTA in the order of addresses."""
    events = list(events)
    phase_of = filled_by(events)
    read = {phase_of[event.cta, number] for event in events for number in loads_of(event)}
    barriers = {(phase.cta, phase.barrier) for phase in read}
    numbered: dict[Barrier, int] = {}
    for cta, address in sorted(barriers):
        numbered[cta, address] = sum(other == cta for other, _ in numbered)
    return numbered


def phases_of(event: Event) -> tuple[Phase, ...]:
    """The phases that an event has to do with."""
    phases: tuple[Phase, ...] = event.args.get("phases", ())  # type: ignore[assignment]
    return phases


def loads_of(event: Event) -> tuple[int, ...]:
    """Numbers of the loads that a wgmma reads."""
    loads: tuple[int, ...] = event.args.get("loads", ())  # type: ignore[assignment]
    return loads


def filled_by(events: Iterable[Event]) -> dict[tuple[int, object], Phase]:
    """The phase that each load counts for, by the CTA that it writes to and its number."""
    return {
        (phase.cta, event.args["number"]): phase
        for event in events
        if event.kind == "load"
        for phase in phases_of(event)
    }


def barrier_names(records: Mapping[tuple[int, int], list[Record]]) -> dict[Barrier, str]:
    """Names for mbarriers: what fills them is full, what the filling warp waits for is empty."""
    names: dict[Barrier, str] = {}
    for operation, word in ((Load, ""), (CopyArrive, "SF ")):
        fills = [
            (warp, record.operation.phases)
            for warp, own in records.items()
            for record in own
            if isinstance(record.operation, operation)
        ]
        full = sorted({(phase.cta, phase.barrier) for _, phases in fills for phase in phases})
        ctas = [cta for cta, _ in full]
        for i, barrier in enumerate(full):
            names[barrier] = f"{word}full {i - ctas.index(barrier[0])}"
        for warp in {warp for warp, _ in fills}:
            names |= _empty_names(records[warp], operation, names)
    return names


def _empty_names(
    records: list[Record], fill: type[Load] | type[CopyArrive], names: Mapping[Barrier, str]
) -> dict[Barrier, str]:
    """What a warp waited for before each fill."""
    found: dict[Barrier, str] = {}
    waited: tuple[Phase, ...] = ()
    for record in records:
        operation = record.operation
        if isinstance(operation, Wait):
            waited = operation.phases
        elif isinstance(operation, fill):
            full = names[operation.phases[0].cta, operation.phases[0].barrier]
            for phase in waited:
                found[phase.cta, phase.barrier] = full.replace("full", "empty")
            waited = ()
    return found


def role(events: Iterable[Event]) -> str:
    """What a warp is for, told from its events."""
    warps = {event.kind: event.warp for event in events}
    match warps:
        case {"copy": warp}:
            return f"SF warp {warp} ({'TMA, ' if 'load' in warps else ''}cp.async)"
        case {"load": warp}:
            return f"load warp {warp} (TMA)"
        case {"promotion": warp}:
            return f"math warpgroup {warp // WARPS_OF_WARPGROUP}"
    return "idle warp"


@dataclass(frozen=True, slots=True)
class Round:
    """One use of one stage, in clocks.

    Attributes:
        cta: whose shared memory.
        stage: number.
        index: how often the stage was used before.
        issued: when the first of its loads was.
        landed: when all of them had.
        first_read: when the first wgmma that reads it began.
        last_read: when the last of them was complete.
    """

    cta: int
    stage: int
    index: int
    issued: float
    landed: float
    first_read: float
    last_read: float


def rounds(events: Iterable[Event]) -> list[Round]:
    """The uses of all stages that some wgmma has read."""
    events = list(events)
    numbers, phase_of = stages(events), filled_by(events)
    filled: dict[Phase, list[Event]] = defaultdict(list)
    reads: dict[Phase, list[Event]] = defaultdict(list)
    for event in events:
        if event.kind == "load":
            for phase in phases_of(event):
                filled[phase].append(event)
        for phase in {phase_of[event.cta, number] for number in loads_of(event)}:
            reads[phase].append(event)
    return [
        Round(
            phase.cta,
            numbers[phase.cta, phase.barrier],
            phase.turn,
            min(load.start for load in filled[phase]),
            max(load.end for load in filled[phase]),
            min(event.start for event in read),
            max(event.end for event in read),
        )
        for phase, read in sorted(reads.items())
    ]
