"""What the grouped tables time, checked as there, with our kernels in the emulator."""

from __future__ import annotations

import pytest

import deep_gemm
from benchmarks import grouped_operands
from benchmarks.grouped_calls import grouped_case, our_variants
from benchmarks.grouped_operands import GroupedOperands
from benchmarks.operands import Normal
from benchmarks.problems import GroupedProblem

PROBLEMS = (
    GroupedProblem("contiguous", 2, 256, 24, 256),
    GroupedProblem("masked", 2, 37, 24, 256),
    GroupedProblem("decode", 3, 48, 24, 256),
    GroupedProblem("wgrad", 1, 40, 24, 384),
    GroupedProblem("k_grouped", 2, 40, 24, 768),
)
CALLS = [(problem, variant) for problem in PROBLEMS for variant in our_variants(problem)]


pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize(
    ("problem", "variant"), CALLS, ids=lambda value: getattr(value, "name", value)
)
def test_the_benchmarks_calls_pass_the_benchmarks_checks(
    problem: GroupedProblem, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grouped_operands, "MASKED_M_MAX", 64)
    x = GroupedOperands.build(problem, Normal(problem, 0, "cpu"))
    error = grouped_case(deep_gemm, variant, x).check()
    assert 0 < error < (0.001 if problem.accumulates else 0.03)
    assert deep_gemm.get_mk_alignment_for_contiguous_layout() == 128
