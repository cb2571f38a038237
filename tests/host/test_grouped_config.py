"""Choosing a configuration for grouped products, 1D1D and FP32: candidates, cost, selection."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import MAX_HELD_REGISTERS, SMEM_CAPACITY, broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import explain, offered, ranked, select
from deep_gemm.config.sm90 import candidates

M_GROUPED, K_GROUPED = Grouping.M_GROUPED, Grouping.K_GROUPED

KINDS: dict[str, GemmProblem] = {
    "m-grouped, aligned": GemmProblem(
        *(512, 4096, 7168), grouping=M_GROUPED, num_groups=8, alignment=128
    ),
    "m-grouped": GemmProblem(77, 4096, 7168, grouping=M_GROUPED, num_groups=32),
    "m-grouped, few rows": GemmProblem(3, 4096, 2048, grouping=M_GROUPED, num_groups=256),
    "m-grouped, FP32": GemmProblem(200, 2112, 1536, grouping=M_GROUPED, num_groups=5, d_bytes=4),
    "k-grouped": GemmProblem(
        *(4096, 7168, 8192), grouping=K_GROUPED, num_groups=4, gran_n=1, d_bytes=4
    ),
    "k-grouped, BF16": GemmProblem(48, 64, 128, grouping=K_GROUPED, num_groups=64, gran_n=1),
    "1D1D": GemmProblem(4096, 7168, 2048, gran_n=1),
    "1D1D, FP32": GemmProblem(555, 1000, 1168, gran_n=1, d_bytes=4),
    "FP32": GemmProblem(4096, 2112, 7168, d_bytes=4),
}
each_kind = pytest.mark.parametrize("name", KINDS)

problems = st.builds(
    replace,
    st.sampled_from(list(KINDS.values())),
    m=st.integers(1, 9000),
    n=st.integers(1, 9000),
    k=st.integers(1, 20_000),
    num_sms=st.sampled_from([1, 2, 3, 77, 131, 132]),
)


def check_candidate(problem: GemmProblem, config: GemmConfig) -> None:
    assert not broken_rules(config)
    assert config.smem_bytes <= SMEM_CAPACITY and config.held_registers <= MAX_HELD_REGISTERS
    assert config.grouping is problem.grouping
    assert (config.gran_n, config.d_bytes) == (problem.gran_n, problem.d_bytes)
    assert config.cluster_size <= problem.num_sms


@given(problem=problems)
def test_candidates_are_legal_and_their_estimates_add_up(problem: GemmProblem) -> None:
    configs = list(candidates(problem))
    assert configs and len(set(configs)) == len(configs)
    for config in configs:
        check_candidate(problem, config)
    for config in configs[::20]:
        cost = estimate(problem, config)
        assert cost.us > 0 and 0 < cost.utilisation <= 1 and cost.waves >= 1


@given(problem=problems)
def test_selection_is_pure_and_its_band_is_walkable(problem: GemmProblem) -> None:
    chosen = select(problem)
    assert chosen == select.__wrapped__(replace(problem))
    assert chosen.config == ranked(problem)[0][0]
    assert 1 <= chosen.band <= problem.num_sms


@each_kind
def test_selection_is_the_cheapest_by_the_model(name: str) -> None:
    problem = KINDS[name]
    times = {config: estimate(problem, config).us for config in offered(problem)}
    assert times[select(problem).config] == min(times.values())


@each_kind
def test_more_groups_take_longer(name: str) -> None:
    problem = KINDS[name]
    if problem.grouping is Grouping.DENSE:
        problem = replace(problem, grouping=K_GROUPED)
    times = [
        estimate(many, select(many).config).us
        for many in (replace(problem, num_groups=number) for number in (1, 4, 16, 64))
    ]
    assert times == sorted(times) and times[-1] > times[0]


@each_kind
def test_explain_says_how_many_groups(name: str) -> None:
    problem = KINDS[name]
    first, chosen, *_ = explain(problem).splitlines()
    sizes = f"{problem.m} x {problem.n} x {problem.k} on 132 SMs:"
    grouped = problem.grouping is not Grouping.DENSE
    assert first == (f"{problem.num_groups} x {sizes}" if grouped else sizes)
    assert select(problem).config.name in chosen


def test_alignment_says_whether_tiles_are_shared() -> None:
    """Where groups begin at multiples of a block, no block is cut in two."""
    aligned = KINDS["m-grouped, aligned"]
    config = GemmConfig(128, 128, 4, 2, grouping=M_GROUPED)
    assert not aligned.has_unknown_tiles(config)
    assert aligned.cluster_grid(config) == (8 * 4, 32)
    odd = replace(aligned, alignment=1)
    assert odd.has_unknown_tiles(config)
    assert odd.cluster_grid(config)[0] > 8 * 4
    assert estimate(odd, config).us > estimate(aligned, config).us
