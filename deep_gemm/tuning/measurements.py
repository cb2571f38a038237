"""What was measured: one line of JSON for each configuration of each problem, as it comes."""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO

from deep_gemm.config.as_json import Row, config_from_json, problem_from_json, to_json
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import ArgumentError

Key = tuple[str, str, GemmProblem, GemmConfig]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One configuration of one problem.

    Attributes:
        gpu: its name.
        version: of the library, or a commit.
        kernels: `digest_of_kernels`.
        problem: as `tuned_file.plain` has it, with the GPU's architecture and multiprocessors.
        config: how it was computed.
        us: median kernel time in microseconds; None if the result was wrong or the launch failed.
        us_min, us_max: the shortest and the longest.
        num_calls: how many times it was timed, on every set of operands.
        max_error: the worst element's, of every set of operands.
        estimate_us: what the cost model says.
        error: why there is no time.
    """

    gpu: str
    version: str
    kernels: str
    problem: GemmProblem
    config: GemmConfig
    us: float | None = None
    us_min: float | None = None
    us_max: float | None = None
    num_calls: int = 0
    max_error: float | None = None
    estimate_us: float | None = None
    error: str = ""

    @property
    def key(self) -> Key:
        """What need not be measured again."""
        return self.gpu, self.kernels, self.problem, self.config

    def with_times(self, us: Sequence[float]) -> Measurement:
        """The same with what its calls took."""
        middle, low, high = (round(x, 3) for x in (statistics.median(us), min(us), max(us)))
        return replace(self, us=middle, us_min=low, us_max=high, num_calls=len(us))

    def to_json(self) -> Row:
        """What is true of it, without what it lacks."""
        row = {field.name: getattr(self, field.name) for field in fields(self)}
        row |= {"problem": to_json(self.problem), "config": to_json(self.config)}
        return {name: value for name, value in row.items() if value not in (None, "", 0)}


def read(paths: Iterable[Path]) -> list[Measurement]:
    """The measurements of some files, in their order; lines that are none are left out with one
    warning a file. A killed run leaves half a line."""
    return [measurement for path in paths for measurement in _read(path)]


def _read(path: Path) -> Iterator[Measurement]:
    errors: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            yield parse(json.loads(line))
        except (ValueError, TypeError) as error:
            errors.append(f"line {number}: {error}")
    if errors:
        text = f"{path}: {len(errors)} lines are no measurements, the first is {errors[0]}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)


def parse(row: object) -> Measurement:
    """The measurement that a line holds.

    Raises:
        ValueError: it is no object, or its problem or configuration is none.
        TypeError: a field is missing or unknown.
    """
    if not isinstance(row, dict):
        raise ArgumentError(f"measurement: must be an object, got {row!r}")
    described = {
        "problem": problem_from_json(row.get("problem")),
        "config": config_from_json(row.get("config")),
    }
    return Measurement(**{**row, **described})


class Journal:
    """A file of measurements that grows.

    Attributes:
        path: of the file, which is made when something is added.
        known: what it held at the beginning.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known = {one.key for one in read([path])} if path.exists() else set()
        self._file: IO[str] | None = None

    def add(self, measurements: Iterable[Measurement]) -> None:
        """Appends; every line is on disk, or on its way there, when this returns."""
        if self._file is None:
            self._file = self._open()
        for one in measurements:
            self._file.write(json.dumps(one.to_json()) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Ends it."""
        if self._file is not None:
            self._file.close()

    def _open(self) -> IO[str]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+", encoding="utf-8")
        file.seek(0)
        # Behind the half line that a killed run has left.
        if not file.read().endswith("\n") and file.tell():
            file.write("\n")
        return file
