"""FP32 scale factors on SM100 that are no powers of two: seen, and never stop the device."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator

import pytest
import torch

import deep_gemm
from deep_gemm.errors import ScaleFactorError
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.pack_ue8m0 import (
    GroupRows,
    k_grouped_pack_fp32_into_ue8m0,
    pack_fp32_into_ue8m0,
)
from deep_gemm.reports import reports_of
from tests.emulator.arch import on_arch
from tests.emulator.sm100 import operand
from tests.grouped_calls import run_contiguous, run_masked, valid_rows
from tests.grouped_operands import Operand, exact_operand, poison, row_ends, row_ids
from tests.packings import ends_of, some_of_everything

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

M, N, K = 40, 32, 400
REPORTS = reports_of(torch.device("cpu"))


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    REPORTS.clear()
    yield
    REPORTS.check()


def operands() -> tuple[Operand, Operand]:
    return exact_operand((M, K), 1, "cpu"), exact_operand((N, K), 128, "cpu", 1)


def output() -> torch.Tensor:
    return torch.empty(M, N, dtype=torch.bfloat16)


@pytest.mark.parametrize("value", [3.0, -0.0, 1e-39, math.inf, math.nan], ids=str)
@pytest.mark.parametrize("argument", ["a[1]", "b[1]"])
def test_the_next_call_raises_and_names_argument_and_value(argument: str, value: float) -> None:
    a, b = operands()
    wrong = (a if argument == "a[1]" else b)[1]
    before = wrong[0, 2].item()
    wrong[0, 2] = value
    d = output()
    deep_gemm.fp8_gemm_nt(a, b, d)
    assert d.isnan().all(1).tolist() == [argument == "b[1]" or row == 0 for row in range(M)]
    wrong[0, 2] = before
    d.fill_(7)
    got = f"argument {re.escape(argument)} .*got {torch.tensor(value).item():.7g}"
    with pytest.raises(ScaleFactorError, match=got):
        deep_gemm.fp8_gemm_nt(a, b, d)
    assert (d == 7).all()
    deep_gemm.fp8_gemm_nt(a, b, d)
    assert d.isfinite().all()


def test_calls_that_pack_nothing_raise_it_too() -> None:
    """Also those that take the short cut of calls seen before."""
    packed = [
        (x.data, x.words) for x in (operand((M, K), 128, False, 1), operand((N, K), 128, False, 2))
    ]
    d = output()
    for _ in range(3):
        deep_gemm.fp8_gemm_nt(*packed, d)
        deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(torch.full((4, 4), 5.0))
        with pytest.raises(ScaleFactorError, match="argument sf .*got 5"):
            deep_gemm.fp8_gemm_nt(*packed, d)


def test_the_knob_raises_at_once_and_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_CHECK_SCALE_FACTORS", "1")
    a, b = operands()
    a[1][3, 1] = 1.5
    d = output().fill_(7)
    with pytest.raises(ScaleFactorError, match="got 1.5"):
        deep_gemm.fp8_gemm_nt(a, b, d, torch.zeros_like(d))
    assert (d == 7).all()
    with pytest.raises(ScaleFactorError, match="argument sf .*got 1.5"):
        deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(a[1])


def test_weights_are_checked_where_they_are_transformed() -> None:
    sf = torch.full((2, 4), 0.25)
    arguments = {"mn": 200, "k": 500, "recipe": (1, 128, 128)}
    transform = deep_gemm.transform_sf_into_required_layout
    transform(sf, **arguments, is_sfa=False)
    sf[1, 3] = 0.3
    with pytest.raises(ScaleFactorError, match="got 0.3"):
        transform(sf, **arguments, is_sfa=False)
    REPORTS.check()  # it concerns nobody else
    transform(sf, mn=2, k=500, recipe=(1, 128, 128), is_sfa=True)
    with pytest.raises(ScaleFactorError, match="argument sf .*got 0.3"):
        transform(sf, **arguments, is_sfa=False)


@pytest.mark.parametrize("kind", ["nan", "garbage"])
def test_padding_of_grouped_products_is_not_judged(kind: str) -> None:
    b = exact_operand((2, N, K), 128, "cpu", 1)
    for layout in (
        row_ids([(1, 7), (-1, 3), (0, 21)], 16),
        row_ends([5, 21], 16, behind=10),
    ):
        a = poison(
            exact_operand((len(layout.row_groups), K), 1, "cpu"), layout.row_groups < 0, kind
        )
        run_contiguous(a, b, layout)
        REPORTS.check()
        a[1][int((layout.row_groups == 1).nonzero()[0]), 0] = 3.0
        run_contiguous(a, b, layout)
        with pytest.raises(ScaleFactorError, match="got 3"):
            REPORTS.check()
    a, masked_m = exact_operand((2, 10, K), 1, "cpu"), [3, 6]
    poison(a, ~valid_rows(masked_m, 10), kind)
    run_masked(a, b, masked_m)
    REPORTS.check()
    a[1][1, 5, 3] = 3.0
    run_masked(a, b, masked_m)
    with pytest.raises(ScaleFactorError, match="got 3"):
        REPORTS.check()


@pytest.mark.parametrize("layout", list(GroupedLayout), ids=lambda layout: layout.name)
def test_each_row_is_judged_for_itself(layout: GroupedLayout) -> None:
    """One wrong value at a time: it is reported where its row counts, and nowhere else."""
    rows = 22
    if layout is GroupedLayout.ROW_IDS:
        ids = torch.tensor([0] * 5 + [-1] + [1] * 6 + [2] * 3 + [-1] * 7, dtype=torch.int32)
        numbers, batch = ids, 1
        counts = (ids >= 0) & (ids < 2) & (torch.arange(rows) % 6 == 0)  # 0 and 6
    elif layout is GroupedLayout.ROW_ENDS:
        ends = ends_of([3, 0, 5], 6)
        numbers, batch = torch.tensor(ends, dtype=torch.int32), 1
        counts = torch.tensor([row < 3 or 6 <= row < 11 for row in range(rows)])
    else:
        numbers, batch = torch.tensor([5, 22, 0], dtype=torch.int32), 3
        counts = valid_rows(numbers.tolist(), rows).flatten()
    report = torch.zeros(1, dtype=torch.int32)
    out = torch.empty(batch, 2, rows, dtype=torch.int32).mT
    for row in range(batch * rows):
        sf = torch.ones(batch, rows, 7)
        sf.view(-1, 7)[row, row % 7] = 1 + row
        groups = GroupRows(layout, numbers, 2 if layout is GroupedLayout.ROW_IDS else 3, 6)
        pack_fp32_into_ue8m0(sf, out, 1, groups, report.data_ptr())
        is_power = (row + 1) & row == 0
        bits = struct.unpack("i", struct.pack("f", 1 + row))[0]
        assert report.item() == (bits if counts[row] and not is_power else 0)
        report.zero_()


def test_groups_along_k_are_judged_without_the_rows_between_them() -> None:
    sf = torch.ones(6, 8)
    ends = torch.tensor(ends_of([100, 0, 200], 256), dtype=torch.int32)  # rows 0, 2 and 3
    report = torch.zeros(1, dtype=torch.int32)
    out = torch.empty(3, 8, dtype=torch.int32)
    for row in range(6):
        sf[row, 5] = -1.0
        k_grouped_pack_fp32_into_ue8m0(sf, out, ends, 128, 256, report.data_ptr())
        assert bool(report.item()) == (row in (0, 2, 3))
        sf[row, 5] = 1.0
        report.zero_()


def test_any_of_many_wrong_values_is_reported() -> None:
    sf = some_of_everything(70 * 9, "cpu").view(70, 9)
    report = torch.zeros(1, dtype=torch.int32)
    pack_fp32_into_ue8m0(sf, torch.empty(3, 70, dtype=torch.int32).mT, 1, None, report.data_ptr())
    assert report.item() in sf.view(torch.int32)
    value = report.view(torch.float32).item()
    assert not (value > 0 and math.frexp(value)[0] == 0.5 and math.isfinite(value))
