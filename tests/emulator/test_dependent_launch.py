"""Programmatic dependent launch: global memory is touched behind griddepcontrol.wait only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deep_gemm import override
from deep_gemm.emulator.errors import DependencyError
from tests.emulator.grouped_cases import CASES, GroupedCase
from tests.emulator.grouped_defects import GroupedDefect
from tests.emulator.small_kernels import run
from tests.emulator.test_defects import headers, seed
from tests.emulator.test_grouped_defects import outcome

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
