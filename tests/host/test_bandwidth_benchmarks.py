"""The tables of kernels that only move memory: their rows, and how they are printed."""

from __future__ import annotations

import pytest
import torch

from benchmarks import layouts, transpose
from benchmarks.__main__ import main
from benchmarks.bandwidth import DATA_SHEET_BYTES_PER_US, render, row_of
from benchmarks.layouts import KGroupedPacking, Packing
from benchmarks.transpose import Transposition


def test_a_row_is_the_median_of_passes() -> None:
    problem = Transposition(4096, 7168, torch.float8_e4m3fn)
    us = {"ours": [22.0, 20.0, 21.0], "torch": [100.0] * 3, "copy": [20.0] * 3}
    row = row_of("transpose", problem, us, host_us=12.5)
    assert (row["ours_us"], row["torch_us"], row["host_us"]) == (21.0, 100.0, 12.5)
    assert row["bytes"] == 2 * 4096 * 7168
    assert row["hbm_share"]["torch"] == pytest.approx(row["bytes"] / 1e-4 / 3.35e12, abs=1e-4)
    assert row["spread"]["ours"] == pytest.approx(2 / 21, abs=1e-4)
    _, _, line = render({"rows": [row]}).splitlines()
    assert line.startswith("| 4096 x 7168 float8_e4m3fn | 21.0 | 83 % | 100.0 | 18 % |")


def test_the_rows_have_tensors_beyond_the_l2_of_every_kind() -> None:
    problems = (*transpose.PROBLEMS, *layouts.PROBLEMS)
    assert len({str(problem) for problem in problems}) == len(problems)
    for kind in ("float8_e4m3fn", "float32", "pack"):
        assert max(problem.num_bytes for problem in problems if kind in str(problem)) > 128e6
    assert DATA_SHEET_BYTES_PER_US == 3.35e12 / 1e6


def test_the_bytes_of_a_packing_are_those_of_source_and_output() -> None:
    assert Packing(100, 7).num_bytes == 4 * 100 * 7 + 4 * 100 * 2
    groups = KGroupedPacking(8, 4, (0, 1, 5), spare=1)
    assert groups.rows == [1, 1, 5, 0]
    assert groups.num_bytes == 4 * 8 * (7 + 4)
    assert groups.places() == [0, -1, -1, -1, 1, -1, -1, -1, 2, 3, 4, 5, 6, -1, -1, -1]


def test_the_groups_are_those_that_the_reference_was_measured_with() -> None:
    assert any(
        isinstance(problem, KGroupedPacking)
        and (problem.num_groups, problem.mn, 128 * sum(problem.rows)) == (128, 7168, 41344)
        for problem in layouts.PROBLEMS
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("verb", ["transpose", "layouts"])
def test_without_a_gpu_it_says_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
