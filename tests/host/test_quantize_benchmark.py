"""The quantise table: its rows, what they move, and how they are printed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.quantize import PROBLEMS, Problem, definition, render, row_of
from deep_gemm.testing.quantize_reference import cast_blocks_reference


def test_what_a_cast_moves() -> None:
    cast = Problem("per_token", 256, 1024)
    assert cast.num_bytes == 256 * 1024 * 3 + 256 * 8 * 4
    assert Problem("per_token", 256, 1024, use_ue8m0=True).num_bytes == 256 * 1024 * 3 + 256 * 8
    assert Problem("per_channel", 256, 1024, torch.float32).num_bytes == 256 * 1024 * 5 + 2 * 4096
    assert Problem("per_block", 256, 1024).num_bytes == 256 * 1024 * 3 + 2 * 8 * 4
    assert Problem("swiglu", 256, 1024).num_bytes == 256 * 1024 * 5 + 256 * 8 * 4
    assert Problem("masked", 256, 1024, valid=32).num_bytes == cast.num_bytes / 8
    assert Problem("masked", 256, 1024, valid=0).num_bytes == 0


def test_a_row_is_the_median_of_passes() -> None:
    us = {"ours": [130.0, 120.0, 125.0], "eager": [2000.0] * 3, "compiled": [400.0] * 3}
    problem = Problem("per_token", 16384, 7168)
    row = row_of(problem, us, host_us=12.5)
    assert (row["ours_us"], row["eager_us"], row["host_us"]) == (125.0, 2000.0, 12.5)
    share = problem.num_bytes / 125e-6 / 3.35e12
    assert row["hbm_share"]["ours"] == pytest.approx(share, abs=1e-4)
    assert row["spread"]["ours"] == pytest.approx(10 / 125, abs=1e-4)
    _, _, line = render({"rows": [row]}).splitlines()
    wanted = f"| per_token | 16384 x 7168 | 16384 | bfloat16 | 356 | 125.0 | {100 * share:.0f} % |"
    assert line.startswith(wanted) and line.endswith("| 2000.0 | 400.0 | 12.5 |")
    alone = row_of(Problem("masked", 64, 128, valid=0), {"ours": [3.0]}, host_us=9.0)
    assert render({"rows": [alone]}).splitlines()[-1].endswith("| 3.0 | 0 % | - | - | 9.0 |")


def test_the_rows_have_tensors_beyond_the_l2_of_every_kind() -> None:
    assert len(set(PROBLEMS)) == len(PROBLEMS)
    for kind in {problem.kind for problem in PROBLEMS}:
        assert max(problem.num_bytes for problem in PROBLEMS if problem.kind == kind) > 128e6


def test_the_definition_is_that_of_the_kind() -> None:
    x = torch.randn(256, 512)
    for kind, blocks in (("per_token", (1, 128)), ("per_channel", (128, 1))):
        data, sf = definition(Problem(kind, 256, 512), x)
        wanted = cast_blocks_reference(x, *blocks, False)
        assert torch.equal(sf, wanted[1])
        assert torch.equal(data.view(torch.uint8), wanted[0].view(torch.uint8))
    assert definition(Problem("swiglu", 256, 256), x)[0].shape == (256, 256)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantize"]) == 1
    assert "needs an NVIDIA GPU" in capsys.readouterr().err
