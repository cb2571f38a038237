"""How far choices are from the best configurations that were measured. Needs no GPU.

Two ways to choose are compared: by the cost model alone, and by a table of measurements with the
cost model for what it lacks. For every problem the table is made from all others, as if that one
had never been measured: what is asked for is seldom just what was tuned.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from deep_gemm.config.as_json import config_from_json
from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.tuned import Table
from deep_gemm.tuning.measurements import Measurement, parse
from deep_gemm.tuning.problems import title
from deep_gemm.tuning.winners import by_problem, entry_of

Times = Mapping[GemmConfig, Measurement]
"""What was measured of one problem, by configuration."""


@dataclass(frozen=True)
class Choice:
    """A configuration that was chosen for a problem.

    Attributes:
        config: it.
        us: its measured time, None if there is none.
        best: the fastest one of the problem.
        is_measured: whether a table said so.
    """

    config: GemmConfig
    us: float | None
    best: Measurement
    is_measured: bool = False

    @property
    def ratio(self) -> float:
        """Time of the choice over the best time; NaN where it was not measured."""
        return math.nan if self.us is None or self.best.us is None else self.us / self.best.us


def read_times(path: Path) -> dict[GemmProblem, Times]:
    """A file of the tuner, or a sweep of before there was one, by problem."""
    return dict(by_problem(_lines(path)))


def _lines(path: Path) -> Iterator[Measurement]:
    for line in path.read_text().splitlines():
        row = json.loads(line)
        if isinstance(row.get("problem"), dict):
            yield parse(row)
        else:
            known = {field.name for field in fields(GemmConfig)}
            config = config_from_json({name: row[name] for name in row if name in known})
            problem = GemmProblem(row["m"], row["n"], row["k"])
            yield Measurement(row["gpu"], "", "", problem, config, row["us"])


def by_model(problem: GemmProblem, times: Times) -> Choice:
    """What the cost model takes."""
    config = cheapest(problem)
    return _choice(config, times)


def by_table(problem: GemmProblem, times: Times, table: Table) -> Choice:
    """What a table has, or else the cost model's choice."""
    found = table.find(problem)
    if found is None:
        return by_model(problem, times)
    return replace(_choice(found.config, times), is_measured=True)


def _choice(config: GemmConfig, times: Times) -> Choice:
    best = min(times.values(), key=lambda one: math.inf if one.us is None else one.us)
    return Choice(config, times[config].us if config in times else None, best)


def held_out_table(problem: GemmProblem, every: Mapping[GemmProblem, Times]) -> Table:
    """The table of all problems but this one."""
    others = (entry_of(other, times) for other, times in every.items() if other != problem)
    return Table(entry for entry in others if entry is not None)


def report(path: Path) -> str:
    """The regret of every problem and of all, as text: where K must be left whole, and, if any that
    split K were measured, where it may be split, as in calls unless they are batch-invariant."""
    every = read_times(path)
    parts = [_report(every, splits_k=False)]
    if any(config.cluster_k > 1 for times in every.values() for config in times):
        parts.append("Where K may be split:\n" + _report(every, splits_k=True))
    return "\n\n".join(parts)


def _report(every: Mapping[GemmProblem, Times], splits_k: bool) -> str:
    lines, models, tables = [], [], []
    for problem, measured in every.items():
        asked = replace(problem, splits_k=splits_k)
        times = {c: one for c, one in measured.items() if splits_k or c.cluster_k == 1}
        if not times:
            continue
        model = by_model(asked, times)
        table = by_table(asked, times, held_out_table(problem, every))
        models.append(model)
        tables.append(table)
        expected = estimate(asked, model.config).us
        lines.append(
            f"{title(problem):24} {model.ratio:.3f} {table.ratio:.3f}"
            f"{'*' if table.is_measured else ' '} {_short(model.config)} (model {expected:.1f} us)"
            f"  best {_short(model.best.config)} {model.best.us:.1f} us"
        )
    lines.append(f"the cost model: {_summary(models)}")
    num_measured = sum(choice.is_measured for choice in tables)
    lines.append(f"with a table of the others, which had {num_measured} (*): {_summary(tables)}")
    return "\n".join(lines)


def _short(config: GemmConfig) -> str:
    return config.name.removeprefix(f"{config.entry}_")


def _summary(choices: Sequence[Choice]) -> str:
    known = [choice.ratio for choice in choices if choice.us is not None]
    text = f"{len(known)} of {len(choices)} choices measured"
    if known:
        mean = sum(known) / len(known)
        text += f": mean {mean:.4f}, worst {max(known):.3f} times the best configuration's time"
    return text
