"""The transpose table: its rows, and how they are printed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.transpose import DATA_SHEET_BYTES_PER_US, PROBLEMS, Problem, render, row_of


def test_a_row_is_the_median_of_passes() -> None:
    problem = Problem(4096, 7168, torch.float8_e4m3fn)
    us = {"ours": [22.0, 20.0, 21.0], "torch": [100.0] * 3, "copy": [20.0] * 3}
    row = row_of(problem, us, host_us=12.5)
    assert (row["ours_us"], row["torch_us"], row["host_us"]) == (21.0, 100.0, 12.5)
    assert row["bytes"] == 2 * 4096 * 7168
    assert row["hbm_share"]["torch"] == pytest.approx(row["bytes"] / 1e-4 / 3.35e12, abs=1e-4)
    assert row["spread"]["ours"] == pytest.approx(2 / 21, abs=1e-4)
    _, _, line = render({"rows": [row]}).splitlines()
    assert line.startswith("| 4096 x 7168 | float8_e4m3fn | 21.0 | 83 % | 100.0 | 18 % |")


def test_the_rows_have_tensors_beyond_the_l2_of_both_types() -> None:
    assert len(set(PROBLEMS)) == len(PROBLEMS)
    for dtype in (torch.float8_e4m3fn, torch.float32):
        largest = max(problem.num_bytes for problem in PROBLEMS if problem.dtype == dtype)
        assert largest > 128e6
    assert DATA_SHEET_BYTES_PER_US == 3.35e12 / 1e6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transpose"]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
