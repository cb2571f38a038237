"""How profiled work is given to calls, on a pretended GPU whose profiler loses events."""

from __future__ import annotations

import importlib
import os
import random
from collections.abc import Callable

import pytest
import torch

from deep_gemm.errors import ArgumentError, DeepGemmError
from deep_gemm.testing import profiler
from deep_gemm.testing.bench import (
    bench_kineto,
    host_time,
    mean_seconds,
    profile_kernels,
    suppress_stdout_stderr,
)
from deep_gemm.testing.profiler import (
    DeviceEvent,
    record_calls,
    record_rested_calls,
    split_at_markers,
)

# By name, as the package's attribute of this name is the function.
bench_module = importlib.import_module("deep_gemm.testing.bench")

SPIN = "at::cuda::(anonymous namespace)::spin_kernel(long)"
FLUSH = "Memset (Device)"
REST = "rest"


class PretendedGpu:
    """Runs launches one after the other, and profiles them with a loss at each session's start."""

    def __init__(self, lost: list[int]) -> None:
        self.lost = lost
        self.sessions: list[list[str]] = []
        self.events: list[DeviceEvent] = []
        self.num_launches = 0

    def kernel(self, name: str, duration: float) -> Callable[[], None]:
        def launch() -> None:
            start = self.events[-1].start + 100.0 if self.events else 0.0
            self.events.append(DeviceEvent(name, start, duration))
            self.num_launches += 1

        return launch

    def record(
        self, launch: Callable[[], None], num_primers: int, trace_path: str | None
    ) -> list[DeviceEvent]:
        self.events = []
        for _ in range(num_primers):
            self.kernel("fill", 1.0)()
        launch()
        self.sessions.append([event.name for event in self.events[num_primers:]])
        seen = self.events[self.lost[min(len(self.sessions), len(self.lost)) - 1] :]
        return random.Random(0).sample(seen, len(seen))


@pytest.fixture
def make_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PretendedGpu]:
    def make(lost: list[int]) -> PretendedGpu:
        gpu = PretendedGpu(lost)
        monkeypatch.setattr(profiler, "_record", gpu.record)
        monkeypatch.setattr(profiler, "spin", lambda cycles: gpu.kernel(SPIN, 1.0)())
        monkeypatch.setattr(profiler, "l2_flush", lambda: gpu.kernel(FLUSH, 80.0))
        monkeypatch.setattr(profiler, "rest", gpu.kernel(REST, 4000.0))
        for module in (profiler, bench_module):
            monkeypatch.setattr(module, "require_cuda", lambda: None)
        return gpu

    return make


def event(name: str, start: float, duration: float = 1.0) -> DeviceEvent:
    return DeviceEvent(name, start, duration)


def test_split_at_markers_orders_by_start_time() -> None:
    events = [event("b", 5), event(SPIN, 4), event("a2", 3), event(SPIN, 1), event("a1", 2)]
    sections = split_at_markers([*events, event("before", 0)])
    assert [[e.name for e in section] for section in sections] == [["before"], ["a1", "a2"], ["b"]]
    assert split_at_markers([]) == [[]]


def test_record_calls_gives_each_call_its_own_events(make_gpu) -> None:
    gpu = make_gpu([0])
    a, b = gpu.kernel("a", 7.0), gpu.kernel("b", 9.0)
    events = record_calls([a, lambda: (b(), a()), lambda: None], flush_l2=True)
    assert [[e.name for e in call] for call in events] == [["a"], ["b", "a"], []]
    assert gpu.sessions[0][:5] == [FLUSH, SPIN, "a", SPIN, FLUSH]


def test_barrier_comes_after_the_flush_and_is_not_recorded(make_gpu) -> None:
    gpu = make_gpu([0])
    barrier, a = gpu.kernel("barrier", 5.0), gpu.kernel("a", 7.0)
    events = record_calls([a, a], flush_l2=True, barrier=barrier)
    assert [[e.name for e in call] for call in events] == [["a"], ["a"]]
    assert gpu.sessions[0][:5] == [FLUSH, "barrier", SPIN, "a", SPIN]


def test_a_rest_comes_before_the_flush(make_gpu) -> None:
    gpu = make_gpu([0])
    a = gpu.kernel("a", 7.0)
    events = record_rested_calls([a, a], flush_l2=True)
    assert [[e.name for e in call] for call in events] == [["a"], ["a"]]
    assert gpu.sessions[0] == [REST, FLUSH, SPIN, "a", SPIN] * 2


def test_without_flush_nothing_is_overwritten(make_gpu) -> None:
    gpu = make_gpu([0])
    record_calls([gpu.kernel("a", 7.0)], flush_l2=False)
    assert gpu.sessions == [[SPIN, "a", SPIN]]


@pytest.mark.parametrize(
    ("lost", "num_sessions"),
    [
        pytest.param([0], 1, id="whole"),
        pytest.param([200], 1, id="primers_take_the_loss"),
        pytest.param([10**9, 0], 2, id="first_session_sees_nothing"),
        pytest.param([257], 2, id="first_marker_lost"),
        pytest.param([259], 2, id="first_call_lost_with_its_marker"),
        pytest.param([3000], 3, id="long_lived_process"),
    ],
)
def test_an_incomplete_record_is_made_again(make_gpu, lost: list[int], num_sessions: int) -> None:
    gpu = make_gpu(lost)
    calls = [gpu.kernel(f"k{i}", float(i)) for i in range(5)]
    events = record_calls(calls, flush_l2=False)
    assert len(gpu.sessions) == num_sessions
    assert [[(e.name, e.duration) for e in c] for c in events] == [[(f"k{i}", i)] for i in range(5)]


@pytest.mark.parametrize(("lost", "found"), [(10**9, 0), (256 * 4**3 + 1, 3)])
def test_a_record_that_stays_incomplete_is_an_error(make_gpu, lost: int, found: int) -> None:
    gpu = make_gpu([lost])
    with pytest.raises(DeepGemmError, match=rf"recorded {found} of 4 marker kernels"):
        record_calls([gpu.kernel("a", 7.0)] * 2, flush_l2=False)


def test_a_call_that_launches_markers_itself_is_an_error(make_gpu) -> None:
    gpu = make_gpu([0])
    with pytest.raises(DeepGemmError, match="recorded 3 of 2 marker kernels"):
        record_calls([gpu.kernel(SPIN, 1.0)], flush_l2=False)


def test_profile_kernels_runs_in_turn_and_sums_kernels(make_gpu) -> None:
    gpu = make_gpu([10**9, 100])
    a, b = gpu.kernel("a", 7.0), gpu.kernel("b", 9.5)
    assert profile_kernels([a, lambda: (b(), a())], repeats=3) == [[7.0] * 3, [16.5] * 3]
    assert [name for name in gpu.sessions[1] if name in "ab"] == ["a", "b", "a"] * 3


def test_profile_kernels_keeps_repeats_apart(make_gpu) -> None:
    gpu = make_gpu([0])
    durations = iter([1.0, 2.0, 10.0, 3.0, 20.0, 4.0, 30.0])

    def a() -> None:
        gpu.kernel("a", next(durations))()

    a()
    assert profile_kernels([a, a], repeats=2) == [[3.0, 4.0], [20.0, 30.0]]


def test_profile_kernels_refuses_a_call_without_work(make_gpu) -> None:
    gpu = make_gpu([0])
    with pytest.raises(DeepGemmError, match=r"calls\[1\] launched no work"):
        profile_kernels([gpu.kernel("a", 1.0), lambda: None])


def test_bench_kineto_is_right_in_the_first_session_of_a_process(make_gpu) -> None:
    gpu = make_gpu([10**9, 0])
    seconds = bench_kineto(gpu.kernel("sm90_fp8_gemm_1d2d", 12.0), "gemm_", num_tests=4)
    assert seconds == pytest.approx(12e-6)
    assert gpu.sessions[1].count("sm90_fp8_gemm_1d2d") == 4


def test_bench_kineto_gives_a_tuple_for_a_tuple(make_gpu) -> None:
    gpu = make_gpu([0])
    gemm, reduce = gpu.kernel("nvjet_x", 12.0), gpu.kernel("splitk_reduce", 2.0)

    def fn() -> None:
        gemm()
        reduce()
        reduce()

    names = ("nvjet", "reduce", "gemv")
    assert bench_kineto(fn, names) == pytest.approx((12e-6, 2e-6, 0.0))
    assert bench_kineto(fn, ("nvjet",)) == pytest.approx((12e-6,))


def test_bench_kineto_does_not_see_the_flush(make_gpu) -> None:
    gpu = make_gpu([0])
    with pytest.raises(ArgumentError, match=r"got \['a'\]"):
        bench_kineto(gpu.kernel("a", 12.0), "Memset")


def test_bench_kineto_averages_over_launches_of_different_length(make_gpu) -> None:
    gpu = make_gpu([0])
    durations = iter([99.0, 1.0, 2.0, 6.0])

    def fn() -> None:
        gpu.kernel("k", next(durations))()

    assert bench_kineto(fn, "k", num_tests=3) == pytest.approx(3e-6)


def test_bench_kineto_measures_nothing_beside_nvidia_tools(monkeypatch) -> None:
    monkeypatch.setenv("DG_USE_NVIDIA_TOOLS", "1")
    assert bench_kineto(pytest.fail, "k") == 1
    assert bench_kineto(pytest.fail, ("k", "l")) == (1, 1)


def test_a_name_must_find_one_kernel() -> None:
    events = [event("gemm_a", 0, 2.0), event("gemm_b", 9, 4.0), event("gemm_b", 20, 6.0)]
    assert mean_seconds(events, ("_b",), False) == (5e-6,)
    assert mean_seconds(events, ("gemm",), True) == (4e-6,)
    with pytest.raises(ArgumentError, match=r"'gemm' must find one kernel, got \['gemm_a', 'gemm_"):
        mean_seconds(events, ("_a", "gemm"), False)
    with pytest.raises(
        ArgumentError, match=r"\('copy',\) must be in a kernel's name, got \['gemm_a"
    ):
        mean_seconds(events, ("copy",), True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
def test_timing_kernels_without_a_gpu_is_an_error() -> None:
    for timer in (
        lambda: profile_kernels([]),
        lambda: bench_kineto(pytest.fail, "k"),
        lambda: bench_module.bench(pytest.fail),
    ):
        with pytest.raises(DeepGemmError, match="CUDA device"):
            timer()


def test_host_time_is_the_median_and_waits_outside(monkeypatch) -> None:
    now = 0
    costs = iter([10**9, *[3000] * 6, *[50_000] * 4, *[2000] * 7])
    syncs = []

    def fn() -> None:
        nonlocal now
        now += next(costs)

    def synchronize() -> None:
        nonlocal now
        now += 10**6
        syncs.append(now)

    monkeypatch.setattr(bench_module.time, "perf_counter_ns", lambda: now)
    monkeypatch.setattr(bench_module, "_synchronize", synchronize)
    assert host_time(fn, repeats=17) == 3.0
    assert len(syncs) == 4


def test_suppress_stdout_stderr_reaches_below_python(capfd) -> None:
    def shout() -> None:
        with suppress_stdout_stderr():
            print("python")
            os.write(1, b"raw stdout")
            os.write(2, b"raw stderr")
            raise KeyError

    with pytest.raises(KeyError):
        shout()
    os.write(1, b"after")
    captured = capfd.readouterr()
    assert captured.out == "after"
    assert captured.err == ""
