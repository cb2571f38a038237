"""The dense FP8 kernel in the emulator: any configuration, operands, timing and compiler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.kernels import fp8_gemm
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.testing import assert_bitwise_equal, fp8_gemm_nt_reference, guarded_output
from tests.emulator.maps import Maps, maps_in, with_maps

Operand = tuple[torch.Tensor, torch.Tensor]

ORDERS = [
    *((timing, 0) for timing in (Timing.EARLY, Timing.LATE)),
    *((Timing.RANDOM, seed) for seed in range(2)),
]
"""Timings with seeds: each is another order of what happens at the same time."""


@dataclass(frozen=True)
class Case:
    """A problem and the configuration that it is forced to be solved with."""

    config: GemmConfig
    m: int
    n: int
    k: int
    num_sms: int = 2

    def __str__(self) -> str:
        name = self.config.name.removeprefix("sm90_fp8_gemm_1d2d_")
        return f"{name}-{self.m}x{self.n}x{self.k}-{self.num_sms}sms"


def integer_operands(m: int, n: int, k: int, seed: int = 0) -> tuple[Operand, Operand]:
    """Small integers with scale factors that are powers of two: every sum on the way is exact."""
    generator = torch.Generator().manual_seed(seed)

    def integers(*shape: int) -> torch.Tensor:
        return torch.randint(-2, 3, shape, generator=generator).float()

    num_k_blocks = -(-k // 128)
    a = integers(m, k).to(torch.float8_e4m3fn), torch.exp2(integers(m, num_k_blocks))
    b = integers(n, k).to(torch.float8_e4m3fn), torch.exp2(integers(-(-n // 128), num_k_blocks))
    return a, b


def check_exact(d: torch.Tensor, a: Operand, b: Operand) -> None:
    """Every bit is right; for integer operands only."""
    assert_bitwise_equal(d, fp8_gemm_nt_reference(a, b).to(d.dtype))


def run_case(
    case: Case,
    order: tuple[Timing, int] = (Timing.EARLY, 0),
    operands: tuple[Operand, Operand] | None = None,
    kernel: CompiledKernel | None = None,
    alter_maps: Callable[[Maps], Maps] = lambda maps: maps,
    row_stride: int | None = None,
) -> torch.Tensor:
    """Runs a case on a guarded output, and checks the guard.

    Args:
        case: what to run.
        order: timing and seed.
        operands: A and B; integers by default.
        kernel: instead of the case's own.
        alter_maps: changes the tensor maps before the launch.
        row_stride: of the output, in elements.

    Returns:
        [m, n], the output.
    """
    (x, sfa), (y, sfb) = operands or integer_operands(case.m, case.n, case.k)
    problem = GemmProblem(case.m, case.n, case.k, num_sms=case.num_sms)
    out = guarded_output(case.m, case.n, device="cpu", row_stride=row_stride, guard_rows=16)
    kernel = kernel or build(generate(case.config, "90a"))
    timing, seed = order
    run = emulator.run

    def run_in_order(*args: Any, parameters: bytes, **kwargs: Any) -> int:
        altered = with_maps(parameters, alter_maps(maps_in(parameters)))
        kwargs.update(parameters=altered, timing=timing, seed=seed)
        return run(*args, **kwargs)

    selection = Selection(case.config, best_band(problem, case.config))
    with (
        mock.patch.object(fp8_gemm, "build", lambda source, purpose=None: kernel),
        mock.patch.object(emulator, "run", run_in_order),
    ):
        tensors = GemmTensors.of_matrices(x, sfa, y, sfb, out.view)
        plan = fp8_gemm.plan_dense(problem, selection, tensors)
        plan.launch(*(tensor.data_ptr() for tensor in (x, y, out.view, sfa, sfb)))
    out.check()
    return out.view
