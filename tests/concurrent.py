"""Eight threads that call everything at once, and a fork in between; for any device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext

import torch

from deep_gemm import override, quantize_per_token
from deep_gemm.testing import assert_bitwise_equal
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_k_grouped,
    check_masked,
    run_contiguous,
    run_dense,
    run_k_grouped,
    run_masked,
)
from tests.grouped_operands import exact_operand, flat_operand, row_ids

NUM_THREADS = 8

Work = Callable[[int], None]
"""One call and its check; the argument makes values, and some sizes, differ."""


def dense(device: str) -> Work:
    def work(seed: int) -> None:
        a = exact_operand((20 + seed, 144), 1, device, seed)
        b = exact_operand((48, 144), 128, device, seed + 1)
        # A setting of this thread alone: of how many multiprocessors, so how many CTAs.
        with override(num_sms=1 + seed % 3):
            d, _ = run_dense(a, b)
        check_dense(d, a, b)

    return work


def same_plan(device: str) -> Work:
    """Only addresses and values differ between its threads."""

    def work(seed: int) -> None:
        a, b = exact_operand((16, 144), 1, device, seed), exact_operand((16, 144), 1, device, 1)
        d, _ = run_dense(a, b, torch.float32, gran_n=1)
        check_dense(d, a, b, 1)

    return work


def grouped(device: str) -> Work:
    layout = row_ids([(1, 5), (0, 20)], 128)

    def work(seed: int) -> None:
        m = layout.grouped_layout.numel()
        a = exact_operand((m, 144), 1, device, seed)
        b = exact_operand((2, 16, 144), 128, device, seed + 1)
        check_contiguous(run_contiguous(a, b, layout), a, b, layout)

    return work


def masked(device: str) -> Work:
    def work(seed: int) -> None:
        a = exact_operand((2, 20, 144), 1, device, seed)
        b = exact_operand((2, 16, 144), 128, device, seed + 1)
        rows = [seed, 20 - seed]
        check_masked(run_masked(a, b, rows), a, b, rows)

    return work


def k_grouped(device: str) -> Work:
    def work(seed: int) -> None:
        ks = [128, 0, 256]
        a, b = flat_operand(16, ks, device, seed), flat_operand(24, ks, device, seed + 5)
        d, _ = run_k_grouped(a, b, ks)
        check_k_grouped(d, a, b, ks)

    return work


def cast(device: str) -> Work:
    def work(seed: int) -> None:
        row = 2.0 ** torch.arange(-4, 4, device=device)
        x = (row.repeat(16) * (1 + seed)).expand(5, 128).contiguous()
        data, sf = quantize_per_token(x, mn_major=False)
        assert_bitwise_equal(sf, (x.amax(1, keepdim=True) / 448))
        assert data.float().amax() == 448

    return work


KINDS = (dense, same_plan, same_plan, grouped, masked, k_grouped, cast, dense)
"""What each thread does."""


def check_threads(device: str, num_calls: int) -> None:
    """They begin at once, each on a stream of its own where there are streams."""
    barrier = threading.Barrier(NUM_THREADS)
    failures: list[BaseException] = []

    def run(i: int) -> None:
        stream = torch.cuda.stream(torch.cuda.Stream()) if device != "cpu" else nullcontext()
        work = KINDS[i](device)
        try:
            with stream:
                barrier.wait()
                for call in range(num_calls):
                    work(i + call % 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(NUM_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
