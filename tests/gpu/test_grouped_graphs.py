"""Grouped products in CUDA graphs: group sizes are what the device holds at each replay."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from deep_gemm import (
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from tests.grouped_calls import (
    check_contiguous,
    check_k_grouped,
    check_masked,
    run_contiguous,
    run_k_grouped,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import (
    Layout,
    exact_operand,
    flat_operand,
    of_ends,
    poison,
    row_ids,
)

FIRST_CALLS = """
import sys
from tests.gpu import test_grouped_graphs as tests
tests.Replayed.captures_the_first = sys.argv[1] == "captured"
tests.contiguous(tests.IDS)
tests.contiguous(tests.ENDS)
tests.masked()
tests.k_grouped()
"""


class Replayed:
    """A call that is captured, and from then on replayed with other values.

    Tensors of later calls are copied into those of the first; everything else must stay the same.
    """

    captures_the_first = False
    """Whether no call is made before the captured one, for which kernels must be on disk."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call
        self.graph: torch.cuda.CUDAGraph | None = None
        self.held: list[torch.Tensor] = []

    def __call__(self, a, b, d, *rest: object, **options: object) -> None:  # type: ignore[no-untyped-def]
        tensors = [*a, *b, *(value for value in rest if isinstance(value, torch.Tensor)), d]
        if self.graph is None:
            self.held = tensors
            if not self.captures_the_first:
                before = d.clone()
                self.call(a, b, d, *rest, **options)
                d.copy_(before)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.call(a, b, d, *rest, **options)
        for held, tensor in zip(self.held, tensors, strict=True):
            if held is not tensor:
                held.copy_(tensor)
        self.graph.replay()
        if self.held[-1] is not d:
            d.copy_(self.held[-1])


IDS = [
    row_ids(segments, 16, num_groups=4, m=400)
    for segments in (
        [(0, 100), (1, 16), (2, 200), (3, 50)],
        [(3, 300), (-1, 96)],
        [(-1, 400)],
        [(1, 1), (-1, 64), (0, 5), (2, 16), (3, 16), (1, 270)],
    )
]
ENDS = [
    of_ends(ends, 16, m=400)
    for ends in ([100, 128, 328, 396], [400, 400, 400, 400], [0, 0, 0, 0], [0, 5, 5, 30])
]


def contiguous(layouts: list[Layout]) -> None:
    call = Replayed(m_grouped_fp8_gemm_nt_contiguous)
    for seed, layout in enumerate(layouts):
        a = poison(exact_operand((400, 400), 1, "cuda", seed), layout.row_groups < 0)
        b = exact_operand((4, 264, 400), 128, "cuda", seed + 9)
        check_contiguous(run_contiguous(a, b, layout, call=call), a, b, layout)


def masked() -> None:
    call = Replayed(m_grouped_fp8_gemm_nt_masked)
    for seed, masked_m in enumerate([[100, 0, 130, 7], [0, 0, 0, 0], [1, 130, 0, 130], [7] * 4]):
        a = exact_operand((4, 130, 400), 1, "cuda", seed)
        poison(a, ~valid_rows(masked_m, 130))
        b = exact_operand((4, 264, 400), 128, "cuda", seed + 9)
        d = run_masked(a, b, masked_m, 64, call=call)
        check_masked(d, a, b, masked_m)


def k_grouped() -> None:
    call = Replayed(k_grouped_fp8_gemm_nt_contiguous)
    for seed, ks in enumerate([[128, 384, 256], [0, 768, 0], [640, 0, 128], [256, 256, 256]]):
        a, b = flat_operand(136, ks, "cuda", seed), flat_operand(264, ks, "cuda", seed + 9)
        d, _ = run_k_grouped(a, b, ks, sizes_on_host=False, call=call)
        check_k_grouped(d, a, b, ks)


@pytest.mark.parametrize("layouts", [IDS, ENDS], ids=["ids", "ends"])
def test_contiguous(layouts: list[Layout]) -> None:
    contiguous(layouts)


def test_masked() -> None:
    masked()


def test_k_grouped() -> None:
    k_grouped()


def test_a_call_does_not_wait_for_the_device() -> None:
    """A host that read group sizes would wait for the kernels ahead of the call."""
    layout = IDS[0]
    a, b = exact_operand((400, 400), 1, "cuda"), exact_operand((4, 264, 400), 128, "cuda")
    d = torch.empty(400, 264, device="cuda", dtype=torch.bfloat16)
    ids = layout.grouped_layout.cuda()
    ks = [128, 384]
    x, y = flat_operand(136, ks, "cuda"), flat_operand(264, ks, "cuda")
    gradient = torch.empty(2, 136, 264, device="cuda")
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)

    def calls() -> None:
        m_grouped_fp8_gemm_nt_contiguous(a, b, d, ids)
        k_grouped_fp8_gemm_nt_contiguous(x, y, gradient, None, sizes)

    calls()
    torch.cuda.synchronize()
    done = torch.cuda.Event()
    torch.cuda._sleep(500_000_000)
    calls()
    done.record()
    assert not done.query(), "a quarter of a second of waiting lies ahead of the calls"
    torch.cuda.synchronize()


def test_the_first_calls_of_a_process_may_be_under_capture(request: pytest.FixtureRequest) -> None:
    """DG#443, and commit 723a003."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for order in ("plain", "captured"):
        done = subprocess.run(
            [sys.executable, "-c", FIRST_CALLS, order],
            cwd=request.config.rootpath,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, done.stderr
