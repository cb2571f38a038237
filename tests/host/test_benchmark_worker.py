"""How a peer is checked and timed, on the CPU with pretended kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

import deep_gemm
from benchmarks.case import Case
from benchmarks.operands import Normal, Operands, Zeros
from benchmarks.peers import CublasLt, Ours, dense_case
from benchmarks.problems import AnyProblem, Problem
from benchmarks.worker import Worker
from deep_gemm.testing.profiler import DeviceEvent
from deep_gemm.testing.random_operands import mn_major
from deep_gemm.testing.reference import fp8_gemm_nt_yardstick

ROOT = Path(__file__).parents[2]
NAME = "8x48x256"
PROBLEM = Problem.parse(NAME)

Launch = Callable[[], object]


def operands(problem: Problem, set_idx: int = 0) -> Operands:
    return Operands.build(problem, Normal(problem, set_idx, "cpu"))


class PretendedPeer:
    """Variants that are right, off by one element, and silent."""

    def variants(self, problem: AnyProblem) -> tuple[str, ...]:
        return ("right", "off", "silent")

    def case(self, variant: str, x: Operands) -> Case:
        a, b = (x.a, x.sfa), (x.b, x.sfb)

        def launch() -> None:
            if variant != "silent":
                x.d.copy_(fp8_gemm_nt_yardstick(a, b))
            if variant == "off":
                x.d[3, 5] += 10

        return dense_case(launch, a, b, x.d)

    def counts(self, kernel: str) -> bool:
        return "gemm_" in kernel

    def versions(self) -> dict[str, str]:
        return {}


def record(calls: Sequence[Launch], flush_l2: bool) -> list[list[DeviceEvent]]:
    """A profiler for which each call's two kernels take as long as its place in the line."""
    assert flush_l2
    for call in calls:
        call()
    events = (("sm90_gemm_x", 1.0 * index) for index in range(len(calls)))
    return [[DeviceEvent(*event[:1], 0, event[1]), DeviceEvent("copy", 0, 5)] for event in events]


def test_operands_are_the_same_in_every_process() -> None:
    first, again, other = (operands(PROBLEM, index) for index in (0, 0, 1))
    for name in ("a", "sfa", "b", "sfb"):
        bits = [getattr(x, name).view(torch.uint8) for x in (first, again, other)]
        assert torch.equal(bits[0], bits[1])
        assert not torch.equal(bits[0], bits[2])
    zeros = Operands.build(PROBLEM, Zeros("cpu"))
    for name in ("a", "sfa", "b", "sfb", "d"):
        made, zero = getattr(first, name), getattr(zeros, name)
        assert (made.shape, made.dtype, made.stride()) == (zero.shape, zero.dtype, zero.stride())


def test_operands_that_are_cast_in_parts_have_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deep_gemm.testing.random_operands._CAST_NUMEL", 256 * 128)
    for cast, shape in (("by_token", (300, 2)), ("by_block", (3, 2))):
        data, sf = getattr(Normal(PROBLEM, 0, "cpu"), cast)(300, 256)
        assert (data.shape, data.dtype) == ((300, 256), torch.float8_e4m3fn)
        assert (sf.shape, sf.is_contiguous()) == (shape, True)
        assert data[299].float().abs().max() > 100


@pytest.mark.parametrize("rows", [1, 5, 8])
def test_mn_major_scale_factors_are_tma_aligned(rows: int) -> None:
    sf = torch.rand(rows, 3)
    aligned = -(-rows // 4) * 4
    copy = mn_major(sf)
    assert torch.equal(copy, sf)
    assert copy.stride() == (1, aligned)
    batch = mn_major(sf.expand(2, rows, 3))
    assert torch.equal(batch[1], sf)
    assert batch.stride() == (3 * aligned, 1, aligned)


def test_only_right_variants_are_timed() -> None:
    worker = Worker(PretendedPeer(), "cpu", record)
    reply = worker.prepare(NAME)
    assert reply["max_error"] == {"right": pytest.approx(0.01, abs=0.01)}
    assert "wrong result: max_error" in reply["errors"]["off"]
    assert "NaN" in reply["errors"]["silent"]
    # Two other kernels' worth of places in line, and the copy does not count.
    reply = worker.measure([NAME], repeats=3)
    assert reply == {"us": {NAME: {"right": [0, 1, 2]}}, "num_kernels": {NAME: {"right": 1}}}


def test_problems_take_turns_within_a_pass() -> None:
    worker = Worker(PretendedPeer(), "cpu", record)
    for name in (NAME, "4x16x128"):
        worker.prepare(name)
    us = worker.measure([NAME, "4x16x128"], repeats=2)["us"]
    assert us == {NAME: {"right": [0, 2]}, "4x16x128": {"right": [1, 3]}}


def test_a_call_without_its_kernel_is_an_error() -> None:
    def record_copies(calls: Sequence[Launch], flush_l2: bool) -> list[list[DeviceEvent]]:
        return [[DeviceEvent("copy", 0, 1)] for _ in calls]

    worker = Worker(PretendedPeer(), "cpu", record_copies)
    worker.prepare(NAME)
    with pytest.raises(RuntimeError, match=r"right 8x48x256: no kernel .*copy"):
        worker.measure([NAME], repeats=2)


def test_host_time_is_taken_over_rotating_operands() -> None:
    worker = Worker(PretendedPeer(), "cpu", record)
    worker.prepare(NAME)
    us = worker.host(NAME, repeats=20)["us"]
    assert list(us) == ["right"]
    assert us["right"] > 0


def test_scale_factors_lie_as_scaled_mm_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(torch, "_scaled_mm", lambda *args, **options: seen.update(options))
    x = operands(Problem(16, 256, 512))
    CublasLt().case("cublaslt", x).launch()
    assert (seen["scale_a"].shape, seen["scale_a"].stride()) == ((16, 4), (1, 16))
    assert (seen["scale_b"].shape, seen["scale_b"].stride()) == ((4, 2), (1, 4))
    assert seen["out"] is x.d


def test_tensor_scaling_is_compared_with_what_it_computes() -> None:
    x = operands(Problem(16, 32, 256))
    assert CublasLt().case("cublaslt_tensor", x).check() < 0.05


def test_kernels_of_pytorch_are_not_cublas() -> None:
    counts = CublasLt().counts
    assert counts("nvjet_sm90_qqtst_64x8")
    assert counts("void cublasLt::splitKreduce_kernel<32>")
    assert not counts("void at::native::vectorized_elementwise_kernel<4>")
    assert not counts("Memset (Device)")


def test_ours_is_called_with_both_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = operands(Problem(5, 32, 256))
    peer = Ours()
    seen = []
    monkeypatch.setattr(deep_gemm, "fp8_gemm_nt", lambda a, b, d: seen.append(a[1].stride()))
    for variant in peer.variants(Problem(5, 32, 256)):
        peer.case(variant, x).launch()
    assert seen == [(1, 8), (2, 1)]


def test_the_reference_takes_our_name_and_ours_goes_on_working(tmp_path: Path) -> None:
    package = tmp_path / "deep_gemm"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from deep_gemm import utils\n"
        "def get_mn_major_tma_aligned_tensor(sf): return sf.clone()\n"
        "def fp8_gemm_nt(a, b, d, compiled_dims): d.fill_(7.0)\n"
    )
    (package / "utils.py").touch()
    metadata = tmp_path / "sgl_deep_gemm-0.1.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: sgl-deep-gemm\nVersion: 0.1.1\n")
    program = """
import sys, torch
from benchmarks.operands import Normal, Operands
from benchmarks.peers import make_peer
from benchmarks.problems import Problem
peer = make_peer("reference", sys.argv[1])
problem = Problem(4, 16, 128)
x = Operands.build(problem, Normal(problem, 0, "cpu"))
case = peer.case("reference", x)
case.launch()
assert x.d.eq(7).all()
try:
    case.check()
except AssertionError as error:
    print(peer.versions(), error)
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "{'reference': 'sgl-deep-gemm 0.1.1'} wrong result" in output
