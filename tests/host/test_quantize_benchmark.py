"""The quantise table: its rows, what they move, and how they are printed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.bandwidth import render, row_of
from benchmarks.quantize import PROBLEMS, Problem, definition
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


def test_rows_without_a_definition_have_none() -> None:
    us = {"ours": [130.0, 120.0, 125.0], "eager": [2000.0] * 3, "compiled": [400.0] * 3}
    whole, grouped = Problem("per_token", 16384, 7168), Problem("masked", 64, 128, valid=0)
    rows = [row_of("quantize", whole, us, 12.5), row_of("quantize", grouped, {"ours": [3.0]}, 9.0)]
    head, _, first, second = render({"rows": rows}).splitlines()
    assert head.startswith("| problem | ours, us | of HBM | eager, us | of HBM | compiled, us |")
    assert first.startswith("| per_token 16384 x 7168 bfloat16 | 125.0 | 85 % | 2000.0 | 5 % |")
    assert second == "| masked 64 x 128 bfloat16, 0 rows | 3.0 | 0 % | - | - | - | - | 9.0 |"


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
