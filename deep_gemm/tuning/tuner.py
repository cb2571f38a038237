"""A run of the tuner: candidates, compiled side by side, then checked and timed in one visit."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from deep_gemm._version import __version__
from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import cheapest
from deep_gemm.config.sm90 import candidates
from deep_gemm.config.tuned_file import plain, slug
from deep_gemm.tuning.compiling import compile_kernels, digest_of_kernels
from deep_gemm.tuning.measurements import Journal, Measurement
from deep_gemm.tuning.problems import title
from deep_gemm.tuning.session import NotTimed, Session

FINALISTS_WITHIN = 1.1
"""Those that take at most so many times the shortest time are timed again, more often."""

FINAL_ROUNDS = 4
"""How many times as often."""

Candidates = Mapping[GemmConfig, float]
"""Configurations of one problem, each with the cost model's microseconds."""


class Report(Protocol):
    """Whom a run tells how far it is."""

    def begin(self, text: str, total: int) -> None:
        """A stage of so many steps begins."""

    def reach(self, done: int) -> None:
        """So many of them are done."""

    def say(self, line: str) -> None:
        """A line that stays."""


@dataclass(frozen=True)
class Options:
    """What to tune, and how.

    Attributes:
        problems: what to compute. Architecture and multiprocessors become those of the GPU.
        out: folder of the measurements.
        top: configurations per problem, the cheapest by the cost model, and as many of those that
            split K; 0 for all.
        repeats: rounds of calls of each configuration, one on every set of operands.
        budget: seconds after which no further problem is begun.
        jobs: kernels that are compiled at a time.
        version: what is measured.
        device: "cuda", or "cpu" for the emulator.
    """

    problems: Sequence[GemmProblem]
    out: Path
    top: int = 0
    repeats: int = 3
    budget: float = float("inf")
    jobs: int = 1
    version: str = __version__
    device: str = "cuda"


@dataclass
class Summary:
    """How a run went.

    Attributes:
        path: of the measurements.
        num_measured: configurations of problems that got a time.
        num_known: that had been measured before.
        num_failed: that gave a wrong result, did not run, or could not be timed.
        num_left: problems that there was no time for.
    """

    path: Path
    num_measured: int = 0
    num_known: int = 0
    num_failed: int = 0
    num_left: int = 0

    @property
    def text(self) -> str:
        """All of it."""
        text = (
            f"{self.num_measured} measured, {self.num_known} known before, "
            f"{self.num_failed} failed: {self.path}"
        )
        if self.num_left:
            text += f"\nout of time before {self.num_left} problems: the same command goes on"
        return text


def tried(problem: GemmProblem, top: int) -> Candidates:
    """What is tried for a problem, those that split K too, whether or not the problem allows it."""
    every = candidates(replace(problem, splits_k=True))
    costs = {config: estimate(problem, config).us for config in every}
    ordered = sorted(costs, key=lambda config: costs[config])
    whole = [config for config in ordered if config.cluster_k == 1]
    split = [config for config in ordered if config.cluster_k > 1]
    return {config: costs[config] for config in whole[: top or None] + split[: top or None]}


def compile_all(
    configs: Iterable[GemmConfig], arch: str, jobs: int, report: Report, deadline: float
) -> set[GemmConfig]:
    """Builds kernels, and returns those that could not be built in time."""
    left = dict.fromkeys(configs)
    report.begin("compiling", total := len(left))
    seconds = []
    for built in compile_kernels(list(left), arch, jobs):
        if built.kernel is None:
            report.say(f"NOT COMPILED: {built.config.name}: {built.error}")
        else:
            del left[built.config]
            seconds += [] if built.kernel.from_cache else [built.kernel.seconds]
        report.reach(total - len(left))
        if time.monotonic() > deadline:
            break
    text = f"{total} kernels, {len(seconds)} compiled, {len(left)} missing"
    if seconds:
        text += f"; the compiler took {statistics.median(seconds):.2f} s in the median"
    report.say(text)
    return set(left)


class Tuner:
    """One run on one GPU."""

    def __init__(self, options: Options, report: Report) -> None:
        """Starts the worker, which says what the GPU is.

        Raises:
            DeepGemmError: it could not be started.
        """
        self._options = options
        self._report = report
        self._deadline = time.monotonic() + options.budget
        self._session = Session(options.device)
        self._gpu = self._session.hello
        self._kernels = digest_of_kernels(self._gpu["arch"])
        self._journal = Journal(options.out / f"tune-{slug(self._gpu['gpu'])}.jsonl")
        self._summary = Summary(self._journal.path)

    def run(self) -> Summary:
        """Measures what has not been measured, and appends it to the file of the GPU.

        Raises:
            DeepGemmError: the worker died too often.
        """
        try:
            todo = self._todo()
            configs = [config for costs in todo.values() for config in costs]
            arch, jobs = self._gpu["arch"], self._options.jobs
            missing = compile_all(configs, arch, jobs, self._report, self._deadline)
            self._measure_all(todo, missing)
        finally:
            self._journal.close()
            self._session.close()
        return self._summary

    def _todo(self) -> dict[GemmProblem, Candidates]:
        """What each problem still lacks; what lacks nothing is left out."""
        found: dict[GemmProblem, Candidates] = {}
        for asked in dict.fromkeys(self._options.problems):
            gpu = {name: self._gpu[name] for name in ("arch", "num_sms")}
            problem = plain(replace(asked, **gpu))
            costs = tried(problem, self._options.top)
            new = {
                config: us
                for config, us in costs.items()
                if self._blank(problem, config).key not in self._journal.known
            }
            self._summary.num_known += len(costs) - len(new)
            if new:
                found[problem] = new
        return found

    def _blank(self, problem: GemmProblem, config: GemmConfig) -> Measurement:
        gpu, version = self._gpu["gpu"], self._options.version
        return Measurement(gpu, version, self._kernels, problem, config)

    def _measure_all(
        self, todo: Mapping[GemmProblem, Candidates], missing: set[GemmConfig]
    ) -> None:
        self._report.begin("measuring", sum(map(len, todo.values())))
        done = 0
        for number, (problem, costs) in enumerate(todo.items()):
            if time.monotonic() > self._deadline:
                self._summary.num_left = len(todo) - number
                break
            left_out = missing | self._session.banned.keys()
            usable = {config: us for config, us in costs.items() if config not in left_out}
            self._summary.num_failed += len(costs) - len(usable)
            try:
                self._journal.add(self._measure(problem, usable, done))
            except NotTimed as error:
                # All of them stay to be done.
                self._report.say(f"NOT MEASURED: {title(problem)}: {error}")
                self._summary.num_failed += len(usable)
            done += len(costs)
            self._report.reach(done)

    def _measure(self, problem: GemmProblem, costs: Candidates, done: int) -> list[Measurement]:
        """What came of each configuration of a problem."""
        checked = self._session.check(
            problem, list(costs), lambda number: self._report.reach(done + number)
        )
        right = [config for config in costs if "error" not in checked[config]]
        times = self._time(right, cheapest(problem))
        found = []
        for config, us in costs.items():
            one = replace(self._blank(problem, config), estimate_us=round(us, 3), **checked[config])
            if config in times:
                one = one.with_times(times[config])
            else:
                self._report.say(f"WRONG: {title(problem)} {config.name}: {one.error}")
            found.append(one)
        self._summary.num_measured += len(right)
        self._summary.num_failed += len(found) - len(right)
        self._say_best(problem, found)
        return found

    def _time(
        self, configs: Sequence[GemmConfig], model: GemmConfig
    ) -> dict[GemmConfig, list[float]]:
        """Microseconds of a call in each round; of the fastest, and of the cost model's choice, in
        more rounds."""
        if not configs:
            return {}
        repeats = self._options.repeats
        first = self._session.measure(range(len(configs)), repeats)
        times = dict(zip(configs, first, strict=True))
        medians = {config: statistics.median(us) for config, us in times.items()}
        limit = FINALISTS_WITHIN * min(medians.values())
        finalists = [
            index
            for index, config in enumerate(configs)
            if medians[config] <= limit or config == model
        ]
        final = self._session.measure(finalists, FINAL_ROUNDS * repeats)
        for index, us in zip(finalists, final, strict=True):
            times[configs[index]] += us
        return times

    def _say_best(self, problem: GemmProblem, found: Sequence[Measurement]) -> None:
        timed = {one.config: one.us for one in found if one.us is not None}
        if not timed:
            return
        best = min(timed, key=lambda config: timed[config])
        text = f"{title(problem)}: {len(timed)} timed, best {timed[best]:.2f} us {best.name}"
        model = timed.get(cheapest(problem))
        if model is not None:
            text += f", {model / timed[best]:.3f} times that by the cost model"
        self._report.say(text)
