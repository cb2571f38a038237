"""What the GPU did during each of some calls, from the CUDA profiler.

The profiler's record cannot be trusted to be whole. A process's first session may see no kernel at
all, and with CUDA 12.6 to 13.0 each later session loses a few kernels more at its start (their time
stamps are wrong and the profiler drops them without a word). So a session here begins with kernels
that nobody needs, every call lies between two marker kernels, and a record in which any marker is
missing is thrown away and made again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch.profiler import DeviceType, ProfilerActivity, profile

from deep_gemm.errors import DeepGemmError

_MARKER = "spin_kernel"
_NUM_ATTEMPTS = 4
_NUM_PRIMERS = 256
_L2_MULTIPLE = 5

REST_SECONDS = 0.004
"""What a GPU rests between calls, if it does: twice what the longest kernels of the tables take."""


class DeviceEvent(NamedTuple):
    """One piece of work that a GPU did: a kernel, a copy or a fill. Times in microseconds."""

    name: str
    start: float
    duration: float


def record_calls(
    calls: Sequence[Callable[[], object]],
    flush_l2: bool,
    barrier: Callable[[], object] | None = None,
    trace_path: str | None = None,
    rests: bool = False,
) -> list[list[DeviceEvent]]:
    """Run the calls in order under the profiler.

    Args:
        calls: functions that launch work on the current stream.
        flush_l2: overwrite a buffer of several times the L2 before each call.
        barrier: called before each call; its work is not recorded.
        trace_path: where to write a Chrome trace.
        rests: leave the GPU idle for REST_SECONDS before each call. Large products take it to its
            power limit, which lowers the clock: without a rest, of two libraries the one looks
            slower that has more to do in a row.

    Returns:
        The events of each call, by start time.

    Raises:
        DeepGemmError: there is no CUDA device, or every session's record lacked something.
    """
    require_cuda()
    steps = (rest if rests else None, l2_flush() if flush_l2 else None, barrier)
    before = [step for step in steps if step is not None]

    def launch() -> None:
        for call in calls:
            for step in (*before, _mark, call, _mark):
                step()

    for attempt in range(_NUM_ATTEMPTS):
        events = _record(launch, _NUM_PRIMERS * 4**attempt, trace_path)
        sections = split_at_markers(events)
        if len(sections) == 2 * len(calls) + 1:
            return sections[1::2]
    raise DeepGemmError(
        f"the CUDA profiler recorded {len(sections) - 1} of {2 * len(calls)} marker kernels "
        f"(session {_NUM_ATTEMPTS} of {_NUM_ATTEMPTS}); is another profiler at work?"
    )


def split_at_markers(events: Sequence[DeviceEvent]) -> list[list[DeviceEvent]]:
    """The events before, between and after the markers, by start time: one list more than markers.

    A call's events are in every second list, between the two markers around it.
    """
    sections: list[list[DeviceEvent]] = [[]]
    for event in sorted(events, key=lambda event: event.start):
        if _MARKER in event.name:
            sections.append([])
        else:
            sections[-1].append(event)
    return sections


def record_rested_calls(
    calls: Sequence[Callable[[], object]], flush_l2: bool
) -> list[list[DeviceEvent]]:
    """`record_calls` on a GPU that rests before each call: for benchmarks and the tuner."""
    return record_calls(calls, flush_l2, rests=True)


def rest() -> None:
    """Wait until the GPU has nothing to do, and REST_SECONDS longer."""
    torch.cuda.synchronize()
    time.sleep(REST_SECONDS)


def l2_flush() -> Callable[[], object]:
    """A function that overwrites a buffer of several times the current device's L2."""
    l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
    return torch.empty(_L2_MULTIPLE * l2_bytes, dtype=torch.uint8, device="cuda").zero_


def spin(cycles: int) -> None:
    """Launch a kernel that only waits for so many clocks."""
    torch.cuda._sleep(cycles)  # type: ignore[no-untyped-call]


def require_cuda() -> None:
    """Check that there is a GPU.

    Raises:
        DeepGemmError: torch finds none.
    """
    if not torch.cuda.is_available():
        raise DeepGemmError("timing kernels needs a CUDA device, and torch found none")


def _mark() -> None:
    """Launch a marker: a spin kernel, which no call has reason to launch."""
    spin(1)


def _record(
    launch: Callable[[], None], num_primers: int, trace_path: str | None
) -> list[DeviceEvent]:
    """What the GPU did in one profiler session, primers included."""
    primer = torch.empty(1, device="cuda")
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(num_primers):
            primer.fill_(1.0)
        launch()
        torch.cuda.synchronize()
    if trace_path is not None:
        profiler.export_chrome_trace(trace_path)
    return [
        DeviceEvent(event.name, event.time_range.start, event.time_range.elapsed_us())
        for event in profiler.events()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
