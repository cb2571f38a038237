"""A trace in the format of chrome://tracing, which ui.perfetto.dev opens too.

A clock of the model is one nanosecond of the viewer. Processes are CTAs; threads are warps, and
beside them the tensor cores and the TMA stores. Loads and groups of wgmma, of which several run at
a time, are asynchronous events.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from deep_gemm.emulator.trace import ring
from deep_gemm.emulator.trace.machine import Event
from deep_gemm.emulator.trace.recorder import Phase, Record

TENSOR_CORES = 1000
STORES = 1001
"""Thread numbers beyond those of warps."""

Json = dict[str, object]


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
    names = ring.barrier_names(records)
    numbers = ring.stages(events)
    rows: list[Json] = _labels(events)
    for identity, event in enumerate(events):
        rows += _rows(event, identity, names, numbers)
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


def _rows(
    event: Event,
    identity: int,
    names: Mapping[ring.Barrier, str],
    numbers: Mapping[ring.Barrier, int],
) -> list[Json]:
    thread = {"wgmma": TENSOR_CORES, "store": STORES}.get(event.kind, event.warp)
    row: Json = {
        "name": _name(event, names, numbers),
        "cat": event.kind,
        "pid": event.cta,
        "tid": thread,
        "ts": _micros(event.start),
    }
    args = {"line": event.line, **{key: _plain(value, names) for key, value in event.args.items()}}
    if event.kind == "arrive":
        return [{**row, "ph": "i", "s": "t", "args": args}]
    if event.kind in ("load", "copy", "wgmma group"):
        end = {**row, "ph": "e", "ts": _micros(event.end), "id": identity}
        return [{**row, "ph": "b", "id": identity, "args": args}, end]
    return [{**row, "ph": "X", "dur": _micros(event.end) - _micros(event.start), "args": args}]


def _micros(clocks: float) -> float:
    """Whole clocks as the format's microseconds, so that the same trace is the same text."""
    return round(clocks) / 1000


def _name(
    event: Event, names: Mapping[ring.Barrier, str], numbers: Mapping[ring.Barrier, int]
) -> str:
    phases = ring.phases_of(event)
    if event.kind == "load":
        return f"TMA load, stage {numbers[phases[0].cta, phases[0].barrier]}"
    if event.kind == "wgmma":
        return f"wgmma of warpgroup {event.args['warpgroup']}"
    if event.kind == "wait for a barrier" and phases:
        return f"wait for {_barrier(phases[0], names)}"
    if event.kind == "arrive":
        return f"arrive on {_barrier(phases[0], names)}"
    return event.kind


def _barrier(phase: Phase, names: Mapping[ring.Barrier, str]) -> str:
    if phase.kind != "mbarrier":
        return f"{phase.kind} {phase.barrier}"
    return names.get((phase.cta, phase.barrier), f"mbarrier {phase.barrier:#x}")


def _plain(value: object, names: Mapping[ring.Barrier, str]) -> object:
    """A value that JSON has, phases as text."""
    if isinstance(value, Phase):
        return f"{_barrier(value, names)} of CTA {value.cta}, phase {value.turn}"
    if isinstance(value, tuple):
        return [_plain(item, names) for item in value]
    return value
