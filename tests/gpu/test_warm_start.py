"""On a GPU: the first call of a process that finds its kernel on disk."""

from __future__ import annotations

from benchmarks.warm_start import measure

MAX_MS = 30.0


def test_the_first_call_of_a_warm_process() -> None:
    times = measure(runs=5)
    assert times["ours"] <= MAX_MS, times
