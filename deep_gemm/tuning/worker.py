"""The process that checks and times configurations: `python -m deep_gemm.tuning.worker [cpu]`."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from deep_gemm.config.as_json import Row, config_from_json, problem_from_json
from deep_gemm.errors import UnsupportedArchitectureError
from deep_gemm.runtime.device import arch_of, num_sms_of
from deep_gemm.testing.profiler import DeviceEvent, record_rested_calls
from deep_gemm.tuning.children import Handler, Message, describe, serve
from deep_gemm.tuning.operands import Operands, make_operands, selection_of

NUM_SETS = 2
"""Sets of operands that calls go through in turn."""

Launch = Callable[[], None]

Record = Callable[[Sequence[Launch], bool], "list[list[DeviceEvent]]"]


class Worker:
    """One problem at a time, and the launches of it that gave the right result."""

    def __init__(self, device: torch.device, record: Record) -> None:
        self._device = device
        self._record = record
        self._launches: list[list[Launch]] = []

    def handlers(self) -> dict[str, Handler]:
        """Every command, by name."""
        return {"hello": self.hello, "check": self.check, "measure": self.measure}

    def hello(self) -> Message:
        """Who is here: {"gpu": name, "arch", "num_sms"}.

        Raises:
            UnsupportedArchitectureError: nothing is tuned for it.
        """
        name = "the emulator"
        if self._device.type == "cuda":
            name = torch.cuda.get_device_name(self._device)
        arch = arch_of(self._device)
        if arch != "90a":
            raise UnsupportedArchitectureError(f"the tuner knows kernels of SM90 only, got {name}")
        return {"gpu": name, "arch": arch, "num_sms": num_sms_of(self._device)}

    def check(self, problem: Row, configs: list[Row]) -> Iterator[Message]:
        """Runs a problem with each configuration and compares every element with FP64, on every set
        of operands.

        Yields:
            For each: {"max_error"} or {"error": text}.
        """
        self._launches.clear()
        asked = problem_from_json(problem)
        sets = [make_operands(asked, set_idx, self._device) for set_idx in range(NUM_SETS)]
        for fields in configs:
            try:
                selection = selection_of(asked, config_from_json(fields))
                launches = [x.launcher(x.plan(selection)) for x in sets]
                max_error = max(map(Operands.check, sets, launches))
            except Exception as error:
                if not self.is_healthy():
                    raise
                yield {"error": describe(error)}
                continue
            self._launches.append(launches)
            yield {"max_error": max_error}

    def measure(self, chosen: list[int], repeats: int) -> Message:
        """Times some launches in one profiler session, in turn, with a cold L2.

        Args:
            chosen: which of those that passed their check, by number.
            repeats: rounds, of a call of each on every set of operands.

        Returns:
            {"us": for each of them [microseconds of a call in each round, the mean of all sets]}.
        """
        calls = [
            self._launches[index][set_idx]
            for _ in range(repeats)
            for set_idx in range(NUM_SETS)
            for index in chosen
        ]
        recorded = self._record(calls, True)
        us = [sum(event.duration for event in events) for events in recorded]
        every = [us[place :: len(chosen)] for place in range(len(chosen))]
        return {
            "us": [
                [
                    statistics.fmean(of_one[i : i + NUM_SETS])
                    for i in range(0, len(of_one), NUM_SETS)
                ]
                for of_one in every
            ]
        }

    def is_healthy(self) -> bool:
        """Whether the GPU still answers this process."""
        if self._device.type == "cuda":
            try:
                torch.cuda.synchronize()
            except Exception:
                return False
        return True


def record_on_host(calls: Sequence[Launch], flush_l2: bool) -> list[list[DeviceEvent]]:
    """Stands in for the profiler in the emulator. The host's clock says nothing about a GPU."""
    del flush_l2
    events = []
    for call in calls:
        start = time.perf_counter()
        call()
        us = (time.perf_counter() - start) * 1e6
        events.append([DeviceEvent("emulated", start * 1e6, us)])
    return events


def make_worker(device: str) -> Worker:
    """The worker of a GPU ("cuda"), or of the emulator ("cpu")."""
    return Worker(torch.device(device), record_rested_calls if device == "cuda" else record_on_host)


if __name__ == "__main__":
    worker = make_worker(sys.argv[1])
    serve(worker.handlers(), worker.is_healthy)
