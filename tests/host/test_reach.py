"""Which kernels a range of M reaches: exactly those that selection returns for every single M."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.config import cost_model, sm100
from deep_gemm.config.gemm_config import MMA_M, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import Config, ProblemRange, kernels_of
from deep_gemm.config.select import offered, select

M_GROUPED = Grouping.M_GROUPED

RANGES = {
    "dense": ProblemRange(GemmProblem(1, 2112, 7168), 8192),
    "few SMs": ProblemRange(GemmProblem(5, 576, 7168, num_sms=20), 2000),
    "contiguous": ProblemRange(
        GemmProblem(1, 4096, 7168, grouping=M_GROUPED, num_groups=8, alignment=128), 2000
    ),
    "masked": ProblemRange(GemmProblem(1, 7168, 256, grouping=M_GROUPED, num_groups=256), 2000),
    "FP32, all candidates": ProblemRange(GemmProblem(1, 4096, 7168, d_bytes=4), 300),
    "m-grouped FP32": ProblemRange(
        GemmProblem(1, 4096, 7168, grouping=M_GROUPED, num_groups=4, d_bytes=4), 200
    ),
    "weight gradients": ProblemRange(
        GemmProblem(1, 4096, 7168, grouping=Grouping.K_GROUPED, num_groups=4, gran_n=1, d_bytes=4),
        200,
    ),
    "SM100": ProblemRange(GemmProblem(1, 2112, 7168, "100a", 148, gran_n=1), 1000),
    "SM100, masked": ProblemRange(
        GemmProblem(1, 4096, 7168, "103a", 160, M_GROUPED, num_groups=8, gran_n=1), 300
    ),
    "one M": ProblemRange(GemmProblem(77, 4096, 7168), 77),
    "two of them": ProblemRange(GemmProblem(63, 4096, 7168, d_bytes=4), 64),
}


def selected(problem: GemmProblem) -> Config:
    chosen = sm100.select(problem) if problem.is_sm100 else select.__wrapped__(problem)
    assert chosen is not None
    return chosen.config


def priced(problem: GemmProblem) -> dict[Config, float]:
    if problem.is_sm100:
        return {c: sm100.estimate(problem, c).us for c in sm100.candidates(problem)}
    return {c: cost_model.estimate(problem, c).us for c in offered(problem)}


@pytest.mark.parametrize("name", RANGES)
def test_it_is_what_every_single_m_selects(name: str) -> None:
    every = RANGES[name]
    singly = {
        selected(replace(every.problem, m=m)) for m in range(every.problem.m, every.last_m + 1)
    }
    found = kernels_of([every])
    assert set(found) == singly and len(found) == len(singly)


def test_ranges_share_kernels() -> None:
    ranges = [RANGES["dense"], RANGES["few SMs"], RANGES["dense"]]
    together = kernels_of(ranges)
    assert set(together) == set(kernels_of(ranges[:1])) | set(kernels_of(ranges[1:2]))
    assert len(together) == len(set(together))


@given(
    m=st.integers(1, 9000),
    more=st.integers(1, 3000),
    name=st.sampled_from(sorted(RANGES)),
)
def test_an_estimate_does_not_fall_as_m_grows(m: int, more: int, name: str) -> None:
    """What the search rests on: but for the step at a WGMMA's rows, where short groups end."""
    problem = RANGES[name].problem
    if m < MMA_M <= m + more:
        m = MMA_M
    low, high = priced(replace(problem, m=m)), priced(replace(problem, m=m + more))
    assert all(us <= high[config] for config, us in low.items() if config in high)
