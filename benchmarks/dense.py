"""The dense table: our kernels beside the packaged reference and cuBLASLt, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import compiling, run
from benchmarks.problems import HOST, SUSTAINED, AnyProblem, Problem
from benchmarks.session import Session
from deep_gemm.tuning.children import Message, log

PEERS = ("ours", "reference", "cublaslt")


@dataclass(frozen=True)
class Options(run.Options):
    """What to measure.

    Attributes:
        host_calls: measured calls per pass for the host's time; 0 leaves it out.
    """

    problems: Sequence[Problem]
    peers: tuple[str, ...] = PEERS
    host_calls: int = 2000


class DenseRun(run.Run):
    """The dense table, the host's time and what long calls take back to back."""

    title = "dense"
    variants = ("ours", "ours_row_major", "reference", "cublaslt", "cublaslt_tensor")
    sustained = SUSTAINED
    sustained_variants = {"ours": "ours", "reference": "reference", "cublaslt": "cublaslt_tensor"}

    def __init__(self, options: Options, scratch: Path) -> None:
        super().__init__(options, scratch)
        self._problems = options.problems
        self._host_calls = options.host_calls

    def others(self) -> Sequence[AnyProblem]:
        return HOST if self._host_calls else ()

    def compile_ours(self, ours: Session) -> None:
        gpu = ours.hello
        configs = compiling.chosen_configs(self._problems, gpu["num_sms"], gpu["gpu"])
        log(f"compiling {len(configs)} kernels")
        rows = compiling.compile_kernels(configs, compiling.half_the_cores(), ours.env)
        self._report.others += [{"table": "compile", **row} for row in rows]
        log(compiling.summarise(rows))

    def describe(self, problem: AnyProblem, gpu: Message) -> Message:
        assert isinstance(problem, Problem)
        return {"config": compiling.chosen_config(problem, gpu["num_sms"], gpu["gpu"]).name}

    def after_pass(self) -> None:
        for session in self._sessions:
            for problem in self.others():
                if session.ready.get(problem.name):
                    calls = self._host_calls
                    reply = session.ask("host", 60, name=problem.name, repeats=calls)
                    self._report.add("host", problem.name, reply.get("us", {}))


def measure(options: Options) -> Path:
    """Measures the dense table and writes the result file, also if only a part succeeds."""
    with tempfile.TemporaryDirectory(prefix="deep_gemm_", ignore_cleanup_errors=True) as scratch:
        return DenseRun(options, Path(scratch)).run()
