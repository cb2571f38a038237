"""The process in which one peer is checked and timed: `python -m benchmarks.worker PEER`."""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle

import torch

from benchmarks.case import Case, Launch
from benchmarks.grouped_operands import GroupedOperands
from benchmarks.operands import Normal, Operands, Source, Zeros
from benchmarks.peers import AnyOperands, Peer, make_peer
from benchmarks.problems import AnyProblem, GroupedProblem, Problem, parse
from deep_gemm.testing.bench import host_time
from deep_gemm.testing.profiler import DeviceEvent, record_rested_calls
from deep_gemm.tuning.children import Handler, Message, describe, serve

NUM_SETS = 2
_PROBE_CALLS = 20

Record = Callable[[Sequence[Launch], bool], "list[list[DeviceEvent]]"]


def describe_gpu() -> Message:
    """The GPU, as the result file names it."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "uuid": f"GPU-{properties.uuid}" if hasattr(properties, "uuid") else "0",
        "num_sms": properties.multi_processor_count,
    }


def is_healthy() -> bool:
    """Whether the GPU still answers this process."""
    try:
        torch.cuda.synchronize()
    except Exception:
        return False
    return True


def build_operands(problem: AnyProblem, source: Source) -> AnyOperands:
    """Operands of a row of whichever table."""
    if isinstance(problem, GroupedProblem):
        return GroupedOperands.build(problem, source)
    assert isinstance(problem, Problem)
    return Operands.build(problem, source)


class Worker:
    """A peer and the cases that it has passed."""

    def __init__(
        self, peer: Peer, device: str = "cuda", record: Record = record_rested_calls
    ) -> None:
        self._peer = peer
        self._device = device
        self._record = record
        self._cases: dict[str, dict[str, list[Case]]] = {}

    def handlers(self) -> dict[str, Handler]:
        commands = (self.hello, self.warm, self.prepare, self.release, self.measure, self.host)
        return {command.__name__: command for command in (*commands, self.sustain)}

    def hello(self) -> Message:
        """Who is here."""
        versions = {"torch": torch.__version__, "cuda": str(torch.version.cuda)}
        return {**describe_gpu(), "versions": {**versions, **self._peer.versions()}}

    def warm(self, names: list[str]) -> Message:
        """Compiles what some problems need, and keeps nothing.

        Returns:
            {"errors": {problem: text}}: a call that fails here fails again where it is checked.
        """
        errors: dict[str, str] = {}
        for name in names:
            problem = parse(name)
            try:
                x = build_operands(problem, Zeros(self._device))
                for variant in self._peer.variants(problem):
                    self._peer.case(variant, x).launch()
                self._finish()
            except Exception as error:
                errors[name] = describe(error)
        return {"errors": errors}

    def prepare(self, name: str) -> Message:
        """Makes the operands of a problem and checks every variant on every set of them.

        Returns:
            {"max_error": {variant: x}, "errors": {variant: text}}.
        """
        problem = parse(name)
        sets = [
            build_operands(problem, Normal(problem, index, self._device))
            for index in range(NUM_SETS)
        ]
        passed: dict[str, list[Case]] = {}
        max_error: dict[str, float] = {}
        errors: dict[str, str] = {}
        for variant in self._peer.variants(problem):
            try:
                cases = [self._peer.case(variant, x) for x in sets]
                max_error[variant] = max(case.check() for case in cases)
                passed[variant] = cases
            except Exception as error:
                errors[variant] = describe(error)
        self._finish()
        self._cases[name] = passed
        return {"max_error": max_error, "errors": errors}

    def release(self) -> Message:
        """Forgets every problem: the peers share the GPU's memory."""
        self._cases.clear()
        self._finish()
        return {}

    def measure(self, names: list[str], repeats: int) -> Message:
        """Times every case of some problems in one profiler session, with a cold L2.

        Returns:
            {"us": {problem: {variant: [microseconds of each call]}}, "num_kernels": {problem:
            {variant: kernels, copies and fills in a call}}}.
        """
        keys = [(name, variant) for name in names for variant in self._cases[name]]
        calls = [
            self._cases[name][variant][repeat % NUM_SETS].launch
            for repeat in range(repeats)
            for name, variant in keys
        ]
        us: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        num_kernels: dict[str, dict[str, int]] = defaultdict(dict)
        for index, events in enumerate(self._record(calls, True)):
            name, variant = keys[index % len(keys)]
            counted = [event.duration for event in events if self._peer.counts(event.name)]
            if not counted:
                seen = sorted({event.name for event in events})
                raise RuntimeError(f"{variant} {name}: no kernel to count among {seen}")
            us[name][variant].append(sum(counted))
            num_kernels[name][variant] = len(counted)
        return {"us": us, "num_kernels": num_kernels}

    def host(self, name: str, repeats: int) -> Message:
        """The host's time per call, with the queue kept shallow, over rotating operands.

        Returns:
            {"us": {variant: median microseconds}}.
        """
        us = {}
        for variant, cases in self._cases[name].items():
            us[variant] = host_time(_rotating(cases), repeats)
        return {"us": us}

    def sustain(self, name: str, variant: str, seconds: float) -> Message:
        """Calls back to back for some seconds, with whatever the L2 and the power leave.

        Returns:
            {"us": microseconds per call}.
        """
        launch = _rotating(self._cases[name][variant])
        probe_us = statistics.median(_time_calls(launch, _PROBE_CALLS) for _ in range(3))
        return {"us": _time_calls(launch, max(1, round(seconds * 1e6 / probe_us)))}

    def _finish(self) -> None:
        """Waits, so that a fault of a kernel is reported here at the latest; frees what it can."""
        if self._device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.empty_cache()


def _rotating(cases: Sequence[Case]) -> Callable[[], object]:
    """A call of the next case, and after the last of the first again."""
    launches = cycle([case.launch for case in cases])
    return lambda: next(launches)()


def _time_calls(launch: Callable[[], object], num_calls: int) -> float:
    """Microseconds per call, by CUDA events around all of them."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(num_calls):
        launch()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3 / num_calls


if __name__ == "__main__":
    name, folder = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    serve(Worker(make_peer(name, folder)).handlers(), is_healthy)
