"""The file of a table of measured configurations: one GPU's, in JSON, one line per entry.

{"schema": 1, "gpu": "NVIDIA H100 80GB HBM3", "arch": "90a", "num_sms": 132, "entries": [
{"problem": {...}, "config": {...}, "us": 8.1, "split_config": {...}, "split_us": 7.4,
"model_config": {...}, "model_us": 8.3}, ...]}

Problems and configurations are their fields, but for those at their defaults, those that the header
has and those of a configuration that the problem decides.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from deep_gemm.config.as_json import Row, config_from_json, problem_from_json, to_json
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import ArgumentError

SCHEMA = 1
"""Goes up when older libraries would misread a table."""


class Timed(NamedTuple):
    """A configuration and its measured microseconds."""

    config: GemmConfig
    us: float


class Entry(NamedTuple):
    """What was measured of one problem.

    Attributes:
        problem: as `plain` has it.
        best: the fastest configuration that does not split K.
        split: the fastest of those that do, if it is faster than that.
        model: what the cost model would have taken, if it was measured.
    """

    problem: GemmProblem
    best: Timed
    split: Timed | None = None
    model: Timed | None = None

    def choices(self, splits_k: bool) -> list[Timed]:
        """The fastest first."""
        return [self.split, self.best] if splits_k and self.split is not None else [self.best]


def plain(problem: GemmProblem) -> GemmProblem:
    """The problem without what does not change a configuration's time, or only restricts them."""
    return replace(
        problem, block_multiple=(1, 1), pdl=False, splits_k=False, few_kernels=False, gpu=""
    )


def file_name(gpu: str) -> str:
    """Of the table of a GPU of this name."""
    return f"{slug(gpu)}.json"


def slug(gpu: str) -> str:
    """A GPU's name as a part of a file name: `h100-80gb-hbm3`."""
    words = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")
    return words.removeprefix("nvidia-")


def read(path: Path, gpu: str) -> list[Entry]:
    """The entries of a table's file; none if there is no file.

    What cannot be used, a whole file or some entries, is left out with one warning.
    """
    try:
        header, rows = _parse(path.read_text(encoding="utf-8"), gpu)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        _warn(path, f"is not used: {error}")
        return []
    entries: list[Entry] = []
    errors: list[str] = []
    for row in rows:
        try:
            entries.append(_entry(row, header))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        _warn(path, f"{len(errors)} of {len(rows)} entries are not used, the first: {errors[0]}")
    return entries


def _warn(path: Path, text: str) -> None:
    warnings.warn(f"table {path} {text}", RuntimeWarning, stacklevel=3)


def _parse(text: str, gpu: str) -> tuple[Row, list[Any]]:
    """What all entries have in common, and their rows."""
    document = json.loads(text)
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        got = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ArgumentError(f"schema: must be {SCHEMA}, got {got!r}")
    if document.get("gpu") != gpu:
        raise ArgumentError(f"gpu: must be {gpu!r}, got {document.get('gpu')!r}")
    rows = document.get("entries")
    if not isinstance(rows, list):
        raise ArgumentError(f"entries: must be a list, got {type(rows).__name__}")
    return {name: document.get(name) for name in ("arch", "num_sms")}, rows


def _entry(row: object, header: Row) -> Entry:
    if not isinstance(row, Mapping) or not isinstance(row.get("problem"), Mapping):
        raise ArgumentError(f"entry: must have a problem, got {row!r}")
    problem = plain(problem_from_json({**header, **row["problem"]}))
    best = _timed(row, "", problem)
    if best is None:
        raise ArgumentError(f"entry: must have a config, got {[*row]}")
    return Entry(problem, best, _timed(row, "split_", problem), _timed(row, "model_", problem))


def _timed(row: Mapping[str, Any], prefix: str, problem: GemmProblem) -> Timed | None:
    fields = row.get(f"{prefix}config")
    if fields is None:
        return None
    kind = _kind_fields(problem)
    if not isinstance(fields, Mapping) or not kind.keys().isdisjoint(fields):
        raise ArgumentError(f"{prefix}config: must have no field of the problem's, got {fields!r}")
    config = config_from_json({**fields, **kind})
    if broken := broken_rules(config):
        raise ArgumentError(f"{prefix}config: must be legal, got {config.name}: {broken[0]}")
    us = row.get(f"{prefix}us")
    if isinstance(us, bool) or not isinstance(us, (int, float)):
        raise ArgumentError(f"{prefix}us: must be a number, got {us!r}")
    return Timed(config, us)


def document(gpu: str, entries: Iterable[Entry]) -> str:
    """A table's file: one line per entry, in the order of the problems.

    Args:
        gpu: its name.
        entries: of one architecture and number of multiprocessors.

    Raises:
        ArgumentError: there are none, or they are of several kinds of GPUs.
    """
    by_problem = {_order(entry.problem): entry for entry in entries}
    kinds = {(entry.problem.arch, entry.problem.num_sms) for entry in by_problem.values()}
    if len(kinds) != 1:
        raise ArgumentError(f"entries: must be of one architecture and number of SMs, got {kinds}")
    ((arch, num_sms),) = kinds
    header = {"schema": SCHEMA, "gpu": gpu, "arch": arch, "num_sms": num_sms}
    head = json.dumps(header)[1:-1]
    rows = (json.dumps(_row(entry)) for _, entry in sorted(by_problem.items()))
    return f'{{{head}, "entries": [\n' + ",\n".join(rows) + "\n]}\n"


def _order(problem: GemmProblem) -> tuple[int | str, ...]:
    kind = (problem.grouping.value, problem.gran_n, problem.d_bytes, problem.head_columns)
    return (*kind, problem.num_groups, problem.alignment, problem.n, problem.k, problem.m)


def _row(entry: Entry) -> Row:
    row: Row = {"problem": _without(to_json(entry.problem), ("arch", "num_sms"))}
    for prefix, timed in (("", entry.best), ("split_", entry.split), ("model_", entry.model)):
        if timed is not None:
            row[f"{prefix}config"] = _without(to_json(timed.config), _kind_fields(entry.problem))
            row[f"{prefix}us"] = round(timed.us, 3)
    return row


def _without(row: Row, names: Iterable[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _kind_fields(problem: GemmProblem) -> Row:
    """Fields of a configuration that the problem decides."""
    return {
        "grouping": problem.grouping.name.lower(),
        "gran_n": problem.gran_n,
        "d_bytes": problem.d_bytes,
    }
