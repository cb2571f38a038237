"""Seeded operands: every process on a GPU builds the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.problems import Problem
from deep_gemm.quantize import per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.utils.math import align


@dataclass(frozen=True)
class Operands:
    """Operands of one problem, and a place for the result.

    Attributes:
        a: [m, k] float8_e4m3fn.
        sfa: [m, ceil(k / 128)] FP32, row-major.
        b: [n, k] float8_e4m3fn.
        sfb: [ceil(n / 128), ceil(k / 128)] FP32, row-major.
        d: [m, n] bfloat16.
    """

    a: torch.Tensor
    sfa: torch.Tensor
    b: torch.Tensor
    sfb: torch.Tensor
    d: torch.Tensor


def make_operands(problem: Problem, set_idx: int, device: str = "cuda") -> Operands:
    """Normally distributed operands, the same for the same problem and set."""
    seed = ((problem.m * 65537 + problem.n) * 65537 + problem.k) * 16 + set_idx
    generator = torch.Generator(device).manual_seed(seed)

    def normal(rows: int) -> torch.Tensor:
        return torch.randn(rows, problem.k, generator=generator, device=device)

    a, sfa = per_token_cast_to_fp8(normal(problem.m), use_ue8m0=False)
    b, sfb = per_block_cast_to_fp8(normal(problem.n), use_ue8m0=False)
    return Operands(a, sfa, b, sfb, _output(problem, device))


def make_zeros(problem: Problem, device: str = "cuda") -> Operands:
    """Operands that are quickly made, for calls that only have to compile a kernel."""
    num_k_blocks = -(-problem.k // 128)

    def fp8(rows: int) -> torch.Tensor:
        zeros = torch.zeros(rows, problem.k, dtype=torch.uint8, device=device)
        return zeros.view(torch.float8_e4m3fn)

    def ones(rows: int) -> torch.Tensor:
        return torch.ones(rows, num_k_blocks, device=device)

    return Operands(
        fp8(problem.m),
        ones(problem.m),
        fp8(problem.n),
        ones(-(-problem.n // 128)),
        _output(problem, device),
    )


def mn_major(sf: torch.Tensor) -> torch.Tensor:
    """A copy of [mn, num_k_blocks] scale factors, MN-major with TMA's alignment of 16 bytes."""
    rows, columns = sf.shape
    padded = sf.new_empty(columns, align(rows, 4)).t()[:rows]
    return padded.copy_(sf)


def _output(problem: Problem, device: str) -> torch.Tensor:
    return torch.empty(problem.m, problem.n, dtype=torch.bfloat16, device=device)
