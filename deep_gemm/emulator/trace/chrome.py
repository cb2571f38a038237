"""A trace in the format of chrome://tracing, which ui.perfetto.dev opens too.

A clock of the model is one nanosecond of the viewer. Processes are CTAs; threads are warps, and
beside them the tensor cores and the TMA stores. Loads and groups of wgmma, of which several run at
a time, are asynchronous events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deep_gemm.emulator.trace import ring
from deep_gemm.emulator.trace.machine import Event
from deep_gemm.emulator.trace.recorder import Phase, Record

TENSOR_CORES = 1000
STORES = 1001
"""Thread numbers beyond those of warps."""

CLOCKS_PER_UNIT = 1000
"""The format counts in microseconds. Whole clocks, so that the same trace is the same text."""

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class _Names:
    """What things are called.

    Attributes:
        barriers: names of mbarriers.
        stages: numbers of the barriers of loads that some wgmma reads.
        filled: the phase that a load counts for, by the CTA written to and the load's number.
    """

    barriers: Mapping[ring.Barrier, str]
    stages: Mapping[ring.Barrier, int]
    filled: Mapping[tuple[int, object], Phase]

    def barrier(self, phase: Phase) -> str:
        """The barrier of a phase."""
        if phase.kind != "mbarrier":
            return f"{phase.kind} {phase.barrier}"
        return self.barriers.get((phase.cta, phase.barrier), f"mbarrier {phase.barrier:#x}")

    def place(self, phase: Phase) -> Json:
        """Where in the ring a load goes, if it does, or a wgmma reads."""
        if (phase.cta, phase.barrier) not in self.stages:
            return {"turn": phase.turn}
        num_stages = sum(cta == phase.cta for cta, _ in self.stages)
        stage = self.stages[phase.cta, phase.barrier]
        return {"stage": stage, "turn": phase.turn, "k block": phase.turn * num_stages + stage}


def write(
    path: Path,
    events: Sequence[Event],
    records: Mapping[tuple[int, int], list[Record]],
    about: Mapping[str, object],
) -> None:
    """Writes a trace.

    Args:
        path: of the JSON file.
        events: of `replay`.
        records: that they were made from.
        about: what was traced; stored with the trace.

    Raises:
        OSError: the file cannot be written.
    """
    names = _Names(ring.barrier_names(records), ring.stages(events), ring.filled_by(events))
    rows: list[Json] = _labels(events)
    for identity, event in enumerate(events):
        rows += _rows(event, identity, names)
    document = {"displayTimeUnit": "ns", "otherData": dict(about), "traceEvents": rows}
    path.write_text(json.dumps(document, separators=(",", ":")) + "\n", encoding="utf-8")


def _labels(events: Sequence[Event]) -> list[Json]:
    """Names of processes and threads."""
    rows = []
    for cta in sorted({event.cta for event in events}):
        own = [event for event in events if event.cta == cta]
        rows.append(_label(cta, 0, "process_name", f"CTA {cta}"))
        for warp in sorted({event.warp for event in own}):
            role = ring.role(event for event in own if event.warp == warp)
            rows.append(_label(cta, warp, "thread_name", f"warp {warp}: {role}"))
        rows.append(_label(cta, TENSOR_CORES, "thread_name", "tensor cores"))
        rows.append(_label(cta, STORES, "thread_name", "TMA stores"))
    return rows


def _label(cta: int, thread: int, what: str, name: str) -> Json:
    return {"ph": "M", "pid": cta, "tid": thread, "name": what, "args": {"name": name}}


def _rows(event: Event, identity: int, names: _Names) -> list[Json]:
    thread = {"wgmma": TENSOR_CORES, "store": STORES}.get(event.kind, event.warp)
    start, end = round(event.start), round(event.end)
    row: Json = {
        "name": _name(event, names),
        "cat": event.kind,
        "pid": event.cta,
        "tid": thread,
        "ts": start / CLOCKS_PER_UNIT,
    }
    args = _args(event, names)
    if event.kind == "arrive":
        return [{**row, "ph": "i", "s": "t", "args": args}]
    if event.kind in ("load", "copy", "wgmma group"):
        closing = {**row, "ph": "e", "ts": end / CLOCKS_PER_UNIT, "id": identity}
        return [{**row, "ph": "b", "id": identity, "args": args}, closing]
    return [{**row, "ph": "X", "dur": (end - start) / CLOCKS_PER_UNIT, "args": args}]


def _name(event: Event, names: _Names) -> str:
    phases = ring.phases_of(event)
    if event.kind == "load":
        stage = names.place(phases[0]).get("stage")
        return f"TMA load, {names.barrier(phases[0]) if stage is None else f'stage {stage}'}"
    if event.kind == "wgmma":
        return f"wgmma of warpgroup {event.args['warpgroup']}"
    if event.kind == "wait for a barrier" and phases:
        return f"wait for {names.barrier(phases[0])}"
    if event.kind == "arrive":
        return f"arrive on {names.barrier(phases[0])}"
    return event.kind


def _args(event: Event, names: _Names) -> Json:
    """What the viewer shows of an event that is clicked on."""
    args: Json = {"PTX line": event.line}
    for key, value in event.args.items():
        if key == "phases":
            args[key] = [
                f"{names.barrier(phase)} of CTA {phase.cta}, phase {phase.turn}"
                for phase in ring.phases_of(event)
            ]
        else:
            args[key] = value
    if event.kind == "load":
        args |= names.place(ring.phases_of(event)[0])
    elif event.kind == "wgmma":
        for load in ring.loads_of(event)[:1]:
            args |= names.place(names.filled[event.cta, load])
    return args
