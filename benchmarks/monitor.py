"""Clocks and power, read while something else is measured."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from deep_gemm.tuning.children import Message

QUERY = "clocks.sm,power.draw,utilization.gpu"
_NVML_PERIOD = 0.05
_SMI_PERIOD = 0.5
_SMI_SECONDS = 10


class Sample(NamedTuple):
    """One reading."""

    clock_mhz: float
    power_w: float
    utilisation: float


class Summary(NamedTuple):
    """Medians of some readings, None where there are none."""

    clock_mhz: float | None
    power_w: float | None


Read = Callable[[], Sample]


def summarise(samples: Sequence[Sample]) -> Summary:
    """Medians over the samples in which the GPU was at work, if there are such."""
    busy = [sample for sample in samples if sample.utilisation > 0] or samples
    if not busy:
        return Summary(None, None)
    clock = statistics.median(sample.clock_mhz for sample in busy)
    power = statistics.median(sample.power_w for sample in busy)
    return Summary(clock, round(power, 1))


@dataclass
class Monitor:
    """Reads in a thread of its own, and keeps what it reads while it is told to."""

    samples: list[Sample] = field(default_factory=list)
    _wanted: threading.Event = field(default_factory=threading.Event)

    def start(self, uuid: str) -> None:
        """Starts to read the GPU with this UUID."""
        threading.Thread(target=self._run, args=(uuid,), daemon=True).start()

    @contextmanager
    def sampling(self) -> Iterator[list[Sample]]:
        """Keeps readings within this context; yields the list that they go to."""
        first = len(self.samples)
        taken: list[Sample] = []
        self._wanted.set()
        try:
            yield taken
        finally:
            self._wanted.clear()
            taken += self.samples[first:]

    def _run(self, uuid: str) -> None:
        read, period = _reader(uuid)
        while True:
            self._wanted.wait()
            try:
                self.samples.append(read())
            except Exception:
                # Figures about the run are not worth the run.
                time.sleep(1)
            time.sleep(period)


def parse_smi(line: str) -> Sample:
    """A line of nvidia-smi's CSV, in the order of QUERY, without units."""
    clock, power, utilisation = (float(part) for part in line.split(","))
    return Sample(clock, power, utilisation)


def describe_run(name: str, uuid: str, samples: Sequence[Sample]) -> Message:
    """What a result file says of the GPU, and of its state while it was measured."""
    summary = summarise(samples)
    return {
        "gpu": name,
        "driver": smi("driver_version", uuid) or None,
        "clock_mhz": summary.clock_mhz,
        "power_w": summary.power_w,
    }


def smi(query: str, uuid: str) -> str:
    """What nvidia-smi answers to --query-gpu, without header and units; empty if it cannot."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits", "-i", uuid]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _reader(uuid: str) -> tuple[Read, float]:
    """How to take a sample, and how many seconds to wait between two."""
    try:
        return _nvml_reader(uuid), _NVML_PERIOD
    except Exception:
        return lambda: parse_smi(smi(QUERY, uuid)), _SMI_PERIOD


def _nvml_reader(uuid: str) -> Read:
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def read() -> Sample:
        return Sample(
            pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
            pynvml.nvmlDeviceGetUtilizationRates(handle).gpu,
        )

    read()
    return read
