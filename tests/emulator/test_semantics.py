"""What callers of the reference library rely on and is easily got wrong, point by point, as far as
no other test shows it.

Elsewhere, in this folder unless said otherwise:
- scale factors in any layout, with NaN between them: `test_scale_factors_*` and
  `test_what_padding_holds_does_not_matter` of test_grouped_kernels.py and test_dense_kernel.py;
- both orders of arguments, old keywords, zero scale factors on NaN: test_fake_engines.py;
- k of 0, no rows, no columns: `test_an_empty_output_is_no_work`, `test_k_of_zero_gives_c_or_zero`;
- C given, given as D, or none: `test_every_output_and_recipe`;
- groups by ids and by ends, empty ones, blocks of padding, a last block that is partial:
  `test_row_ids` and `test_row_ends`;
- masked groups, m_max of any size, no rows at all: `test_masked`;
- groups along K, empty ones anywhere, sizes on the device alone: `test_k_grouped` and
  `test_k_grouped_with_sizes_on_the_device_alone`; `test_the_device_has_the_last_word` in tests/gpu;
- CUDA graphs, and no synchronisation: tests/gpu/test_grouped_graphs.py;
- settings: tests/host/test_settings.py; refusals: tests/host/test_refused_*.py; import:
  tests/host/test_import.py; few kernels, chosen by the sizes alone: tests/host/test_config.py; the
  cache's directory read at the first build: tests/host/test_build.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
    set_mk_alignment_for_contiguous_layout,
    set_num_sms,
)
from deep_gemm.runtime.emulated import EmulatedPlan
from deep_gemm.testing import assert_bitwise_equal
from tests.emulator.arch import each_arch, sm90_only
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_masked,
    mk_alignment,
    run_contiguous,
    run_dense,
    run_masked,
)
from tests.grouped_operands import (
    Operand,
    exact_operand,
    flat_operand,
    poison,
    row_ends,
    row_ids,
    sf_layouts,
)

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

BF16, FP32 = torch.bfloat16, torch.float32
N, K = 24, 144


@pytest.fixture(autouse=True)
def few_sms() -> Iterator[None]:
    set_num_sms(2)
    yield
    set_num_sms(0)


def launched(call: Callable[[], object]) -> list[str]:
    """The kernels that a call launched."""
    names = []
    launch = EmulatedPlan.launch

    def recorded(plan: EmulatedPlan, *addresses: int, **more: Any) -> None:
        names.append(plan._launch.kernel.entry)
        launch(plan, *addresses, **more)

    with mock.patch.object(EmulatedPlan, "launch", recorded):
        call()
    return names


def strided(tensor: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """The same values at other strides, with NaN between them."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, strides, strict=True))
    storage = torch.full((last + 1,), math.nan)
    return storage.as_strided(tensor.shape, strides).copy_(tensor)


# 4.2: scale factors


@pytest.mark.parametrize("gran_n", [1, 128])
@pytest.mark.parametrize("strides", [(1, 1), (1, 7), (5, 1), (4, 12)], ids=str)
def test_dimensions_of_one_may_have_any_stride(gran_n: int, strides: tuple[int, int]) -> None:
    """One row, or one k block: torch gives such dimensions strides that mean nothing."""
    for m, k in ((1, 16), (1, 272), (6, 16)):
        a, b = exact_operand((m, k), 1, "cpu"), exact_operand((8, k), gran_n, "cpu", 1)
        rows, num_k_blocks = a[1].shape
        row_stride, step = strides
        if rows > 1 and num_k_blocks == 1:
            laid_out = strided(a[1], (max(row_stride, 1), step))
        else:
            laid_out = strided(a[1], (row_stride, max(step, 1)))
        sfb = strided(b[1], (step if b[1].shape[0] == 1 else row_stride, 1)) if k == 16 else b[1]
        d, _ = run_dense((a[0], laid_out), (b[0], sfb), FP32, gran_n)
        check_dense(d, a, b, gran_n)


@sm90_only
@pytest.mark.parametrize("layout_name", sf_layouts(torch.ones(6, 3)))
def test_scale_factors_of_weights_per_block_take_no_launch(layout_name: str) -> None:
    """Nor do those of activations: the GEMM loads them as they are."""
    a, b = exact_operand((6, 272), 1, "cpu"), exact_operand((136, 272), 128, "cpu", 1)
    laid_out = (a[0], sf_layouts(a[1])[layout_name]), (b[0], sf_layouts(b[1])[layout_name])
    d = torch.empty(6, 136, dtype=BF16)
    (name,) = launched(lambda: fp8_gemm_nt(*laid_out, d))
    assert "gemm_" in name


@sm90_only
def test_launches_for_scale_factors_are_named_for_what_they_do() -> None:
    """Profiles are searched for "gemm_" and "transpose": each must find one kernel."""
    a, b = exact_operand((6, 272), 1, "cpu"), exact_operand((24, 272), 1, "cpu", 1)
    d = torch.empty(6, 24, dtype=FP32)
    names = launched(lambda: fp8_gemm_nt(a, b, d, recipe=(1, 1, 128)))
    assert len({name for name in names if "transpose" in name}) == 1
    assert len({name for name in names if "gemm_" in name}) == 1
    assert all(("transpose" in name) != ("gemm_" in name) for name in names)


@sm90_only
def test_disable_ue8m0_cast_changes_nothing() -> None:
    """The scale factors are no powers of two, and are used as they are either way."""
    (x, sfa), b = exact_operand((6, K), 1, "cpu"), exact_operand((N, K), 128, "cpu", 1)
    results = []
    for disable in (False, True):
        d = torch.empty(6, N, dtype=FP32)
        fp8_gemm_nt((x, sfa * 1.25), b, d, disable_ue8m0_cast=disable)
        results.append(d)
    assert_bitwise_equal(*results)
    check_dense(results[0], (x, sfa * 1.25), b)


# 4.3: nothing to do


@pytest.mark.parametrize(("m", "n"), [(0, N), (6, 0)])
def test_without_rows_or_columns_scale_factors_and_c_are_not_looked_at(m: int, n: int) -> None:
    a = torch.empty(m, K).to(torch.float8_e4m3fn), torch.empty(3, 3)
    b = torch.empty(n, K).to(torch.float8_e4m3fn), torch.empty(3, 3, dtype=torch.int32)
    d = torch.empty(m, n, dtype=BF16)
    assert launched(lambda: fp8_gemm_nt(a, b, d, c=torch.empty(1, 1))) == []


@pytest.mark.parametrize("shape", [(0, 6, N), (2, 0, N), (2, 6, 0)])
def test_groups_along_k_without_an_output_are_no_work(shape: tuple[int, int, int]) -> None:
    groups, m, n = shape
    ks = [128] * groups
    d = torch.empty(shape, dtype=FP32)
    sizes = torch.tensor(ks, dtype=torch.int32)
    a, b = flat_operand(m, ks, "cpu"), flat_operand(n, ks, "cpu")
    assert launched(lambda: k_grouped_fp8_gemm_nt_contiguous(a, b, d, ks, sizes)) == []


# 4.5: contiguous groups


def grouped(num_rows: int, num_groups: int) -> tuple[Operand, Operand]:
    return (
        exact_operand((num_rows, K), 1, "cpu"),
        exact_operand((num_groups, N, K), 128, "cpu", 1),
    )


def test_groups_by_ids_and_by_ends_run_the_same_kernel() -> None:
    """An engine that warms up with ids and serves with ends compiles nothing while it serves."""
    ids, ends = row_ids([(0, 5), (1, 20)], 16), row_ends([5, 20], 16)
    names = []
    for layout in (ids, ends):
        a, b = grouped(len(layout.row_groups), 2)
        names += launched(lambda: run_contiguous(a, b, layout))  # noqa: B023
    names = [name for name in names if "gemm_" in name]
    assert len(names) == 2
    assert len(set(names)) == 1


def test_an_id_may_be_named_by_the_older_keyword() -> None:
    layout = row_ids([(1, 5), (0, 20)], 16)
    a, b = grouped(len(layout.row_groups), 2)

    def call(a: Operand, b: Operand, d: torch.Tensor, ids: torch.Tensor) -> None:
        m_grouped_fp8_gemm_nt_contiguous(a, b, d, m_indices=ids)

    check_contiguous(run_contiguous(a, b, layout, call=call), a, b, layout)


@pytest.mark.parametrize("alignment", [16, 128])
@pytest.mark.parametrize("other", [0, 1, 2**31 - 1])
def test_padding_may_carry_any_id(alignment: int, other: int) -> None:
    """Callers that fill ids block by block, or from zeros; the reference reads the first of a block
    alone. What comes out in padding is for nobody."""
    layout = row_ids([(1, 5), (0, 7)], alignment)
    a, b = grouped(len(layout.row_groups), 2)
    poison(a, layout.row_groups < 0)
    ids = torch.where(layout.row_groups < 0, other, layout.row_groups)
    d = torch.full((len(ids), N), math.nan, dtype=BF16)
    with mk_alignment(alignment):
        m_grouped_fp8_gemm_nt_contiguous(a, b, d, ids)
    check_contiguous(d, a, b, layout)


# 4.6: the alignment


def test_a_call_takes_the_alignment_that_holds_when_it_is_made() -> None:
    """The same tensors mean other groups: their beginnings follow from the ends."""
    ends = [5, 40]
    layouts = [row_ends([5, 24], 16), row_ends([5, 8], 32)]
    assert all(layout.grouped_layout.tolist() == ends for layout in layouts)
    a, b = grouped(64, 2)
    for layout in (*layouts, *layouts):
        rows = len(layout.row_groups)
        mine = a[0][:rows], a[1][:rows]
        check_contiguous(run_contiguous(mine, b, layout), mine, b, layout)


def test_an_engine_may_set_and_restore_the_alignment_around_every_call() -> None:
    layout = row_ids([(0, 5), (1, 20)], 16)
    a, b = grouped(len(layout.row_groups), 2)
    for _ in range(2):
        with mk_alignment(64):
            set_mk_alignment_for_contiguous_layout(16)
            check_contiguous(run_contiguous(a, b, layout), a, b, layout)


# 4.7: masked groups


@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 3)], ids=str)
def test_masked_m_may_have_any_shape(shape: tuple[int, ...]) -> None:
    masked_m = [3, 0, 6]
    a, b = exact_operand((3, 6, K), 1, "cpu"), exact_operand((3, N, K), 128, "cpu", 1)

    def call(a: Operand, b: Operand, d: torch.Tensor, sizes: torch.Tensor, expected: int) -> None:
        m_grouped_fp8_gemm_nt_masked(a, b, d, sizes.view(shape), expected)

    check_masked(run_masked(a, b, masked_m, call=call), a, b, masked_m)


@pytest.mark.parametrize("expected_m", [1, 3, 10**6])
def test_expected_m_is_a_hint(expected_m: int) -> None:
    """More than m_max, or less than there is: engines pass estimates."""
    masked_m = [20, 0, 3]
    a, b = exact_operand((3, 24, K), 1, "cpu"), exact_operand((3, N, K), 128, "cpu", 1)
    check_masked(run_masked(a, b, masked_m, expected_m), a, b, masked_m)


# 4.10: the process


def test_a_call_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    a, b = exact_operand((6, K), 1, "cpu"), exact_operand((N, K), 128, "cpu", 1)
    d = torch.empty(6, N, dtype=BF16)
    for _ in range(2):
        fp8_gemm_nt(a, b, d)
    assert capfd.readouterr() == ("", "")
