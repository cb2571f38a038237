"""What callers rely on, where a GPU shows what the emulator cannot: launches and profiles. The list
of all points is in tests/emulator/test_semantics.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.testing import bench_kineto
from deep_gemm.testing.profiler import record_calls
from tests.grouped_operands import exact_operand, flat_operand, row_ends, row_ids, sf_layouts

N, K = 272, 1152


def kernels_of(call: Callable[[], object]) -> list[str]:
    """The kernels of a call that was made before."""
    call()
    (events,) = record_calls([call], flush_l2=False)
    return [event.name for event in events]


@pytest.mark.parametrize("m", [1, 6, 130])
@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
def test_a_linear_layer_is_one_launch_whatever_the_layout(layout_name: str, m: int) -> None:
    a, b = exact_operand((m, K), 1, "cuda"), exact_operand((N, K), 128, "cuda", 1)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    d = torch.empty(m, N, dtype=torch.bfloat16, device="cuda")
    assert len(kernels_of(lambda: fp8_gemm_nt(*laid_out, d))) == 1


@pytest.mark.parametrize("by_ends", [False, True])
@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
def test_experts_are_one_launch_whatever_the_layout(layout_name: str, by_ends: bool) -> None:
    rows = (130, 0, 3)
    layout = row_ends(rows, 128) if by_ends else row_ids(list(enumerate(rows)), 128, 3)
    a = exact_operand((len(layout.row_groups), K), 1, "cuda")
    b = exact_operand((3, N, K), 128, "cuda", 1)
    a = a[0], sf_layouts(a[1])[layout_name]
    d = torch.empty(len(layout.row_groups), N, dtype=torch.bfloat16, device="cuda")
    index = layout.grouped_layout.cuda()
    options = {"use_psum_layout": by_ends}
    names = kernels_of(lambda: m_grouped_fp8_gemm_nt_contiguous(a, b, d, index, **options))
    assert len(names) == 1


def dense() -> None:
    a, b = exact_operand((64, K), 1, "cuda"), exact_operand((N, K), 1, "cuda", 1)
    fp8_gemm_nt(a, b, torch.empty(64, N, device="cuda"), recipe=(1, 1, 128))


def masked() -> None:
    a, b = exact_operand((3, 64, K), 1, "cuda"), exact_operand((3, N, K), 128, "cuda", 1)
    d = torch.empty(3, 64, N, dtype=torch.bfloat16, device="cuda")
    sizes = torch.tensor([64, 0, 3], dtype=torch.int32, device="cuda")
    m_grouped_fp8_gemm_nt_masked(a, b, d, sizes, 32)


def k_grouped() -> None:
    ks = [128, 0, 1024]
    a, b = flat_operand(64, ks, "cuda"), flat_operand(N, ks, "cuda", 1)
    sizes = torch.tensor(ks, dtype=torch.int32, device="cuda")
    k_grouped_fp8_gemm_nt_contiguous(a, b, torch.empty(3, 64, N, device="cuda"), ks, sizes)


@pytest.mark.parametrize("call", [dense, masked, k_grouped], ids=lambda call: call.__name__)
def test_a_profile_has_one_gemm(call: Callable[[], None]) -> None:
    """Benchmarks search it for "gemm_", and want one kernel; transposes have their own name."""
    seconds = bench_kineto(call, "gemm_", num_tests=3)
    assert isinstance(seconds, float)
    assert 0 < seconds < 1e-2


def test_a_profile_has_one_transpose() -> None:
    gemm, transpose = bench_kineto(dense, ("gemm_", "transpose"), num_tests=3)  # type: ignore[misc]
    assert gemm > 0
    assert transpose > 0
