"""Problems as lines of JSON: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import multiprocessing
import warnings
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm import read_problems
from deep_gemm.calls import chosen
from deep_gemm.config.as_json import ARCHS, OF_CONFIGS, OF_MQA_PROBLEMS, OF_PROBLEMS
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.mqa_problem import HEAD_DIMS, HEADS, PAGE_KEYS, MqaProblem
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.problem_file import line_of, parse_line
from deep_gemm.config.reach import ProblemRange
from deep_gemm.errors import ArgumentError
from deep_gemm.record import forget_recorded

GROUPED = st.sampled_from([Grouping.M_GROUPED, Grouping.K_GROUPED])
SIZES = st.integers(1, 2**31 - 1)

PROBLEMS = st.builds(
    GemmProblem,
    *(SIZES, SIZES, SIZES, st.sampled_from(ARCHS), st.integers(1, 200), GROUPED, SIZES, SIZES),
    gran_n=st.sampled_from([1, 128]),
    d_bytes=st.sampled_from([2, 4]),
    block_multiple=st.tuples(SIZES, SIZES),
    head_columns=st.integers(0, 512),
    pdl=st.booleans(),
    splits_k=st.booleans(),
    mn_major=st.tuples(st.booleans(), st.booleans()),
    gran_k=st.tuples(st.sampled_from([32, 128]), st.sampled_from([32, 128])),
    gpu=st.text(),
)


@given(problem=PROBLEMS)
def test_what_is_written_is_read(problem: GemmProblem) -> None:
    assert parse_line(line_of(problem)) == ProblemRange(problem, problem.m)


MQA_PROBLEMS = st.builds(
    MqaProblem,
    *(st.sampled_from(HEADS), st.sampled_from(HEAD_DIMS), st.sampled_from([0, *PAGE_KEYS]), SIZES),
    logits_bytes=st.sampled_from([2, 4]),
    arch=st.sampled_from(ARCHS),
)


@given(problem=MQA_PROBLEMS)
def test_problems_of_logits_are_read_too(problem: MqaProblem) -> None:
    assert parse_line(line_of(problem)) == problem


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"heads": 12, "head_dim": 64}', 'field "heads": must be one of 8, 16, .*, got 12'),
        ('{"heads": 64}', 'field "head_dim" is missing'),
        ('{"heads": 64, "head_dim": 64, "m": 3}', 'field "m": must be one of heads, head_dim, '),
    ],
)
def test_what_is_no_problem_of_logits_is_named(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_line(line)


def test_every_field_can_be_given() -> None:
    assert set(OF_MQA_PROBLEMS) == {field.name for field in fields(MqaProblem)}
    assert set(OF_PROBLEMS) == {field.name for field in fields(GemmProblem)}
    assert set(OF_CONFIGS) == {field.name for field in fields(GemmConfig)}


def test_defaults_are_left_out() -> None:
    assert line_of(GemmProblem(1, 2, 3)) == '{"m": 1, "n": 2, "k": 3}'


def test_a_file(tmp_path: Path) -> None:
    lines = ['{"m": [1, 64], "n": 24, "k": 32}', "", '{"n": 24, "m": [1, 64], "k": 32}']
    grouped = '{"m": 5, "n": 24, "k": 32, "grouping": "m_grouped", "num_groups": 3}'
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join([*lines, grouped]))
    assert read_problems(path) == [
        ProblemRange(GemmProblem(1, 24, 32), 64),
        ProblemRange(GemmProblem(5, 24, 32, grouping=Grouping.M_GROUPED, num_groups=3), 5),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"m": 1, "n": 2', "not JSON: .* at column 16"),
        ("[1, 2, 3]", r"must be a JSON object, got \[1, 2, 3\]"),
        ('{"m": 1, "k": 2}', 'field "n" is missing'),
        ('{"m": 1, "n": 0, "k": 2}', r'field "n": must be in 1\.\.2147483647, got 0'),
        ('{"m": 1, "n": true, "k": 2}', 'field "n": must be an int, got true'),
        ('{"m": 1, "n": "8", "k": 2}', 'field "n": must be an int, got "8"'),
        ('{"m": [8, 1], "n": 8, "k": 2}', r'field "m": must not begin behind its end, got \[8, 1'),
        ('{"m": [8], "n": 8, "k": 2}', r'field "m": must be a list of two, got \[8\]'),
        ('{"m": 1, "n": 8, "k": 2, "bias": 1}', 'field "bias": must be one of m, n, k, arch'),
        ('{"m": 1, "n": 8, "k": 2, "d_bytes": 3}', 'field "d_bytes": must be one of 2, 4, got 3'),
        ('{"m": 1, "n": 8, "k": 2, "gran_n": true}', 'field "gran_n": must be one of 1, 128'),
        ('{"m": 1, "n": 8, "k": 2, "pdl": 1}', 'field "pdl": must be one of false, true, got 1'),
        (
            '{"m": 1, "n": 8, "k": 2, "arch": "80"}',
            'field "arch": must be one of "90a", .*, got "80"',
        ),
        ('{"m": 1, "n": 8, "k": 2, "grouping": "x"}', 'field "grouping": must be one of "dense"'),
        ('{"m": 1, "n": 8, "k": 2, "num_groups": 2}', 'field "num_groups": must be 1 of a dense'),
    ],
)
def test_an_error_names_line_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"m": 1, "n": 8, "k": 16}\n\n' + line)
    with pytest.raises(ArgumentError, match=f"problems.jsonl line 3: {message}"):
        read_problems(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="path: .*gone.jsonl cannot be read"):
        read_problems(tmp_path / "gone.jsonl")


@pytest.fixture
def record_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DG_JIT_RECORD", str(tmp_path / "record.jsonl"))
    forget_recorded()
    return tmp_path / "record.jsonl"


def test_a_call_is_recorded_once(record_file: Path) -> None:
    first, second = GemmProblem(3, 24, 32), GemmProblem(4, 24, 32, d_bytes=4)
    for problem in (first, second, first):
        chosen(problem)
    assert read_problems(record_file) == [ProblemRange(first, 3), ProblemRange(second, 4)]
    assert len(record_file.read_text().splitlines()) == 2


def test_without_the_knob_nothing_is_recorded(
    record_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DG_JIT_RECORD")
    chosen(GemmProblem(3, 24, 32))
    assert not record_file.exists()


def _choose(first: int) -> None:
    for m in range(first, first + 200):
        chosen(GemmProblem(m, 24, 32))


def test_many_processes_may_record(record_file: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_choose, args=(1 + 100 * i,)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(record_file.read_text().splitlines()) == 4 * 200
    assert {every.problem.m for every in read_problems(record_file)} == set(range(1, 501))


def test_a_record_that_cannot_be_written_costs_one_warning(
    tmp_path: Path, record_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DG_JIT_RECORD", str(tmp_path))
    with pytest.warns(RuntimeWarning, match="DG_JIT_RECORD: .* cannot be written") as caught:
        chosen(GemmProblem(3, 24, 32))
        chosen(GemmProblem(4, 24, 32))
    assert len(caught) == 1
    warnings.simplefilter("error")
    chosen(GemmProblem(5, 24, 32))
