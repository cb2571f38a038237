"""Which SM100 kernel a problem gets: pairs of CTAs, where they may be and where they pay."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import broken_rules, candidates, estimate, explain, ranked, select
from deep_gemm.config.sm100_config import Sm100GemmConfig

LARGE = GemmProblem(4096, 7168, 2048, "100a", 148, gran_n=1)


def shapes(problem: GemmProblem) -> set[tuple[int, int]]:
    """Block widths of the candidates, with the CTAs that share an MMA."""
    return {(config.block_n, config.cluster_m) for config in candidates(problem)}


@pytest.mark.parametrize("mn_major", [False, True])
def test_candidates_are_legal_and_have_as_many_stages_as_fit(mn_major: bool) -> None:
    problem = replace(LARGE, mn_major=(mn_major, mn_major))
    for config in candidates(problem):
        assert not broken_rules(config)
        assert broken_rules(replace(config, num_stages=config.num_stages + 1))
    # A pair's half of N-major B has whole groups of 16 columns.
    pairs = {block_n for block_n, ctas in shapes(problem) if ctas == 2}
    assert pairs == set(range(32 if mn_major else 16, 257, 32 if mn_major else 16))


def test_no_pair_without_two_blocks_and_two_multiprocessors() -> None:
    for problem in (replace(LARGE, m=128), replace(LARGE, num_sms=1)):
        assert {ctas for _, ctas in shapes(problem)} == {1}
    assert {ctas for _, ctas in shapes(replace(LARGE, m=129, num_sms=2))} == {1, 2}


def test_large_products_get_pairs_and_explain_says_so() -> None:
    chosen = select(LARGE)
    assert chosen is not None and chosen.config.cluster_m == 2
    first, line, *others = explain(LARGE, num_alternatives=2).splitlines()
    assert first.startswith("4096 x 7168 x 2048 on 148 SMs") and len(others) == 2
    assert f"chosen {chosen.config.name}:" in line and "_pair" in line


def test_a_pair_loads_half_of_b_each() -> None:
    one, pair = Sm100GemmConfig(256, 4), Sm100GemmConfig(256, 4, cluster_m=2)
    assert one.smem_bytes - pair.smem_bytes == 4 * 128 * 128
    assert estimate(LARGE, pair).k_block_clocks < estimate(LARGE, one).k_block_clocks


def test_pairs_of_groups_with_an_odd_number_of_blocks() -> None:
    """Each group's last pair has one block only."""
    problem = replace(LARGE, m=384, grouping=Grouping.M_GROUPED, num_groups=8, alignment=256)
    pair = Sm100GemmConfig(256, 4, Grouping.M_GROUPED, cluster_m=2)
    assert problem.cluster_grid(pair) == (8 * 2, 28)
    assert problem.cluster_grid(replace(pair, cluster_m=1)) == (8 * 3, 28)
    assert replace(problem, alignment=128).has_unknown_tiles(pair)
    assert not replace(problem, alignment=128).has_unknown_tiles(replace(pair, cluster_m=1))


def test_times_are_in_order() -> None:
    times = [cost.us for _, cost in ranked(LARGE)]
    assert times == sorted(times)
