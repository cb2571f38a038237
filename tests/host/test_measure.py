"""The demo's judgement, on the CPU: what it calls right, what it calls wrong, and the floor."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm.cli import measure
from deep_gemm.cli.floor import floor_of
from deep_gemm.config.problem import GemmProblem
from deep_gemm.gemm import Operand
from deep_gemm.testing import fp8_gemm_nt_reference, fp8_gemm_nt_yardstick

CPU = torch.device("cpu")
PROBLEM = GemmProblem(130, 272, 400)
H100, H200 = "NVIDIA H100 80GB HBM3", "NVIDIA H200"

Case = tuple[torch.Tensor, Operand, Operand]


@pytest.fixture(scope="module")
def case() -> Case:
    a, b = measure.make_operands(PROBLEM, CPU, seed=0)
    return fp8_gemm_nt_reference(a, b).bfloat16(), a, b


def test_operands_have_the_shapes_of_the_problem_and_follow_the_seed(case: Case) -> None:
    _, (x, sfa), (y, sfb) = case
    assert (x.shape, sfa.shape) == ((130, 400), (130, 4))
    assert (y.shape, sfb.shape) == ((272, 400), (3, 4))
    assert x.dtype == y.dtype == torch.float8_e4m3fn
    for seed, same in ((0, True), (1, False)):
        (other, _), _ = measure.make_operands(PROBLEM, CPU, seed)
        assert torch.equal(other.float(), x.float()) == same


def test_a_right_result_passes(case: Case) -> None:
    d, a, b = case
    accuracy = measure.accuracy_of(d, a, b)
    assert accuracy.failures() == []
    assert 0 < accuracy.max_error <= accuracy.max_error_bound < 0.1


def wrong_element(d: torch.Tensor) -> None:
    d[129, 271] += 0.5 * d.float().std()


def row_from_elsewhere(d: torch.Tensor) -> None:
    d[64] = d[63]


def element_left_out(d: torch.Tensor) -> None:
    d[3, 5] = torch.nan


def overflow(d: torch.Tensor) -> None:
    d[0, 0] = torch.inf


def scaled(d: torch.Tensor) -> None:
    d *= 1.125


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_element, "the max error is"),
        (row_from_elsewhere, "calc_diff is"),
        (element_left_out, "NaN in only one of out and ref, first at (3, 5)"),
        (overflow, "inf in only one of out and ref, first at (0, 0)"),
        (scaled, "the max error is"),
    ],
)
def test_a_wrong_result_fails(
    spoil: Callable[[torch.Tensor], None], message: str, case: Case
) -> None:
    d, a, b = case
    spoiled = d.clone()
    spoil(spoiled)
    assert message in "; ".join(measure.accuracy_of(spoiled, a, b).failures())


def test_measure_times_the_call_it_has_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: list[torch.Tensor] = []

    def gemm(a: Operand, b: Operand, d: torch.Tensor) -> None:
        if not outputs:
            assert d.isnan().all()
        outputs.append(d.copy_(fp8_gemm_nt_yardstick(a, b)))

    def profile(calls: list[Callable[[], None]], repeats: int) -> list[list[float]]:
        for call in calls:
            call()
        return [[float(i) for i in range(repeats)]]

    monkeypatch.setattr(measure, "fp8_gemm_nt", gemm)
    monkeypatch.setattr(measure, "profile_kernels", profile)
    steps: list[str] = []
    accuracy, times = measure.measure(PROBLEM, CPU, 0, steps.append)
    assert accuracy.failures() == []
    assert len(times) == measure.NUM_REPEATS and len(steps) == 4
    assert len(outputs) == 2 and outputs[0] is outputs[1]


@pytest.mark.parametrize(
    ("m", "n", "k", "us"),
    [
        (4096, 7168, 2048, 75.2),
        (4096, 7168, 16384, 601.3),
        (1, 2112, 7168, 5.1),
        (128, 576, 7168, 1.7),
    ],
)
def test_floor_is_that_of_the_h100_table(m: int, n: int, k: int, us: float) -> None:
    assert floor_of(GemmProblem(m, n, k), H100).us == pytest.approx(us, abs=0.06)


def test_floor_says_what_limits_it_and_for_which_gpu() -> None:
    large, small = GemmProblem(4096, 7168, 2048), GemmProblem(1, 7168, 2048)
    assert floor_of(large, H100).why == "120.3 GFLOP at 1600 TFLOPS"
    assert floor_of(large, H200) == floor_of(large, H100)
    assert floor_of(small, H200).why.endswith("MB at 4.3 TB/s")
    assert floor_of(small, H200).us == pytest.approx(floor_of(small, H100).us * 3.0 / 4.3)
    unknown = floor_of(small, "NVIDIA H100 PCIe")
    assert unknown.us == floor_of(small, H100).us and "not known" in unknown.why
