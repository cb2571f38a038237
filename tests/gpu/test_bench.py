"""The profiler's times against CUDA events, from a process's first session on."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.testing import bench, bench_kineto, host_time, profile_kernels

FIRST_CALL = """
import torch
from deep_gemm.testing import bench, bench_kineto

x = torch.ones(2**28, device="cuda")
print(bench_kineto(lambda: x.mul_(1.0), "elementwise_kernel", num_tests=5, flush_l2=False))
print(bench(lambda: x.mul_(1.0)))
"""


def test_bench_kineto_is_right_in_the_first_session_of_a_process() -> None:
    command = [sys.executable, "-c", FIRST_CALL]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    profiled, timed = (float(line) for line in result.stdout.split())
    assert profiled == pytest.approx(timed, rel=0.1)


def test_profile_kernels_agrees_with_events_in_many_sessions() -> None:
    small, large = (torch.ones(size, device="cuda") for size in (2**26, 2**28))
    calls = [lambda: small.mul_(1.0), lambda: large.mul_(1.0)]
    expected = [bench(call) * 1e6 for call in calls]
    for _ in range(20):
        times = profile_kernels(calls, repeats=3)
        for row, event_us in zip(times, expected, strict=True):
            assert len(row) == 3
            assert sorted(row)[1] == pytest.approx(event_us, rel=0.15)


def test_all_kernels_of_a_call_are_counted() -> None:
    x, y = (torch.ones(2**26, device="cuda") for _ in range(2))
    one, both = profile_kernels([lambda: x.mul_(1.0), lambda: (x.mul_(1.0), y.mul_(1.0))])
    assert sorted(both)[5] == pytest.approx(2 * sorted(one)[5], rel=0.1)


def test_bench_kineto_names_what_it_saw() -> None:
    x = torch.ones(2**20, device="cuda")
    with pytest.raises(ArgumentError, match=r"got \['.*elementwise_kernel.*'\]"):
        bench_kineto(lambda: x.mul_(1.0), "no_such_kernel", num_tests=2)


def test_host_time_is_the_launch_not_the_kernel() -> None:
    x = torch.ones(2**28, device="cuda")
    kernel_us = bench(lambda: x.mul_(1.0)) * 1e6
    assert 0.5 < host_time(lambda: x.mul_(1.0), repeats=40) < kernel_us / 4
