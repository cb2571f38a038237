"""The process that checks and times configurations: `python -m benchmarks.sweep_worker`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.case import PROMOTED_LIMIT
from benchmarks.configs import from_json
from benchmarks.operands import Normal, Operands, mn_major
from benchmarks.problems import Problem
from benchmarks.worker import Record, describe_gpu, is_healthy
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.runtime.device import arch_of, num_sms_of
from deep_gemm.testing.numeric import max_scaled_error
from deep_gemm.testing.profiler import record_calls
from deep_gemm.testing.reference import fp8_gemm_nt_reference
from deep_gemm.tuning.children import Handler, Message, describe, serve

Launch = partial[None]


class SweepWorker:
    """One problem at a time, and the launches of it that gave the right result."""

    def __init__(self, device: str = "cuda", record: Record = record_calls) -> None:
        self._device = device
        self._record = record
        self._launches: list[Launch] = []

    def handlers(self) -> dict[str, Handler]:
        commands = (self.hello, self.check, self.measure)
        return {command.__name__: command for command in commands}

    def hello(self) -> Message:
        """Who is here."""
        return describe_gpu()

    def check(self, name: str, configs: list[Message]) -> Iterator[Message]:
        """Runs a problem with each configuration and compares every element with FP64.

        Yields:
            For each: {"band", "max_error"} or {"error": text}.
        """
        self._launches.clear()
        problem = Problem.parse(name)
        x = Operands.build(problem, Normal(problem, 0, self._device))
        sfa = mn_major(x.sfa)
        expected = fp8_gemm_nt_reference((x.a, x.sfa), (x.b, x.sfb))
        for fields in configs:
            try:
                launch, band = _plan(problem, from_json(fields), x, sfa)
                x.d.fill_(torch.nan)
                launch()
                error = max_scaled_error(x.d, expected)
                if error > PROMOTED_LIMIT:
                    raise AssertionError(f"max_error {error:.3g}, at most {PROMOTED_LIMIT}")
            except Exception as error:
                if not is_healthy():
                    raise
                yield {"error": describe(error)}
                continue
            self._launches.append(launch)
            yield {"band": band, "max_error": error}

    def measure(self, repeats: int) -> Message:
        """Times every launch that passed, in one profiler session, with a cold L2.

        Returns:
            {"us": for each launch, in order, [microseconds of each call]}.
        """
        recorded = self._record(self._launches * repeats, True)
        us = [sum(event.duration for event in events) for events in recorded]
        return {"us": [us[index :: len(self._launches)] for index in range(len(self._launches))]}


def _plan(
    problem: Problem, config: GemmConfig, x: Operands, sfa: torch.Tensor
) -> tuple[Launch, int]:
    """A launch with this very configuration, and the band that goes with it."""
    device = x.a.device
    sizes = (problem.m, problem.n, problem.k)
    gemm_problem = GemmProblem(*sizes, arch_of(device), num_sms_of(device))
    band = best_band(gemm_problem, config)
    matrices = GemmTensors.of_matrices(x.a, sfa, x.b, x.sfb, x.d)
    plan = plan_dense(gemm_problem, Selection(config, band), matrices)
    tensors = (x.a, x.b, x.d, sfa, x.sfb)
    # The tensors ride along, so that their memory lives as long as the launch.
    return partial(_launch, plan.launch, tensors), band


def _launch(launch: object, tensors: tuple[torch.Tensor, ...]) -> None:
    assert callable(launch)
    launch(*(tensor.data_ptr() for tensor in tensors))


if __name__ == "__main__":
    serve(SweepWorker().handlers(), is_healthy)
