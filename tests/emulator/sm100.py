"""The SM100 kernel in the emulator: any configuration, operands and timing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch

from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import best_band
from deep_gemm.config.sm100 import Sm100Selection
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.kernels import sm100_fp8_gemm
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.testing import assert_bitwise_equal, guarded_output


@dataclass(frozen=True)
class Case:
    """A problem and the configuration that it is forced to be solved with."""

    config: Sm100GemmConfig
    m: int
    n: int
    k: int
    num_sms: int = 2
    accumulates: bool = False

    def __str__(self) -> str:
        name = self.config.name.removeprefix("sm100_fp8_gemm_")
        return f"{name}-{self.m}x{self.n}x{self.k}-{self.num_sms}sms"


@dataclass(frozen=True)
class Operand:
    """FP8 data of small integers, and packed scale factors that are powers of two.

    Attributes:
        data: [.., rows, k] float8_e4m3fn.
        words: [.., rows, words] int32, MN-major.
        exact: [.., rows, k] FP64, what both stand for.
    """

    data: torch.Tensor
    words: torch.Tensor
    exact: torch.Tensor


def operand(shape: tuple[int, ...], gran_k: int, mn_major: bool, seed: int) -> Operand:
    """An operand whose products and sums are exact in FP32."""
    generator = torch.Generator().manual_seed(seed)
    *batch, rows, k = shape
    data = torch.randint(-2, 3, shape, generator=generator).float().to(torch.float8_e4m3fn)
    num_sf = -(-k // gran_k)
    num_words = -(-num_sf // 4)
    exponents = torch.randint(125, 130, (*batch, rows, 4 * num_words), generator=generator)
    exponents[..., num_sf:] = 0
    bytes_ = exponents.to(torch.uint8).view(*batch, rows, num_words, 4)
    words = bytes_.view(torch.int32).squeeze(-1)
    factors = torch.exp2(exponents[..., :num_sf].double() - 127)
    exact = data.double() * factors.repeat_interleave(gran_k, -1)[..., :k]
    if mn_major:
        data = data.mT.contiguous().mT
    return Operand(data, words.mT.contiguous().mT, exact)


def operands(case: Case, seed: int = 0) -> tuple[Operand, Operand]:
    """A and B of a case."""
    config = case.config
    a = operand((case.m, case.k), config.gran_k_a, config.a_is_mn_major, seed)
    b = operand((case.n, case.k), config.gran_k_b, config.b_is_mn_major, seed + 1)
    return a, b


def run_case(
    case: Case,
    order: tuple[Timing, int] = (Timing.EARLY, 0),
    kernel: CompiledKernel | None = None,
) -> None:
    """Runs a case on a guarded output; checks every bit and the guard."""
    a, b = operands(case)
    dtype = torch.bfloat16 if case.config.d_bytes == 2 else torch.float32
    out = guarded_output(case.m, case.n, device="cpu", dtype=dtype, guard_rows=16)
    expected = a.exact @ b.exact.T
    if case.accumulates:
        out.view.fill_(3)
        expected = expected.to(dtype).double() + 3
    timing, seed = order
    run = emulator.run

    def run_in_order(*args: Any, **kwargs: Any) -> int:
        return run(*args, **{**kwargs, "timing": timing, "seed": seed})

    build = sm100_fp8_gemm.build if kernel is None else lambda source, purpose=None: kernel
    with (
        mock.patch.object(sm100_fp8_gemm, "build", build),
        mock.patch.object(emulator, "run", run_in_order),
    ):
        tensors = GemmTensors.of_matrices(a.data, a.words, b.data, b.words, out.view)
        problem = GemmProblem(case.m, case.n, case.k, "100a", case.num_sms)
        selection = Sm100Selection(case.config, best_band(problem, case.config))
        plan = sm100_fp8_gemm.plan_sm100_dense(problem, selection, tensors, case.accumulates)
        every = (a.data, b.data, out.view, a.words, b.words)
        plan.launch(*(tensor.data_ptr() for tensor in every))
    out.check()
    assert_bitwise_equal(out.view, expected.to(dtype))
