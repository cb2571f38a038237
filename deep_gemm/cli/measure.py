"""The main job on a GPU: random operands through fp8_gemm_nt, its error and its time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from deep_gemm.calls import Operand
from deep_gemm.config.problem import GemmProblem
from deep_gemm.gemm import fp8_gemm_nt
from deep_gemm.quantize import per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.testing import (
    calc_diff,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    max_scaled_error,
    profile_kernels,
)

MAX_ERROR_OF_YARDSTICK = 2.0
"""Allowed error, in those of straightforward FP32 code on the same operands."""

MAX_DIFF = 1e-3

NUM_REPEATS = 30


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How far a result is from the FP64 reference of the same quantised operands.

    Attributes:
        max_error: the worst element's error, in units of the reference's root mean square.
        max_error_bound: what it may be.
        diff: `testing.calc_diff`; it may be MAX_DIFF.
        broken: why max_error makes no sense (NaN or infinity in the wrong places), or empty.
    """

    max_error: float
    max_error_bound: float
    diff: float
    broken: str = ""

    def failures(self) -> list[str]:
        """Every bound that is exceeded, in words."""
        if self.broken:
            return [self.broken]
        checks = (
            ("the max error", self.max_error, self.max_error_bound),
            ("calc_diff", self.diff, MAX_DIFF),
        )
        # Not `value > bound`: a NaN has to fail.
        return [
            f"{name} is {value:.3g}, beyond its bound of {bound:.3g}"
            for name, value, bound in checks
            if not value <= bound
        ]


def make_operands(problem: GemmProblem, device: torch.device, seed: int) -> tuple[Operand, Operand]:
    """Normal activations [m, k] and weights [n, k] in BF16, quantised by our casts."""
    generator = torch.Generator(device).manual_seed(seed)

    def normal(rows: int) -> torch.Tensor:
        shape = (rows, problem.k)
        return torch.randn(shape, device=device, dtype=torch.bfloat16, generator=generator)

    a = per_token_cast_to_fp8(normal(problem.m), use_ue8m0=False)
    b = per_block_cast_to_fp8(normal(problem.n), use_ue8m0=False)
    return a, b


def make_output(problem: GemmProblem, device: torch.device) -> torch.Tensor:
    """D [m, n] in BF16, all NaN: an element that the kernel leaves out is found."""
    shape = (problem.m, problem.n)
    return torch.full(shape, torch.nan, dtype=torch.bfloat16, device=device)


def accuracy_of(d: torch.Tensor, a: Operand, b: Operand) -> Accuracy:
    """Compares every element of a result with FP64."""
    reference = fp8_gemm_nt_reference(a, b)
    yardstick = max_scaled_error(fp8_gemm_nt_yardstick(a, b), reference)
    bound = MAX_ERROR_OF_YARDSTICK * yardstick
    diff = calc_diff(d, reference)
    try:
        return Accuracy(max_scaled_error(d, reference), bound, diff)
    except AssertionError as error:
        return Accuracy(float("nan"), bound, diff, str(error))


def measure(
    problem: GemmProblem, device: torch.device, seed: int, report: Callable[[str], object]
) -> tuple[Accuracy, list[float]]:
    """Runs the problem on a device that must be current.

    Args:
        problem: its sizes.
        device: the GPU.
        seed: of the operands.
        report: told what is going on, as it goes on.

    Returns:
        The result's accuracy, and NUM_REPEATS kernel times in microseconds, each with the L2
        flushed.
    """
    report("quantising random activations and weights")
    a, b = make_operands(problem, device, seed)
    d = make_output(problem, device)
    report("running the kernel")
    fp8_gemm_nt(a, b, d)
    report("comparing with FP64")
    accuracy = accuracy_of(d, a, b)
    report(f"timing {NUM_REPEATS} runs")
    times = profile_kernels([lambda: fp8_gemm_nt(a, b, d)], repeats=NUM_REPEATS)[0]
    return accuracy, times
