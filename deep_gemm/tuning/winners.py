"""From measurements to a GPU's table: which configuration is the fastest of each problem."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.tuned_file import Entry, Timed, document, file_name, read
from deep_gemm.tuning.measurements import Measurement

TIE = 1.01
"""Times this close are the same: of those the cost model's favourite wins, so that tables change
little from run to run and few kernels are enough."""

Times = Mapping[GemmConfig, Measurement]


def by_problem(measurements: Iterable[Measurement]) -> dict[GemmProblem, Times]:
    """What has a time, by problem: the latest of each configuration, and of the kernels that the
    problem was last measured with."""
    found: dict[GemmProblem, dict[GemmConfig, Measurement]] = defaultdict(dict)
    for one in measurements:
        times = found[one.problem]
        if any(other.kernels != one.kernels for other in times.values()):
            times.clear()
        if one.us is not None:
            times[one.config] = one
    return {problem: times for problem, times in found.items() if times}


def entries_of(measurements: Iterable[Measurement]) -> list[Entry]:
    """What a table says of one GPU's measurements."""
    entries = (entry_of(problem, times) for problem, times in by_problem(measurements).items())
    return [entry for entry in entries if entry is not None]


def entry_of(problem: GemmProblem, times: Times) -> Entry | None:
    """What a table says of a problem; None if nothing was timed that leaves K whole."""
    whole = {config: one for config, one in times.items() if config.cluster_k == 1}
    if not whole:
        return None
    split = {config: one for config, one in times.items() if config.cluster_k > 1}
    best, model = _fastest(whole), times.get(cheapest(problem))
    fastest_split = _fastest(split) if split else None
    if fastest_split is not None and fastest_split.us >= best.us:
        fastest_split = None
    return Entry(problem, best, fastest_split, None if model is None else _timed(model))


def write_table(folder: Path, gpu: str, entries: Sequence[Entry]) -> tuple[Path, int]:
    """Puts entries into a GPU's table, in place of what it says of these problems.

    The file appears whole or not at all.

    Args:
        folder: of tables; made if it is not there.
        gpu: its name.
        entries: at least one.

    Returns:
        The file, and how many entries it has now.

    Raises:
        ArgumentError: entries are of several kinds of GPUs.
    """
    path = folder / file_name(gpu)
    merged = {entry.problem: entry for entry in (*read(path, gpu), *entries)}
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(document(gpu, list(merged.values())), encoding="utf-8")
    part.replace(path)
    return path, len(merged)


def _fastest(times: Times) -> Timed:
    limit = TIE * min(_us(one) for one in times.values())
    near = [one for one in times.values() if _us(one) <= limit]
    return _timed(min(near, key=lambda one: (one.estimate_us or 0.0, _us(one))))


def _timed(one: Measurement) -> Timed:
    return Timed(one.config, _us(one))


def _us(one: Measurement) -> float:
    return float("inf") if one.us is None else one.us
