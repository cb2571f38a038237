"""The time that no kernel can beat on a GPU: it must move the bytes and do the sums."""

from __future__ import annotations

from dataclasses import dataclass

from deep_gemm.config.problem import GemmProblem

TFLOPS = 1600.0
"""FP8 rate of 132 SMs at the clock that their power limit leaves them under this load."""

HBM_TB_PER_S = {"NVIDIA H100 80GB HBM3": 3.0, "NVIDIA H200": 4.3}
"""What a copy reaches, as measured, by the device's full name."""

ASSUMED_GPU = "NVIDIA H100 80GB HBM3"
"""Whose limits a GPU gets that was not measured."""


@dataclass(frozen=True, slots=True)
class Floor:
    """A lower bound of a kernel's time.

    Attributes:
        us: microseconds.
        why: what limits it.
    """

    us: float
    why: str


def num_flop(problem: GemmProblem) -> int:
    """Multiplications and additions of the product, of all groups together."""
    return 2 * problem.num_groups * problem.m * problem.n * problem.k


def floor_of(problem: GemmProblem, gpu_name: str) -> Floor:
    """The larger of the times for the problem's bytes and for its FLOP.

    Args:
        problem: what is computed.
        gpu_name: as CUDA gives it. The limits of a GPU that was not measured are an H100's, and
            `why` says so.
    """
    is_known = gpu_name in HBM_TB_PER_S
    tb_per_s = HBM_TB_PER_S[gpu_name if is_known else ASSUMED_GPU]
    note = "" if is_known else " (an H100's limit: this GPU's is not known)"
    num_bytes = problem.unique_bytes
    hbm_us = num_bytes / tb_per_s / 1e6
    flop_us = num_flop(problem) / TFLOPS / 1e6
    if flop_us >= hbm_us:
        return Floor(flop_us, f"{num_flop(problem) / 1e9:.4g} GFLOP at {TFLOPS:.0f} TFLOPS{note}")
    return Floor(hbm_us, f"{num_bytes / 1e6:.4g} MB at {tb_per_s} TB/s{note}")
