"""Traced runs of the dense kernel, and what is asked of their events."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any
from unittest import mock

import torch

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.trace.machine import Event
from deep_gemm.emulator.trace.recorder import Record, Recorder
from deep_gemm.emulator.trace.replay import replay
from tests.emulator.dense import Case, run_case

Records = dict[tuple[int, int], list[Record]]
EARLY = (Timing.EARLY, 0)

PAIR = Case(GemmConfig(128, 64, 3, 2, cluster_m=2), 512, 64, 912)
"""Two blocks of eight k blocks by a cluster, whose CTAs share B; a ring of three."""


@functools.cache
def traced(case: Case, order: tuple[Timing, int] = EARLY) -> tuple[Recorder, int, torch.Tensor]:
    """A recorded run: records, warp instructions and the result."""
    recorder, run, counts = Recorder(), emulator.run, []

    def recorded(*args: Any, **kwargs: Any) -> int:
        counts.append(run(*args, **{**kwargs, "recorder": recorder}))
        return counts[-1]

    with mock.patch.object(emulator, "run", recorded):
        out = run_case(case, order)
    return recorder, counts[0], out


def counted(case: Case, order: tuple[Timing, int]) -> tuple[int, torch.Tensor]:
    """A run without a recorder: warp instructions and the result."""
    run, counts = emulator.run, []

    def count(*args: Any, **kwargs: Any) -> int:
        counts.append(run(*args, **kwargs))
        return counts[-1]

    with mock.patch.object(emulator, "run", count):
        out = run_case(case, order)
    return counts[0], out


@functools.cache
def events_of(case: Case) -> tuple[Event, ...]:
    return tuple(replay(traced(case)[0].records))


def of_kind(events: Iterable[Event], kind: str, **where: int) -> list[Event]:
    return [
        event
        for event in events
        if event.kind == kind
        and all(getattr(event, name) == value for name, value in where.items())
    ]
