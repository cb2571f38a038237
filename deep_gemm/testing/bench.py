"""Timing: kernels by the CUDA profiler, calls by CUDA events, and the host's share."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

from deep_gemm import knobs
from deep_gemm.errors import ArgumentError, DeepGemmError
from deep_gemm.testing.profiler import (
    DeviceEvent,
    l2_flush,
    record_calls,
    record_rested_calls,
    require_cuda,
    spin,
)

_HOST_CALLS_PER_SYNC = 8
# Longer than the host needs to queue the calls of a measurement: about 10 ms.
_BUSY_CYCLES = 20_000_000

empty_suppress = nullcontext


@contextmanager
def suppress_stdout_stderr() -> Iterator[None]:
    """Discard what this process, its C++ libraries included, writes to stdout and stderr."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [(fd, os.dup(fd)) for fd in (1, 2)]
    try:
        with Path(os.devnull).open("w") as sink, redirect_stdout(sink), redirect_stderr(sink):
            for fd, _ in saved:
                os.dup2(sink.fileno(), fd)
            yield
    finally:
        for fd, copy in saved:
            os.dup2(copy, fd)
            os.close(copy)


def get_arch_major() -> int:
    """The major compute capability of the current CUDA device: 9 for SM90."""
    return torch.cuda.get_device_capability()[0]


def profile_kernels(
    calls: Sequence[Callable[[], object]], repeats: int = 10, flush_l2: bool = True
) -> list[list[float]]:
    """GPU time of each call, all of them in one profiler session.

    The calls run in turn (A B A B), so that a drift of the clocks meets all alike, and the GPU
    rests before each (testing/profiler.py says how long, and why). Each call is made once
    beforehand, to compile and to allocate.

    Args:
        calls: functions that launch work on the current stream.
        repeats: measured rounds.
        flush_l2: overwrite a buffer of several times the L2 before each call.

    Returns:
        [calls][repeats] microseconds: the summed durations of the kernels, copies and fills that
        the call launched. Kernels that overlap (programmatic launch) count in full, each.

    Raises:
        DeepGemmError: there is no CUDA device, the profiler's record stayed incomplete, or a call
            launched nothing.
    """
    require_cuda()
    for call in calls:
        call()
    recorded = record_rested_calls(list(calls) * repeats, flush_l2)
    for index, events in enumerate(recorded):
        if not events:
            raise DeepGemmError(f"calls[{index % len(calls)}] launched no work on the GPU")
    times = [sum(event.duration for event in events) for events in recorded]
    return [times[index :: len(calls)] for index in range(len(calls))]


def bench_kineto(
    fn: Callable[[], object],
    kernel_names: str | tuple[str, ...],
    num_tests: int = 30,
    suppress_kineto_output: bool = False,
    trace_path: str | None = None,
    flush_l2: bool = True,
    with_multiple_kernels: bool = False,
    barrier: Callable[[], object] | None = None,
) -> float | tuple[float, ...]:
    """Mean GPU time of the named kernels, per launch, in seconds.

    Args:
        fn: launches the kernels on the current stream; called once beforehand.
        kernel_names: substrings, each to find one kernel. Of a tuple, some may find none: 0.0.
        num_tests: measured calls.
        suppress_kineto_output: silence stdout and stderr while profiling.
        trace_path: where to write a Chrome trace.
        flush_l2: overwrite a buffer of several times the L2 before each call.
        with_multiple_kernels: a substring may find several kernels; their launches are averaged.
        barrier: called before each call, unmeasured.

    Returns:
        A float for a string, a tuple for a tuple; 1 for each name under DG_USE_NVIDIA_TOOLS=1.

    Raises:
        ArgumentError: no name finds a kernel, or one finds several and may not.
        DeepGemmError: there is no CUDA device, or the profiler's record stayed incomplete.
    """
    names = (kernel_names,) if isinstance(kernel_names, str) else kernel_names
    times = (1.0,) * len(names)
    if not knobs.use_nvidia_tools.get():
        require_cuda()
        fn()
        with suppress_stdout_stderr() if suppress_kineto_output else empty_suppress():
            recorded = record_calls([fn] * num_tests, flush_l2, barrier, trace_path)
        events = [event for call in recorded for event in call]
        times = mean_seconds(events, names, with_multiple_kernels)
    return times[0] if isinstance(kernel_names, str) else times


def mean_seconds(
    events: Sequence[DeviceEvent], names: tuple[str, ...], with_multiple_kernels: bool
) -> tuple[float, ...]:
    """The mean duration in seconds of the events that each name finds, 0.0 where it finds none.

    Raises:
        ArgumentError: no name finds an event, or one finds several kernels and may not.
    """
    # Not above: it is 2 of the 30 ms of `import deep_gemm`, which every process waits for.
    from statistics import fmean

    found = [[event for event in events if name in event.name] for name in names]
    if not any(found):
        seen = sorted({event.name for event in events})
        raise ArgumentError(f"kernel_names: one of {names} must be in a kernel's name, got {seen}")
    for name, matches in zip(names, found, strict=True):
        kernels = sorted({event.name for event in matches})
        if len(kernels) > 1 and not with_multiple_kernels:
            raise ArgumentError(f"kernel_names: {name!r} must find one kernel, got {kernels}")
    return tuple(
        fmean(event.duration for event in matches) / 1e6 if matches else 0.0 for matches in found
    )


def bench(
    fn: Callable[[], object],
    num_warmups: int = 5,
    num_tests: int = 10,
    high_precision: bool = False,
) -> float:
    """Mean time of a call in seconds, by CUDA events around num_tests calls back to back.

    Args:
        fn: launches work on the current stream.
        num_warmups: calls beforehand.
        num_tests: measured calls.
        high_precision: keep the GPU busy until the calls are queued, so that the host's time per
            call does not count.

    Raises:
        DeepGemmError: there is no CUDA device.
    """
    require_cuda()
    for _ in range(num_warmups):
        fn()
    l2_flush()()
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    if high_precision:
        spin(_BUSY_CYCLES)
    start.record()
    for _ in range(num_tests):
        fn()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / num_tests / 1e3


def host_time(fn: Callable[[], object], repeats: int = 200) -> float:
    """Median host time of a call in microseconds.

    The device is waited for between small groups of calls, outside what is measured: a launch into
    a full queue would wait for the GPU.

    Args:
        fn: launches work, and returns without waiting for it; called once beforehand.
        repeats: measured calls.
    """
    from statistics import median

    fn()
    times = []
    for index in range(repeats):
        if index % _HOST_CALLS_PER_SYNC == 0:
            _synchronize()
        start = time.perf_counter_ns()
        fn()
        times.append((time.perf_counter_ns() - start) / 1e3)
    _synchronize()
    return median(times)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
