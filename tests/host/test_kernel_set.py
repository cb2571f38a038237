"""The few kernels that serving is confined to: how few, for what, and what that costs."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm import ProblemRange, problems_of_model
from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.kernel_set import SHAPES, SPLIT, kernels, offered_kernels
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.models import MODELS
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import kernels_of
from deep_gemm.config.select import offered, select
from deep_gemm.config.sm90 import candidates

GROUPINGS = [Grouping.DENSE, Grouping.M_GROUPED]

SERVED = st.builds(
    GemmProblem,
    *(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 20_000), st.just("90a")),
    num_sms=st.sampled_from([1, 2, 78, 132]),
    grouping=st.sampled_from(GROUPINGS),
    num_groups=st.sampled_from([1, 8, 256]),
    alignment=st.sampled_from([1, 16, 128]),
    few_kernels=st.just(True),
)


def loss(problem: GemmProblem) -> float:
    """How much longer the choice takes than the best of all candidates, by the cost model."""
    best = min(estimate(problem, config).us for config in candidates(problem))
    return estimate(problem, select(problem).config).us / best - 1


def test_serving_needs_at_most_40_kernels() -> None:
    assert sum(len(kernels(grouping)) for grouping in GROUPINGS) <= 40
    found = kernels_of(problems_of_model("deepseek-v3", few_kernels=True))
    assert 20 <= len(found) <= 40
    assert {config.grouping for config in found} == set(GROUPINGS)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_the_set_is_legal_and_without_doubles(grouping: Grouping) -> None:
    problem = GemmProblem(8192, 8192, 8192, grouping=grouping)
    every = {*candidates(problem), *candidates(GemmProblem(64, 160, 8192, splits_k=True))}
    found = kernels(grouping)
    num_split = len(SPLIT) if grouping is Grouping.DENSE else 0
    assert len(set(found)) == len(found) == len(SHAPES[grouping]) + num_split
    for config in found:
        assert config.grouping is grouping and broken_rules(config) == []
        # As candidates are: with as many stages as fit, and rounds only where they make room.
        assert config.block_m < 64 or config in every


@given(problem=SERVED)
def test_something_is_offered_for_whatever_is_served(problem: GemmProblem) -> None:
    few = offered_kernels(problem)
    assert few and list(offered(problem)) == few
    assert set(few) <= set(kernels(problem.grouping))
    assert all(config.cluster_size <= problem.num_sms for config in few)
    assert all(config.cluster_m == 1 or problem.m > config.block_m for config in few)
    assert all(config.cluster_n == 1 or problem.n > config.block_n for config in few)


@pytest.mark.parametrize(
    "other",
    [
        {"d_bytes": 4},
        {"gran_n": 1, "d_bytes": 4},
        {"head_columns": 64},
        {"block_multiple": (16, 1)},
        {"grouping": Grouping.K_GROUPED, "gran_n": 1, "d_bytes": 4, "num_groups": 4},
    ],
    ids=lambda other: "-".join(other),
)
def test_other_products_have_all_candidates(other: dict[str, object]) -> None:
    problem = replace(GemmProblem(700, 4096, 7168, few_kernels=True), **other)  # type: ignore[arg-type]
    assert list(offered(problem)) == list(candidates(problem))


def test_confinement_costs_little() -> None:
    """Of every product of every model, with an M of each size: 3.9 % at worst were counted, and
    0.02 % in the mean (tools/choose_kernels.py looks at many more)."""
    rng = random.Random(0)
    products = [
        every.problem
        for name in MODELS
        for every in problems_of_model(name, few_kernels=True)
        if isinstance(every, ProblemRange)
    ]
    problems = [replace(p, m=int(2 ** rng.uniform(0, 13))) for p in rng.sample(products, 300)]
    losses = [loss(problem) for problem in problems]
    assert max(losses) < 0.05 and sum(losses) / len(losses) < 0.001


def test_a_loss_is_found() -> None:
    """The measure sees a bad set: with one kernel alone, some problem takes far longer."""
    problem, only = GemmProblem(64, 7168, 2048), GemmConfig(256, 128, 3, 2)
    best = min(estimate(problem, config).us for config in candidates(problem))
    assert estimate(problem, only).us > 1.3 * best
