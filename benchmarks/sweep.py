"""Times many legal configurations for every problem: what a cost model is fitted to."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import compiling, results
from benchmarks.configs import to_json
from benchmarks.problems import Problem
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import ranked
from deep_gemm.tuning.children import Child, ChildDied, Message, log

WORKER = "benchmarks.sweep_worker"
HELLO_SECONDS = 90
CHECK_SECONDS = 30
MEASURE_SECONDS = 120
MAX_RESTARTS = 5


@dataclass(frozen=True)
class Options:
    """What to sweep.

    Attributes:
        out: folder of the result file.
        problems: what to compute.
        top: configurations per problem, the cheapest by the cost model; 0 takes all.
        repeats: calls of each configuration.
        budget: seconds after which no further problem is begun.
        commit: what is measured.
    """

    out: Path
    problems: tuple[Problem, ...]
    top: int = 0
    repeats: int = 5
    budget: float = 420.0
    commit: str = "unknown"


Candidates = dict[Problem, dict[GemmConfig, float]]
"""For each problem its configurations, each with the cost model's microseconds."""


def find_candidates(options: Options, num_sms: int) -> Candidates:
    """What is to be tried."""
    found: Candidates = {}
    for problem in options.problems:
        gemm_problem = GemmProblem(problem.m, problem.n, problem.k, compiling.ARCH, num_sms)
        best = ranked(gemm_problem)[: options.top or None]
        found[problem] = {config: estimate.us for config, estimate in best}
    return found


class Sweep:
    """One run. A configuration that kills the process is left out for all further problems."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._deadline = time.monotonic() + options.budget
        self._banned: dict[str, str] = {}
        self._num_starts = 0
        self._num_wrong = 0
        self._child: Child | None = None
        self._hello: Message = {}

    def run(self) -> tuple[Path, int]:
        """Sweeps; returns the result file and how many measurements failed.

        Raises:
            ChildDied: the process could not be started, or died too often.
        """
        try:
            self._start()
            candidates = find_candidates(self._options, self._hello["num_sms"])
            self._compile(candidates)
            stem = f"sweep-{results.slug(self._hello['gpu'])}-{results.utc_date()}"
            path = results.new_file(self._options.out, stem, ".jsonl")
            with path.open("w") as file:
                for problem, costs in candidates.items():
                    if time.monotonic() > self._deadline:
                        log(f"out of time before {problem.name}")
                        break
                    for line in self._sweep(problem, costs):
                        print(json.dumps(line), file=file, flush=True)
            return path, self._num_wrong + len(self._banned)
        finally:
            if self._child is not None:
                self._child.close()

    def _start(self) -> None:
        if self._child is not None:
            self._child.kill()
        self._num_starts += 1
        if self._num_starts > MAX_RESTARTS + 1:
            raise ChildDied(f"{MAX_RESTARTS} restarts were not enough: {self._banned}")
        self._child = Child(WORKER)
        self._hello = self._child.ask("hello", HELLO_SECONDS)
        if "error" in self._hello:
            raise ChildDied(self._hello["error"])

    def _compile(self, candidates: Candidates) -> None:
        configs = list(dict.fromkeys(config for costs in candidates.values() for config in costs))
        log(f"{sum(map(len, candidates.values()))} measurements of {len(configs)} kernels")
        rows = compiling.compile_kernels(configs, compiling.all_cores())
        log(compiling.summarise(rows))
        compiled = {row["config"] for row in rows if "error" not in row}
        for config in configs:
            if config.name not in compiled:
                self._banned[config.name] = "was not compiled"

    def _sweep(self, problem: Problem, costs: dict[GemmConfig, float]) -> list[Message]:
        """Result lines of one problem."""
        passed = None
        while passed is None:
            configs = [config for config in costs if config.name not in self._banned]
            passed = self._check(problem, configs)
        lines = self._measure(problem, len(passed)) if passed else []
        for (config, checked), line in zip(passed.items(), lines, strict=False):
            line |= {**to_json(config), **checked, "estimate_us": round(costs[config], 3)}
            line |= {"gpu": self._hello["gpu"], "commit": self._options.commit}
        if lines:
            best_us, name = min(
                (line["us"], config.name) for config, line in zip(passed, lines, strict=True)
            )
            log(f"{problem.name}: {len(lines)} configurations, best {best_us:.2f} us: {name}")
        return lines

    def _check(
        self, problem: Problem, configs: Sequence[GemmConfig]
    ) -> dict[GemmConfig, Message] | None:
        """The configurations that gave the right result, each with what its check said.

        None if one killed the process: it is banned, and the process is there again.
        """
        assert self._child is not None
        passed: dict[GemmConfig, Message] = {}
        fields = [to_json(config) for config in configs]
        replies = self._child.stream("check", CHECK_SECONDS, name=problem.name, configs=fields)
        for config in configs:
            try:
                reply = next(replies)
                if reply.get("fatal"):
                    raise ChildDied(reply["error"])
            except ChildDied as error:
                self._banned[config.name] = f"{problem.name}: {error}"
                log(f"WRONG: {problem.name} {config.name}: {error}")
                self._start()
                return None
            if "error" in reply:
                self._num_wrong += 1
                log(f"WRONG: {problem.name} {config.name}: {reply['error']}")
            else:
                passed[config] = reply
        for _ in replies:
            pass
        return passed

    def _measure(self, problem: Problem, num_configs: int) -> list[Message]:
        """The times of all configurations that passed, in order; empty if that failed."""
        assert self._child is not None
        try:
            reply = self._child.ask("measure", MEASURE_SECONDS, repeats=self._options.repeats)
            if reply.get("fatal"):
                raise ChildDied(reply["error"])
        except ChildDied as error:
            reply = {"error": str(error)}
            self._start()
        if "error" in reply:
            log(f"WRONG: {problem.name} was not measured: {reply['error']}")
            self._num_wrong += num_configs
        return [
            {**asdict(problem), "us": statistics.median(us), "us_min": min(us), "us_max": max(us)}
            for us in reply.get("us", ())
        ]


def run(options: Options) -> tuple[Path, int]:
    """Sweeps and writes JSON lines, as they come; also returns how many measurements failed."""
    return Sweep(options).run()
