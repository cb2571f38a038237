"""`python -m deep_gemm explain`: as a table and as JSON; what it says is what selection does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deep_gemm.cli import explain, main
from deep_gemm.cli.floor import ASSUMED_GPU
from deep_gemm.config.cost_model import estimate
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import offered, select
from deep_gemm.config.sm90 import candidates, shapes
from deep_gemm.jit.build import forget_builds


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    forget_builds()


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main.main(["explain", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    problem = GemmProblem(4096, 7168, 2048, splits_k=True, gpu=ASSUMED_GPU)
    said, chosen = facts(capsys, "4096", "7168", "2048"), select(problem)
    assert said["problem"] | {"m": 4096, "grouping": "dense"} == said["problem"]
    assert (said["chosen"], said["band"]) == (chosen.config.name, chosen.band)
    rows = {row["kernel"]: row for row in said["candidates"]}
    configs = dict.fromkeys([*candidates(problem), *offered(problem)])
    assert set(rows) == {config.name for config in configs}
    for config in configs:
        row, cost = rows[config.name], estimate(problem, config)
        assert (row["us"], row["waves"], row["bound"]) == (cost.us, cost.waves, cost.bound)
        assert (row["num_stages"], row["smem_bytes"]) == (config.num_stages, config.smem_bytes)
        assert row["is_kept"] == (config in offered(problem))
        assert row["is_chosen"] == (config == chosen.config)
    times = [row["us"] for row in said["candidates"]]
    assert times == sorted(times)
    assert said["compiled"] is None


def test_every_shape_is_a_candidate_or_removed_by_a_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = GemmProblem(4096, 7168, 2048)
    removed = facts(capsys, "4096", "7168", "2048")["removed"]
    left = {(c.block_m, c.block_n, c.cluster_m, c.cluster_n) for c in candidates(problem)}
    assert len(removed) + len(left) == len(list(shapes(problem)))
    assert {rule.partition(":")[0] for row in removed for rule in row["rules"]} == {
        "sums_fit_registers"
    }
    assert all(row["rules"] for row in removed)


def test_a_shape_that_heads_rule_out_is_removed() -> None:
    problem = GemmProblem(4096, 7168, 2048, head_columns=16)
    rules = {why.partition(":")[0] for _, reasons in explain.removed(problem) for why in reasons}
    assert rules == {"sums_fit_registers", "stores_heads"}


def test_the_roofline_counts_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ("64", "4096", "7168")
    one = facts(capsys, *sizes)["roofline"]
    many = facts(capsys, *sizes, "--kind", "masked", "--groups", "32")["roofline"]
    assert one["flop"] == 2 * 64 * 4096 * 7168 and many["flop"] == 32 * one["flop"]
    assert many["flop_per_byte"] == many["flop"] / many["bytes"]
    assert many["floor_us"] > 20 * one["floor_us"]
    h200 = facts(capsys, *sizes, "--gpu", "NVIDIA H200")["roofline"]
    assert h200["floor_us"] < one["floor_us"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), GemmProblem(8, 64, 256, splits_k=True)),
        (("--1d1d", "--fp32"), GemmProblem(8, 64, 256, gran_n=1, d_bytes=4)),
        (
            ("--kind", "contiguous", "--groups", "4", "--num-sms", "78"),
            GemmProblem(8, 64, 256, "90a", 78, Grouping.M_GROUPED, 4, 128),
        ),
        (
            ("--kind", "masked", "--groups", "4"),
            GemmProblem(8, 64, 256, "90a", 132, Grouping.M_GROUPED, 4, 1),
        ),
        (
            ("--kind", "k-grouped", "--groups", "4"),
            GemmProblem(8, 64, 256, "90a", 132, Grouping.K_GROUPED, 4, gran_n=1),
        ),
    ],
    ids=str,
)
def test_options_are_a_problem(
    options: tuple[str, ...], expected: GemmProblem, capsys: pytest.CaptureFixture[str]
) -> None:
    said = facts(capsys, "8", "64", "256", *options)
    assert said["chosen"] == select(expected).config.name
    assert said["problem"]["num_groups"] == expected.num_groups
    assert said["problem"]["alignment"] == expected.alignment
    assert said["problem"]["num_sms"] == expected.num_sms


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["explain", "4096", "7168", "2048", "--top", "3"]) == 0
    out, err = capsys.readouterr()
    top, table, removed = out.strip().split("\n\n")
    name = select(GemmProblem(4096, 7168, 2048, splits_k=True, gpu=ASSUMED_GPU)).config.name
    assert err == "" and "75.2 us: 120.3 GFLOP at 1600 TFLOPS" in top
    assert "below the compute roof" in top and "not in the cache" in top
    header, *rows = table.splitlines()
    assert header.split()[:3] == ["kernel", "us", "waves"] and 3 <= len(rows) <= 4
    assert [row.split()[1] for row in rows if row.startswith("chosen")] == [name]
    assert "sums_fit_registers" in removed and "the limit is 224" in removed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["8", "8", "64", "--groups", "3"], "--groups: needs --kind, got 3"),
        (["8", "8", "64", "--kind", "masked", "--1d1d"], "--1d1d: m-grouped products have"),
        ([str(2**31), "8", "64"], "m must be at most 2147483647"),
    ],
)
def test_what_cannot_be_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["explain", *arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and message in err
