"""Programmatic dependent launch: global memory is touched behind griddepcontrol.wait only."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    override,
)
from deep_gemm import (
    get_mn_major_tma_aligned_packed_ue8m0_tensor as pack,
)
from deep_gemm.call_cache import forget_calls
from deep_gemm.emulator.errors import DependencyError
from deep_gemm.jit.source import forget_headers
from deep_gemm.kernels import sm100_fp8_gemm
from tests.emulator.arch import on_arch
from tests.emulator.grouped_cases import CASES, GroupedCase
from tests.emulator.grouped_defects import GroupedDefect
from tests.emulator.small_kernels import run
from tests.emulator.test_defects import headers, seed, translated
from tests.emulator.test_grouped_defects import outcome
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
from tests.grouped_operands import exact_operand, flat_operand, row_ends, row_ids

__all__ = ["headers"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

KERNEL = "kernels/sm90_fp8_gemm.cuh"
STORE = "st.global.u32 [%mine], %tid; ret;"
FIRST_WARP_WAITS = """
setp.lt.u32 %p1, %tid, 32;
@%p1 griddepcontrol.wait;
"""
ACCESSES = {
    "a load": "ld.global.u32 %r1, [%in]; ret;",
    "a store": STORE,
    "an atomic": "red.global.add.u32 [%out], 1; ret;",
    "cp.async": "cp.async.ca.shared.global [%at], [%in], 4; cp.async.wait_all; ret;",
}


@pytest.mark.parametrize("access", ACCESSES.values(), ids=ACCESSES)
def test_an_access_without_a_wait_is_an_error(access: str) -> None:
    with pytest.raises(DependencyError, match="griddepcontrol.wait"):
        run(access, pdl=True)
    run(f"griddepcontrol.wait; {access}", pdl=True)
    run(access)


def test_an_access_before_the_wait_is_an_error() -> None:
    with pytest.raises(DependencyError):
        run(f"ld.global.u32 %r1, [%in]; griddepcontrol.wait; {STORE}", pdl=True)


def test_launching_dependents_is_no_wait() -> None:
    with pytest.raises(DependencyError):
        run(f"griddepcontrol.launch_dependents; {STORE}", pdl=True)


def test_another_warps_wait_counts_behind_a_barrier_only() -> None:
    with pytest.raises(DependencyError):
        run(f"{FIRST_WARP_WAITS} {STORE}", num_threads=64, pdl=True)
    out = run(f"{FIRST_WARP_WAITS} bar.sync 0; {STORE}", num_threads=64, pdl=True)
    assert np.array_equal(out[:64], np.arange(64))


def test_each_cluster_has_to_wait() -> None:
    body = """
    mov.u32 %r1, %ctaid.x;
    setp.eq.u32 %p1, %r1, 0;
    @%p1 griddepcontrol.wait;
    """
    with pytest.raises(DependencyError):
        run(f"{body} {STORE}", num_clusters=2, pdl=True)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gemms_wait(case: GroupedCase, headers: Path) -> None:
    """Every kind of product: also what only the math warps write, such as zeros of padding."""
    with override(pdl=True):
        assert outcome(case) == ""


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_a_gemm_that_does_not_wait_is_found(case: GroupedCase, headers: Path) -> None:
    wait = "    ptx::griddepcontrol_wait();\n"
    seed(GroupedDefect("no wait", KERNEL, wait, "", "R27", case), headers)
    with override(pdl=True):
        assert outcome(case) == "R27"
    assert outcome(case) == ""


def call_of_every_kind() -> None:
    """With padding that only the epilogue writes, a group without rows, and C."""
    a, b = exact_operand((40, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu", 1)
    d, c = run_dense(a, b, c="d")
    check_dense(d, a, b, c=c)
    weights = exact_operand((3, 48, 144), 128, "cpu", 1)
    for layout in (row_ids([(0, 3), (2, 20)], 16, 3), row_ends([3, 0, 20], 16)):
        rows = exact_operand((len(layout.row_groups), 144), 1, "cpu")
        check_contiguous(run_contiguous(rows, weights, layout), rows, weights, layout)
    rows = exact_operand((3, 20, 144), 1, "cpu")
    check_masked(run_masked(rows, weights, [3, 0, 20]), rows, weights, [3, 0, 20])
    ks = [128, 0, 256]
    a, b = flat_operand(20, ks, "cpu"), flat_operand(24, ks, "cpu", 7)
    d, c = run_k_grouped(a, b, ks, c="d")
    check_k_grouped(d, a, b, ks, c)


@pytest.mark.parametrize("num_sms", [1, 0])
def test_the_gemms_of_sm100_wait(num_sms: int) -> None:
    with on_arch("100a"), override(pdl=True, num_sms=num_sms):
        call_of_every_kind()


def test_a_gemm_of_sm100_that_does_not_wait_is_found(headers: Path) -> None:
    wait = "    if (warp < 4) ptx::griddepcontrol_wait();\n"
    header = headers / "kernels/sm100_fp8_gemm.cuh"
    text = header.read_text()
    assert text.count(wait) == 1, "the edit no longer fits"
    header.write_text(text.replace(wait, ""))
    forget_headers()
    a, b = exact_operand((40, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu", 1)
    # Packed, so that there is no kernel but the product's.
    a, b = ((x, pack(sf)) for x, sf in (a, (b[0], b[1].expand(48, -1).contiguous())))
    d = torch.empty(40, 48, dtype=torch.bfloat16)
    with on_arch("100a"), mock.patch.object(sm100_fp8_gemm, "build", translated):
        fp8_gemm_nt(a, b, d)
        forget_calls()
        with override(pdl=True), pytest.raises(DependencyError, match="griddepcontrol.wait"):
            fp8_gemm_nt(a, b, d)
