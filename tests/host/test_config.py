"""Choosing a configuration: legality rule by rule, candidates, cost model, selection."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import (
    MAX_HELD_REGISTERS,
    MAX_STAGES,
    RULES,
    SMEM_CAPACITY,
    broken_rules,
    cluster_splits_tiles,
    max_stages,
)
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import explain, offered, ranked, select
from deep_gemm.config.sm90 import BLOCK_N, candidates
from tests.problems import PROJECTIONS, ROWS

NUM_SMS = [1, 2, 3, 78, 131, 132]

# Legal but for one rule: (configuration, the rule, what the message says).
BROKEN = [
    (GemmConfig(192, 64, 4, 3), "block_m_fits_warpgroups", "1 or 2, got 3"),
    (GemmConfig(8, 64, 4, 1), "block_m_fits_warpgroups", "multiple of 64 up to 256, got 8"),
    (GemmConfig(48, 64, 4, 1), "block_m_fits_warpgroups", "multiple of 64 up to 256, got 48"),
    (GemmConfig(320, 32, 2, 1), "block_m_fits_warpgroups", "multiple of 64 up to 256, got 320"),
    (GemmConfig(16, 64, 4, 2), "block_m_fits_warpgroups", "multiple of 128 up to 256, got 16"),
    (GemmConfig(64, 64, 4, 2), "block_m_fits_warpgroups", "multiple of 128 up to 256, got 64"),
    (GemmConfig(192, 64, 4, 2), "block_m_fits_warpgroups", "multiple of 128 up to 256, got 192"),
    (GemmConfig(64, 8, 4, 1), "block_n_is_an_instruction_shape", "16 in 16..256, got 8"),
    (GemmConfig(64, 24, 4, 1), "block_n_is_an_instruction_shape", "16 in 16..256, got 24"),
    (GemmConfig(64, 120, 4, 1), "block_n_is_an_instruction_shape", "16 in 16..256, got 120"),
    (GemmConfig(64, 64, 4, 1, 2, 2), "cluster_splits_tiles", "at most 2 CTAs, got 2 x 2"),
    (GemmConfig(64, 64, 4, 1, 1, 3), "cluster_splits_tiles", "at most 2 CTAs, got 1 x 3"),
    (GemmConfig(64, 64, 4, 1, cluster_k=0), "parts_split_columns", r"1\.\.8, got 0"),
    (GemmConfig(64, 144, 4, 1, cluster_k=9), "parts_split_columns", r"1\.\.8, got 9"),
    (GemmConfig(64, 64, 4, 1, 2, 1, 2), "parts_split_columns", "1 in .* shared tiles, got 2"),
    (GemmConfig(64, 64, 4, 1, cluster_k=3), "parts_split_columns", "multiple of 48, got 64"),
    (GemmConfig(64, 224, 2, 1), "sums_fit_registers", "need 244 registers.* 224"),
    (GemmConfig(128, 256, 2, 2), "sums_fit_registers", "need 272 registers.* 224"),
    (GemmConfig(256, 144, 2, 2), "sums_fit_registers", "need 240 registers.* 224"),
    (GemmConfig(64, 96, 4, 1, num_store_rounds=2), "rounds_split_slabs", "divide 3 slabs, got 2"),
    (GemmConfig(256, 128, 3, 2, num_store_rounds=0), "rounds_split_slabs", "divide 4 slabs, got 0"),
    (GemmConfig(64, 64, 4, 1, gran_n=64), "elements_are_supported", "1 or 128, got 64"),
    (GemmConfig(64, 64, 4, 1, d_bytes=1), "elements_are_supported", "2 or 4, got 1"),
    (GemmConfig(64, 64, 1, 1), "shared_memory_fits", r"2\.\.32, got 1"),
    (GemmConfig(16, 16, 33, 1), "shared_memory_fits", r"2\.\.32, got 33"),
    (GemmConfig(128, 128, 8, 2), "shared_memory_fits", r"needs \d{6} bytes.* 232448"),
]


@pytest.mark.parametrize(
    ("config", "rule", "message"), BROKEN, ids=lambda value: getattr(value, "name", "")
)
def test_one_rule_is_broken_and_says_why(config: GemmConfig, rule: str, message: str) -> None:
    (reason,) = broken_rules(config)
    assert re.match(f"{rule}: .*{message}", reason)


def test_every_rule_has_a_configuration_that_breaks_it_alone() -> None:
    rules = {rule.__name__ for group in RULES for rule in group}
    assert {rule for _, rule, _ in BROKEN} == rules


def test_a_tile_must_split_into_whole_swizzle_patterns() -> None:
    rows = cluster_splits_tiles(GemmConfig(24, 64, 4, 1, 1, 2))
    assert rows == "block_m must be a multiple of 16, got 24"
    columns = cluster_splits_tiles(GemmConfig(64, 24, 4, 1, 2, 1))
    assert columns == "block_n must be a multiple of 16, got 24"


def test_all_broken_rules_are_listed() -> None:
    m_grouped = Grouping.M_GROUPED
    configs = [
        GemmConfig(48, 1000, 99, 1, 4, 4, gran_n=7),
        GemmConfig(64, 64, 99, 1, 4, 4, 2, grouping=m_grouped),
        GemmConfig(256, 256, 99, 2, num_store_rounds=3),
    ]
    for config, rules in zip(configs, RULES, strict=False):
        reasons = broken_rules(config)
        assert [reason.partition(":")[0] for reason in reasons] == [r.__name__ for r in rules]


@pytest.mark.parametrize(
    "config", [GemmConfig(0, 0, 0, 0, 0, 0, 0, 0), GemmConfig(64, 64, 4, 1, 0, 1)], ids=str
)
def test_sizes_of_zero_are_illegal_and_no_crash(config: GemmConfig) -> None:
    assert broken_rules(config)


def test_the_limits_themselves_are_legal() -> None:
    widest = GemmConfig(64, 144, 2, 1)
    assert widest.held_registers == MAX_HELD_REGISTERS and not broken_rules(widest)
    assert not broken_rules(GemmConfig(16, 16, max_stages(GemmConfig(16, 16, 2, 1)), 1, 1, 2))
    assert not broken_rules(GemmConfig(256, 16, 2, 2, 2, 1))


@pytest.mark.parametrize(("block_m", "warpgroups"), [(16, 1), (32, 1), (64, 1), (128, 2), (256, 2)])
def test_max_stages_is_maximal(block_m: int, warpgroups: int) -> None:
    for block_n in BLOCK_N:
        stages = max_stages(GemmConfig(block_m, block_n, 2, warpgroups))
        assert 1 <= stages <= MAX_STAGES
        smem = [
            GemmConfig(block_m, block_n, s, warpgroups).smem_bytes for s in (stages, stages + 1)
        ]
        assert stages == 1 or smem[0] <= SMEM_CAPACITY
        assert stages == MAX_STAGES or smem[1] > SMEM_CAPACITY


def problems(num_sms: list[int]) -> list[GemmProblem]:
    sizes = product(ROWS, PROJECTIONS, num_sms)
    return [GemmProblem(m, n, k, num_sms=sms) for m, (n, k), sms in sizes]


@cache
def is_legal(config: GemmConfig) -> bool:
    return not broken_rules(config) and config.smem_bytes <= SMEM_CAPACITY


@pytest.mark.parametrize("num_sms", NUM_SMS)
def test_candidates_are_legal_and_reproducible(num_sms: int) -> None:
    for problem in problems([num_sms])[:: 1 if num_sms == 132 else 5]:
        configs = list(candidates(problem))
        assert configs and configs == list(candidates(problem))
        assert len(set(configs)) == len(configs)
        assert all(map(is_legal, configs))
        assert all(config.cluster_size <= num_sms for config in configs)
        # A cluster has two blocks to cover.
        assert all(config.cluster_m == 1 or problem.m > config.block_m for config in configs)
        assert all(config.cluster_n == 1 or problem.n > config.block_n for config in configs)


def test_every_width_is_a_candidate_for_many_rows() -> None:
    configs = list(candidates(GemmProblem(4096, 7168, 2048)))
    widths = {config.block_n for config in configs}
    assert widths == set(range(16, max(widths) + 1, 16)) and max(widths) >= 192
    assert {config.block_m for config in configs} == {64, 128, 256}
    assert {(config.cluster_m, config.cluster_n) for config in configs} == {(1, 1), (2, 1), (1, 2)}


@pytest.mark.parametrize("num_sms", [1, 2, 77, 132])
def test_selection_is_the_cheapest_by_the_model(num_sms: int) -> None:
    for problem in problems([num_sms])[::3]:
        chosen = select(problem)
        times = {config: estimate(problem, config).us for config in offered(problem)}
        assert times[chosen.config] == min(times.values())
        assert ranked(problem)[0][0] == chosen.config
        rows, _ = chosen.config.cluster_grid(problem.m, problem.n)
        assert 1 <= chosen.band <= rows


def test_selection_is_remembered_and_pure() -> None:
    for problem in problems([132])[::7]:
        first = select(problem)
        assert select(GemmProblem(problem.m, problem.n, problem.k)) is first
        assert select.__wrapped__(problem) == first


@pytest.mark.parametrize(("n", "k"), PROJECTIONS)
def test_a_model_needs_few_kernels(n: int, k: int) -> None:
    """With M in 1..4096: 1 to 14 were counted."""
    rows = [*range(1, 129), *range(129, 4097, 31)]
    names = {select(GemmProblem(m, n, k)).config.name for m in rows}
    assert 1 <= len(names) <= 24


def not_much_slower(times: list[float]) -> bool:
    """No later time is far below an earlier one: more work never looks clearly faster."""
    return all(later >= 0.95 * earlier for earlier, later in pairwise(times))


@pytest.mark.parametrize(("n", "k"), PROJECTIONS)
def test_more_work_takes_longer(n: int, k: int) -> None:
    def us(m: int, n: int, k: int, num_sms: int = 132) -> float:
        problem = GemmProblem(m, n, k, num_sms=num_sms)
        return estimate(problem, select(problem).config).us

    rows = [us(m, n, k) for m in ROWS]
    assert not_much_slower(rows) and rows[-1] > rows[0]
    assert not_much_slower([us(512, n * i, k) for i in range(1, 6)])
    assert not_much_slower([us(512, n, k * i) for i in range(1, 6)])
    assert not_much_slower([us(512, n, k, sms) for sms in range(132, 0, -1)])


@given(m=st.integers(1, 10_000), n=st.integers(1, 10_000), k=st.integers(1, 20_000))
def test_an_estimate_adds_up(m: int, n: int, k: int) -> None:
    problem = GemmProblem(m, n, k)
    assert problem.unique_bytes >= m * k + n * k + 2 * m * n
    for config in list(candidates(problem))[::10]:
        cost = estimate(problem, config)
        rows, columns = config.cluster_grid(m, n)
        slots = cost.waves * (132 // config.cluster_size)
        assert slots >= rows * columns > slots - 132 // config.cluster_size
        assert 0 < cost.utilisation <= 1 and cost.us > 0 and cost.k_block_clocks > 0


def test_explain_names_the_choice_and_its_rivals() -> None:
    problem = GemmProblem(4096, 7168, 2048, num_sms=78)
    first, chosen, *others = explain(problem, num_alternatives=4).splitlines()
    assert "4096 x 7168 x 2048 on 78 SMs" in first
    assert chosen.split()[:2] == ["chosen", f"{select(problem).config.name}:"]
    assert re.search(r"[\d.]+ us, \d+ wave\(s\) \d+% full, .* \(bound by [\w ]+\)", chosen)
    assert len(others) == 4 and not any("chosen" in line for line in others)
    times = [float(re.search(r"([\d.]+) us", line)[1]) for line in (chosen, *others)]
    assert times == sorted(times)
