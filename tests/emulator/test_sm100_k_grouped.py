"""K-grouped products on SM100 in the emulator: sizes, layouts, orders, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch

import deep_gemm
from deep_gemm import sm100_k_grouped
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import best_band
from deep_gemm.config.sm100 import Sm100Selection, broken_rules
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.errors import ArgumentError, ScaleFactorError, UnsupportedArchitectureError
from deep_gemm.reports import reports_of
from tests.emulator.arch import on_arch
from tests.sm100_k_groups import KCase, both_operands, check_groups, k_operand, run_k_case

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

CASES = [
    KCase("tn", (128, 0, 640, 0)),
    KCase("tn", (0, 0, 384), c="d"),
    KCase("tn", (1, 0, 513), c="other"),
    KCase("tn", (96, 32, 160), gran_k=32, dtype=torch.bfloat16),
    KCase("tn", (640, 128), packed=True, sizes_on_host=False),
    KCase("tn", (33, 512), gran_k=32, packed=True, c="d"),
    KCase("tn", (128, 16), m=144, n=32),
    KCase("ends", (100, 0, 256, 0), c="d"),
    KCase("ends", (70, 64, 1), alignment=64, gran_k=32, sizes_on_host=False),
    KCase("ends", (130, 128), packed=True),
    # More of NT is in test_grouped_kernels.py.
    KCase("nt", (128, 384), gran_k=32, sizes_on_host=False),
    KCase("nt", (512, 128), packed=True),
]


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_group_is_exact(case: KCase) -> None:
    run_k_case(case, "cpu")
    reports_of(torch.device("cpu")).check()


def test_in_every_timing_and_with_many_blocks_per_cta(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(problem: GemmProblem) -> Sm100Selection:
        config = Sm100GemmConfig(
            *(32, 2, Grouping.K_GROUPED, True, True, 128, 128), d_bytes=problem.d_bytes
        )
        assert not broken_rules(config)
        return Sm100Selection(config, best_band(problem, config))

    case = KCase("tn", (128, 0, 640), m=144, n=32, c="d")
    with (
        mock.patch.object(sm100_k_grouped, "chosen", chosen),
        deep_gemm.override(num_sms=2),
    ):
        for timing in Timing:
            monkeypatch.setenv("DG_EMULATOR_TIMING", timing.value)
            run_k_case(case, "cpu")


def test_the_sizes_that_count_are_those_of_the_device() -> None:
    case = KCase("tn", (128, 640))
    a, b = both_operands(case, "cpu")
    d = torch.empty(2, case.m, case.n)
    layout = torch.tensor(case.ks, dtype=torch.int32)
    deep_gemm.k_grouped_fp8_gemm_tn_contiguous(
        (a.data, a.sf), (b.data, b.sf), d, [256, 512], layout
    )
    check_groups(d, a, b)


@pytest.mark.parametrize("form", ["tn", "ends", "nt"])
@pytest.mark.parametrize("numbers", [[-5, 700], [2**31 - 1, 2**31 - 1]], ids=str)
def test_sizes_of_nonsense_reach_nothing_beyond_the_end(form: str, numbers: list[int]) -> None:
    """The emulator refuses a read outside the tensors; and no NaN stands in operands here."""
    case = KCase(form, (256, 256), m=16, n=16)
    a, b = both_operands(case, "cpu")
    d = torch.full((2, 16, 16), 7.0)
    function = deep_gemm.k_grouped_fp8_gemm_tn_contiguous
    if form == "nt":
        function = deep_gemm.k_grouped_fp8_gemm_nt_contiguous  # type: ignore[assignment]
    for packed in (False, True):
        case = KCase(form, (256, 256), m=16, n=16, packed=packed)
        a, b = both_operands(case, "cpu")
        layout = torch.tensor(numbers, dtype=torch.int32)
        function(*((a.data, a.sf), (b.data, b.sf), d, None, layout), use_psum_layout=form == "ends")
        assert d.isfinite().all()


def test_wrong_scale_factors_of_groups_are_reported() -> None:
    case = KCase("ends", (100, 128))
    a, b = both_operands(case, "cpu")
    b.sf[1, 3] = 3.0
    d = torch.empty(2, case.m, case.n)
    ends = torch.tensor([100, 256], dtype=torch.int32)
    function = deep_gemm.k_grouped_fp8_gemm_tn_contiguous
    arguments = ((a.data, a.sf), (b.data, b.sf), d, None, ends)
    function(*arguments, use_psum_layout=True)
    assert d[1, :, 3].isnan().all() and int(d.isnan().sum()) == case.m
    with pytest.raises(ScaleFactorError, match=r"argument b\[1\] .*got 3"):
        function(*arguments, use_psum_layout=True)


def refused(message: str, **changes: object) -> None:
    case = KCase("tn", (128, 256))
    a, b = both_operands(case, "cpu")
    d = torch.full((2, case.m, case.n), 7.0)
    layout = torch.tensor(case.ks, dtype=torch.int32)
    call = {"a": (a.data, a.sf), "b": (b.data, b.sf), "ks_cpu": [128, 256], "d": d, **changes}
    with pytest.raises(ArgumentError, match=message):
        deep_gemm.k_grouped_fp8_gemm_tn_contiguous(
            **{"grouped_layout": layout, **call}  # type: ignore[arg-type]
        )
    assert (d == 7).all()


def test_what_is_refused() -> None:
    a = k_operand(KCase("tn", (128, 256)), 16, "cpu", 1)
    refused("recipe: must be", recipe=(1, 128, 128))
    refused("recipe: must be", recipe=(1, 1, 64))
    refused(r"ks_cpu: must hold", ks_cpu=[-1, 385])
    refused(r"ks_cpu: must have one size", ks_cpu=[384])
    refused(r"a\[0\]: must have sum\(ks_cpu\) = 400 rows", ks_cpu=[128, 272])
    refused(r"a\[1\]: must have sum\(ceil\(ks_cpu / 32\)\) = 12", recipe=(1, 1, 32))
    refused(r"a\[0\]: must have shape", a=(a.data[:, :8], a.sf))
    refused(r"a\[1\]: must have shape", a=(a.data, a.sf[:, :8]))
    refused(r"a\[1\]: must be FP32, or UE8M0", a=(a.data, a.sf.double()))
    refused(r"a\[0\]: must have 2 dim", a=(a.data.flatten(), a.sf))
    refused("grouped_layout: must have one", grouped_layout=torch.tensor([1], dtype=torch.int32))
    packed = k_operand(KCase("tn", (128, 256), packed=True), 16, "cpu", 1)
    refused(r"b\[1\]: must have shape|b\[1\]: must have dtype", a=(packed.data, packed.sf))


def test_on_sm90_there_is_no_tn() -> None:
    with on_arch("90a"), pytest.raises(UnsupportedArchitectureError, match="no kernel for SM90"):
        run_k_case(KCase("tn", (128,)), "cpu")
