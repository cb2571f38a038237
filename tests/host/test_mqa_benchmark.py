"""The MQA table: its rows, their floors, and how they are printed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.mqa import Options, choose, measure, render, row_of
from benchmarks.mqa_problems import FP8_FLOP_PER_US, PROBLEMS, MqaProblem


def test_a_name_says_all_of_a_problem() -> None:
    assert len({str(problem) for problem in PROBLEMS}) == len(PROBLEMS)
    assert [MqaProblem.parse(str(problem)) for problem in PROBLEMS] == list(PROBLEMS)


def test_who_sees_what() -> None:
    causal = MqaProblem("causal", 3, 8, 32, 64)
    assert causal.ends().tolist() == [6, 7, 8]
    assert causal.num_logits == 21
    assert MqaProblem("parallel", 4, 20, 32, 64).ends().tolist() == [9, 10, 19, 20]
    lens = MqaProblem("paged", 50, 1000, 64, 128, next_n=2).ends()
    assert lens.min() >= 500 and lens.max() <= 1000


def test_a_floor_is_of_the_tensor_cores_or_of_hbm() -> None:
    prefill = MqaProblem("causal", 8192, 8192, 64, 128)
    flop = 2 * (8192 * 8193 // 2) * 64 * 128
    assert prefill.floor_us == pytest.approx(flop / FP8_FLOP_PER_US)
    decoding = MqaProblem("paged", 64, 65536, 64, 128)
    assert decoding.floor_us > 2 * decoding.num_logits * 64 * 128 / FP8_FLOP_PER_US


def test_a_table_has_ratios_and_their_mean() -> None:
    first, second = MqaProblem("causal", 8, 64, 32, 64), MqaProblem("paged", 8, 64, 32, 64)
    rows = [
        row_of(first, {"ours": [10.0, 12.0, 11.0], "reference": [22.0] * 3}, {"ours": 1e-5}),
        row_of(second, {"ours": [5.0]}, {"ours": 1e-5}),
    ]
    _, _, prefill, decoding, *means = render({"rows": rows}).splitlines()
    assert prefill.startswith("| causal-8x64-h32-d64 | 11.0 | 22.0 | 2.00x |")
    assert decoding.startswith("| paged-8x64-h32-d64-n1 | 5.0 | - | - |")
    assert means == ["", "prefill: 2.00x in the geometric mean, 2.00x at worst"]


class Stopwatch:
    """Stands for a library: its times count up; one problem it cannot do."""

    def __init__(self, name: str, unable: str = "") -> None:
        self.name = name
        self._unable = unable
        self._us = 0.0

    def measure(self, problem: str, repeats: int) -> dict[str, float] | None:
        self._us += repeats
        return None if problem == self._unable else {"us": self._us, "max_error": 0.0}


def test_rows_are_saved_as_they_come() -> None:
    problems = choose(["causal-2048x2048-h64-d*"])
    libraries = [Stopwatch("ours"), Stopwatch("reference", unable=str(problems[1]))]
    saved: list[list[dict[str, object]]] = []
    options = Options(Path(), Path(), problems, passes=2, repeats=1)
    measure(libraries, options, saved.append)  # type: ignore[arg-type]
    assert [len(rows) for rows in saved] == [1, 2, 3, 3, 3, 3]
    assert [row["problem"] for row in saved[-1]] == [str(problem) for problem in problems]
    assert [row.get("ours_us") for row in saved[-1]] == [2.5, 3.5, 4.5]
    assert [row.get("reference_us") for row in saved[-1]] == [2.5, None, 4.5]


def test_no_row_is_begun_when_time_is_up() -> None:
    saved: list[object] = []
    measure([Stopwatch("ours")], Options(Path(), Path(), budget=-1), saved.append)  # type: ignore[list-item]
    assert saved == []


def test_rows_are_chosen_by_name() -> None:
    assert choose([]) == PROBLEMS
    paged = choose(["paged-*", "paged-32x8192-h64-d128-n1"])
    assert len(paged) == 12 and all(problem.is_paged for problem in paged)
    with pytest.raises(ValueError, match="must match a name such as causal-2048x2048"):
        choose(["masked-*"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mqa"]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
