"""What a run of the tuner is asked for, and what a benchmark's rows are to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.regret import read_times, report
from benchmarks.sweep import choose_problems
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import ProblemRange
from deep_gemm.config.select import cheapest
from deep_gemm.config.sm90 import candidates
from deep_gemm.errors import ArgumentError
from deep_gemm.tuning.measurements import Journal, Measurement
from deep_gemm.tuning.problems import (
    check_problems,
    every_problem,
    parse_sizes,
    parse_weights,
    title,
    within,
)


def test_lists_and_ranges_of_sizes() -> None:
    assert parse_sizes("1,16,64") == [1, 16, 64]
    assert parse_sizes("1-4,64-128/32,7") == [1, 2, 3, 4, 64, 96, 128, 7]
    assert parse_sizes("5-9/3") == [5, 8]
    assert parse_weights("2112x7168,576x7168") == [(2112, 7168), (576, 7168)]


@pytest.mark.parametrize("text", ["", "0", "-1", "4-2", "1-8/0", "a", "1,,2", "1.5"])
def test_what_is_no_list_of_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="must be|invalid literal"):
        parse_sizes(text)


@pytest.mark.parametrize("text", ["", "16", "16x", "0x128", "1x2x3"])
def test_what_is_no_pair(text: str) -> None:
    with pytest.raises(ValueError, match="must be|invalid literal"):
        parse_weights(text)


def test_every_size_meets_every_other() -> None:
    problems = every_problem("contiguous", [4, 8], [128, 256], [(576, 7168)])
    assert [(p.num_groups, p.m, p.n, p.k) for p in problems] == [
        (4, 128, 576, 7168),
        (4, 256, 576, 7168),
        (8, 128, 576, 7168),
        (8, 256, 576, 7168),
    ]
    assert {(p.grouping, p.alignment) for p in problems} == {(Grouping.M_GROUPED, 128)}
    assert title(problems[0]) == "contiguous 4 x 128 x 576 x 7168"


def test_ranges_of_m_are_of_what_is_asked_for() -> None:
    one, many = ProblemRange(GemmProblem(7, 64, 128), 7), ProblemRange(GemmProblem(1, 64, 256), 64)
    found = within([one, many], [1, 16, 64, 128])
    assert [(p.m, p.k) for p in found] == [(7, 128), (1, 256), (16, 256), (64, 256)]
    assert within([one], []) == [GemmProblem(7, 64, 128)]
    with pytest.raises(ArgumentError, match=r"--m: must have an M in 1\.\.64, for problem dense"):
        within([many], [128])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "100a"}, "must be 90a and 0, got .'100a', 0"),
        ({"head_columns": 64}, "must be 90a and 0, got .'90a', 64"),
        ({"m": 2**31}, "m must be at most"),
        ({"n": 4}, "n must be a multiple of 8, got 4"),
        ({"k": 8}, "k must be a multiple of 16, got 8"),
    ],
)
def test_what_cannot_be_timed_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        check_problems([replace(GemmProblem(16, 64, 128), **changes)])  # type: ignore[arg-type]


def test_rows_of_the_tables_are_problems_of_the_library() -> None:
    assert len(choose_problems([])) == 42
    dense, decode, wgrad, k_grouped = choose_problems(
        ["16x576x7168", "decode-128x2112x2048*", "wgrad-*x576x*", "k_grouped-4*"]
    )
    assert dense == GemmProblem(16, 576, 7168)
    assert (decode.num_groups, decode.m, decode.alignment) == (128, 17, 1)
    assert (wgrad.m, wgrad.n, wgrad.gran_n, wgrad.d_bytes) == (576, 4096, 1, 4)
    assert (k_grouped.k, k_grouped.grouping) == (8576, Grouping.K_GROUPED)
    assert {p.alignment for p in choose_problems(["contiguous", "masked"])} == {1, 128}
    check_problems(choose_problems(["masked", "contiguous", "decode", "wgrad", "k_grouped"]))
    with pytest.raises(ValueError, match="names nothing|must be a table"):
        choose_problems(["nothing"])


def test_the_regret_of_choices_is_that_of_held_out_problems(tmp_path: Path) -> None:
    """M = 24 is chosen as the table has M = 32, which is not what the model takes."""
    path = tmp_path / "tune-x.jsonl"
    journal = Journal(path)
    for m in (24, 32):
        problem = GemmProblem(m, 2112, 7168)
        model = cheapest(problem)
        for config in candidates(replace(problem, splits_k=True)):
            us = 20.0 if config == model else 30.0
            us = 10.0 if config.block_n == 96 and config.cluster_size == 1 else us
            us = 5.0 if config.cluster_k == 4 and config.block_n == 64 else us
            journal.add([Measurement("x", "v", "k", problem, config, us)])
    journal.close()
    assert len(read_times(path)) == 2
    whole, split = report(path).split("Where K may be split:")
    first, second, model_line, table_line = whole.strip().splitlines()
    assert first.startswith("dense 24 x 2112 x 7168   2.000 1.000*")
    assert second.startswith("dense 32 x 2112 x 7168   2.000 2.000 ")
    assert model_line == (
        "the cost model: 2 of 2 choices measured: mean 2.0000, worst 2.000 times the best"
        " configuration's time"
    )
    assert "had 1 (*): 2 of 2 choices measured: mean 1.5000, worst 2.000" in table_line
    assert " 1.000* " in split.splitlines()[1]
    assert "best 32x64_" in split.splitlines()[1]


def test_old_sweeps_are_still_read() -> None:
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    every = read_times(results / "sweep-h100-80gb-hbm3-2026-11-22-rounds.jsonl")
    assert (len(every), sum(map(len, every.values()))) == (42, 425)
    assert set(every) == set(choose_problems([]))
