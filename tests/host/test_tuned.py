"""Tables of measured configurations: their files, and what selection takes from them."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.calls import chosen
from deep_gemm.cli import demo, main
from deep_gemm.config import tuned
from deep_gemm.config.as_json import config_from_json, problem_from_json, to_json
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.reach import ProblemRange, kernels_of
from deep_gemm.config.select import cheapest, explain, select
from deep_gemm.config.sm90 import candidates, is_candidate
from deep_gemm.config.tuned import Table, find
from deep_gemm.config.tuned_file import Entry, Timed, document, plain, read
from deep_gemm.errors import ArgumentError
from deep_gemm.tuning.problems import KINDS

GPU = "NVIDIA H100 80GB HBM3"
FILE = "h100-80gb-hbm3.json"

PROBLEM = GemmProblem(16, 2112, 7168)
OTHER = GemmConfig(16, 48, 15, 1)
SPLIT = GemmConfig(16, 64, 12, 1, cluster_k=4)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a user's tables are; selection remembers nothing of before, or afterwards."""
    monkeypatch.setenv("DG_TUNED_DIR", str(tmp_path))
    monkeypatch.setattr(tuned, "PACKAGED", tmp_path / "packaged")
    tuned.table_of.cache_clear()
    select.cache_clear()
    yield tmp_path
    tuned.table_of.cache_clear()
    select.cache_clear()


def legal(config: GemmConfig, problem: GemmProblem = PROBLEM) -> GemmConfig:
    """The candidate of this block and cluster."""
    return next(
        c
        for c in candidates(replace(problem, splits_k=True))
        if (c.block_n, c.cluster_k) == (config.block_n, config.cluster_k) and c.cluster_size <= 4
    )


def entries() -> list[Entry]:
    """Of one kind each."""
    best, split, model = legal(OTHER), legal(SPLIT), cheapest(PROBLEM)
    grouped = replace(KINDS["contiguous"], m=256, n=4096, k=7168, num_groups=8)
    wgrad = replace(KINDS["wgrad"], m=4096, n=512, k=1024)
    return [
        Entry(PROBLEM, Timed(best, 8.25), Timed(split, 7.125), Timed(model, 8.5)),
        Entry(grouped, Timed(cheapest(grouped), 400.0)),
        Entry(wgrad, Timed(cheapest(wgrad), 50.5), None, Timed(cheapest(wgrad), 50.5)),
    ]


def test_a_table_comes_back_from_its_file(folder: Path) -> None:
    path = folder / FILE
    path.write_text(document(GPU, entries()))
    assert sorted(map(repr, read(path, GPU))) == sorted(map(repr, entries()))
    # The order in which they come makes no difference, and a line is an entry.
    assert document(GPU, reversed(entries())) == path.read_text()
    assert len(path.read_text().splitlines()) == 2 + len(entries())
    assert json.loads(path.read_text())["num_sms"] == 132


def test_a_file_is_of_one_kind_of_gpu() -> None:
    few = Entry(replace(PROBLEM, num_sms=78), Timed(legal(OTHER), 9.0))
    with pytest.raises(ArgumentError, match="one architecture and number of SMs"):
        document(GPU, [*entries(), few])


def test_selection_takes_what_was_measured(folder: Path) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    on_gpu = replace(PROBLEM, gpu=GPU)
    assert select(on_gpu).config == legal(OTHER) != cheapest(PROBLEM)
    assert select(replace(on_gpu, splits_k=True)).config == legal(SPLIT)
    # What does not change how long a configuration takes changes nothing.
    assert select(replace(on_gpu, pdl=True)).config == legal(OTHER)
    # Whatever the table does not speak of is the cost model's.
    for other in (
        PROBLEM,
        replace(on_gpu, gpu="NVIDIA H200"),
        replace(on_gpu, num_sms=100),
        replace(on_gpu, n=2176),
        replace(on_gpu, m=17),
        replace(on_gpu, d_bytes=4),
        replace(on_gpu, gran_n=1),
        replace(on_gpu, block_multiple=(1, 64)),
    ):
        assert select(other).config == cheapest(other), other


def test_fewer_rows_take_the_entry_above_while_the_blocks_are_as_many() -> None:
    def entry(m: int, block_m: int) -> Entry:
        problem = replace(PROBLEM, m=m)
        config = next(c for c in candidates(problem) if c.block_m == block_m and c.block_n == 64)
        return Entry(problem, Timed(config, 10.0))

    table = Table([entry(16, 16), entry(128, 64), entry(512, 128)])

    def found(m: int) -> int | None:
        timed = table.find(replace(PROBLEM, m=m))
        return None if timed is None else timed.config.block_m

    assert [found(m) for m in (1, 9, 16)] == [16, 16, 16]
    assert [found(m) for m in (17, 64)] == [None, None], "one row of blocks, not two"
    assert [found(m) for m in (65, 100, 128)] == [64, 64, 64]
    assert [found(m) for m in (129, 384)] == [None, None]
    assert [found(m) for m in (385, 512)] == [128, 128]
    assert found(513) is None


SIZES = st.integers(1, 600)


@given(
    problem=st.builds(
        GemmProblem,
        m=SIZES,
        n=st.sampled_from([8, 576, 2112, 4096]),
        k=st.sampled_from([128, 512, 7168]),
        num_sms=st.sampled_from([1, 2, 3, 132]),
        grouping=st.sampled_from(Grouping),
        num_groups=st.sampled_from([1, 8]),
        gran_n=st.sampled_from([1, 128]),
        d_bytes=st.sampled_from([2, 4]),
        block_multiple=st.sampled_from([(1, 1), (64, 48), (1, 32)]),
        splits_k=st.booleans(),
    ),
    tuned_m=SIZES,
    picks=st.tuples(st.integers(0), st.integers(0)),
    block_m=st.sampled_from([16, 64, 128, 192]),
)
def test_a_table_never_gives_what_is_no_candidate(
    problem: GemmProblem, tuned_m: int, picks: tuple[int, int], block_m: int
) -> None:
    """Nor another number of rows of blocks, even where a table says nonsense."""
    measured = plain(replace(problem, m=tuned_m))
    offered = list(candidates(replace(measured, splits_k=True)))
    best, split = (offered[pick % len(offered)] for pick in picks)
    nonsense = replace(best, block_m=block_m, num_stages=2)
    table = Table(
        [Entry(measured, Timed(nonsense if picks[0] % 5 == 0 else best, 1.0), Timed(split, 0.5))]
    )
    found = table.find(problem)
    if found is None:
        return
    config = found.config
    assert problem.m <= tuned_m
    assert not broken_rules(config)
    assert config in list(candidates(problem))
    assert -(-problem.m // config.block_m) == -(-tuned_m // config.block_m)
    assert config.cluster_k == 1 or problem.splits_k


@given(st.sampled_from([1, 16, 40, 64, 300]), st.sampled_from(Grouping), st.booleans())
def test_a_candidate_is_known_without_looking_at_all(
    m: int, grouping: Grouping, splits_k: bool
) -> None:
    problem = GemmProblem(m, 2112, 7168, grouping=grouping, splits_k=splits_k)
    every = set(candidates(problem))
    others = set(candidates(GemmProblem(512, 2112, 7168))) | {
        replace(c, num_stages=2) for c in every
    }
    for config in every | others:
        assert is_candidate(problem, config) == (config in every)


def broken(change: str) -> str:
    """A table with one thing wrong."""
    whole = json.loads(document(GPU, entries()))
    first = next(row for row in whole["entries"] if "split_config" in row)
    if change == "illegal":
        first["config"]["num_stages"] = 31
    elif change == "unknown field":
        first["config"]["swap_ab"] = True
    elif change == "unknown field of the problem":
        first["problem"]["colour"] = 3
    elif change == "no problem":
        del first["problem"]
    elif change == "no time":
        first["us"] = "fast"
    elif change == "a list":
        whole["entries"][whole["entries"].index(first)] = [1, 2]
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("illegal", "shared_memory_fits"),
        ("unknown field", "swap_ab"),
        ("unknown field of the problem", "colour"),
        ("no problem", "must have a problem"),
        ("no time", "must be a number"),
        ("a list", "must have a problem"),
    ],
)
def test_an_entry_that_is_no_good_is_left_out_with_one_warning(
    folder: Path, change: str, message: str
) -> None:
    (folder / FILE).write_text(broken(change))
    with pytest.warns(RuntimeWarning, match=f"1 of 3 entries .*{message}") as caught:
        assert select(replace(PROBLEM, gpu=GPU)).config == cheapest(PROBLEM)
        assert select(replace(PROBLEM, m=8, gpu=GPU)).config == cheapest(replace(PROBLEM, m=8))
    assert len(caught) == 1
    # The others count all the same.
    assert len(tuned.table_of(GPU).entries) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting"),
        ("[]", "schema: must be 1, got 'list'"),
        ('{"schema": 2}', "schema: must be 1, got 2"),
        ('{"schema": 1, "gpu": "NVIDIA H20"}', "gpu: must be"),
        (f'{{"schema": 1, "gpu": "{GPU}", "entries": 3}}', "entries: must be a list"),
        ("\ud800", "codec"),
    ],
)
def test_a_table_that_cannot_be_read_is_left_out_with_one_warning(
    folder: Path, text: str, message: str
) -> None:
    (folder / FILE).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.warns(RuntimeWarning, match=message) as caught:
        assert select(replace(PROBLEM, gpu=GPU)).config == cheapest(PROBLEM)
        select(replace(PROBLEM, m=8, gpu=GPU))
    assert len(caught) == 1


def test_the_user_s_table_wins_and_the_packaged_one_fills_in(folder: Path) -> None:
    packaged, own = entries()[0], legal(GemmConfig(16, 96, 10, 1))
    further = replace(PROBLEM, n=576)
    (folder / "packaged").mkdir()
    tables = {
        folder / "packaged": [packaged, Entry(further, Timed(legal(OTHER), 5.0))],
        folder: [Entry(PROBLEM, Timed(own, 8.0))],
    }
    for place, rows in tables.items():
        (place / FILE).write_text(document(GPU, rows))
    assert select(replace(PROBLEM, gpu=GPU)).config == own
    assert select(replace(further, gpu=GPU)).config == legal(OTHER)


def test_nothing_is_read_without_a_gpu_or_before_the_first_problem(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def spying(path: Path, gpu: str) -> list[Entry]:
        asked.append(path.name)
        return []

    monkeypatch.setattr(tuned, "read", spying)
    select(PROBLEM)
    assert asked == []
    select(replace(PROBLEM, gpu=GPU))
    select(replace(PROBLEM, m=8, gpu=GPU))
    assert asked == [FILE, FILE], "the packaged one and the user's, once"


def test_importing_reads_no_table() -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
import deep_gemm, deep_gemm.calls
bad = [name for name in opened if isinstance(name, str) and "tuned" in name and "json" in name]
sys.exit(bool(bad))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_it_says_when_a_table_has_chosen(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    on_gpu = replace(PROBLEM, gpu=GPU)
    line = f"chosen {legal(OTHER).name}: 8.2 us as measured on {GPU}"
    assert line in explain(on_gpu)
    assert explain(on_gpu).count("chosen") == 1
    assert explain(PROBLEM).count("chosen") == 1
    assert "measured" not in explain(PROBLEM)
    monkeypatch.setenv("DG_PRINT_CONFIGS", "1")
    assert chosen(on_gpu).config == legal(OTHER)
    assert line in capsys.readouterr().err


def test_without_a_table_nothing_changes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert select(replace(PROBLEM, gpu=GPU)) == select(PROBLEM)


@pytest.mark.parametrize("grouping", Grouping)
def test_configurations_come_back_from_json(grouping: Grouping) -> None:
    config = GemmConfig(16, 32, 4, 1, grouping=grouping, d_bytes=4)
    assert config_from_json(json.loads(json.dumps(to_json(config)))) == config
    # Only what is not as usual is said.
    assert len(to_json(GemmConfig(16, 32, 4, 1))) == 4


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([], "must be a JSON object"),
        ({"block_m": 16, "block_n": 32, "num_stages": 4}, '"num_math_warpgroups" is missing'),
        ({**to_json(OTHER), "block_k": 64}, '"block_k": must be one of block_m, '),
        ({**to_json(OTHER), "d_bytes": 3}, '"d_bytes": must be one of 2, 4'),
    ],
)
def test_a_configuration_that_is_none_is_refused(row: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_json(row)


def test_a_problem_of_a_table_has_one_m() -> None:
    with pytest.raises(ValueError, match="must be one number here"):
        problem_from_json({"m": [1, 2], "n": 8, "k": 16})


def test_few_kernels_are_no_others(folder: Path) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    confined = replace(PROBLEM, gpu=GPU, few_kernels=True)
    assert select(confined).config == cheapest(confined)
    assert find(confined) is None


@given(st.lists(st.tuples(SIZES, st.integers(0)), min_size=1, max_size=5), SIZES, SIZES)
def test_what_is_precompiled_is_all_that_a_table_gives(
    tuned_ms: list[tuple[int, int]], one: int, other: int
) -> None:
    rows = []
    for m, pick in tuned_ms:
        problem = replace(PROBLEM, m=m)
        offered = list(candidates(problem))
        rows.append(Entry(problem, Timed(offered[pick % len(offered)], 1.0)))
    table = Table(rows)
    first, last = sorted((one, other))
    asked = replace(PROBLEM, m=first)
    given_out = (table.find(replace(PROBLEM, m=m)) for m in range(first, last + 1))
    needed = {timed.config for timed in given_out if timed is not None}
    assert needed <= set(table.configs(asked, last))


def test_kernels_of_tables_are_precompiled(folder: Path) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    assert legal(OTHER) in kernels_of([ProblemRange(replace(PROBLEM, m=1, gpu=GPU), 16)])
    assert legal(OTHER) not in kernels_of([ProblemRange(replace(PROBLEM, m=1), 16)])


def test_the_demo_names_the_entry(folder: Path) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    rows = dict(demo._cost_rows(replace(PROBLEM, gpu=GPU)))
    assert rows["measured"] == "8.2 us; it was chosen from a table of this GPU"
    assert rows["cost model"].startswith(f"would take {cheapest(PROBLEM).name}: ")
    assert "measured" not in dict(demo._cost_rows(PROBLEM))


def test_explain_names_the_entry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / FILE).write_text(document(GPU, entries()))
    command = ["explain", "16", "2112", "7168", "--gpu", GPU, "--json"]
    assert main.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["measured"] == {"kernel": legal(SPLIT).name, "us": 7.125}
    assert facts["chosen"] == legal(SPLIT).name
    assert main.main(command[:-1]) == 0
    assert "7.1 us: chosen by a table" in capsys.readouterr().out
    assert main.main(["explain", "17", *command[2:]]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] is None
