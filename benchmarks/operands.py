"""Seeded operands: every process on a GPU builds the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from benchmarks.problems import BLOCK, AnyProblem, Problem
from deep_gemm.testing.random_operands import RandomOperands, Scaled
from deep_gemm.utils.math import ceil_div


class Source(Protocol):
    """Where FP8 data and their scale factors come from."""

    device: torch.device | str

    def by_token(self, rows: int, k: int) -> Scaled:
        """[rows, k] with 1x128 scale factors."""

    def by_block(self, rows: int, k: int) -> Scaled:
        """[rows, k] with 128x128 scale factors."""


class Normal(RandomOperands):
    """Normally distributed operands, the same for the same problem and set."""

    def __init__(self, problem: AnyProblem, set_idx: int, device: str) -> None:
        super().__init__(problem.seed * 16 + set_idx, device)


class Zeros:
    """Operands that are quickly made, for calls that only have to compile a kernel."""

    def __init__(self, device: str) -> None:
        self.device = device

    def by_token(self, rows: int, k: int) -> Scaled:
        return self._make(rows, k, rows)

    def by_block(self, rows: int, k: int) -> Scaled:
        return self._make(rows, k, ceil_div(rows, BLOCK))

    def _make(self, rows: int, k: int, sf_rows: int) -> Scaled:
        zeros = torch.zeros(rows, k, dtype=torch.uint8, device=self.device)
        sf = torch.ones(sf_rows, ceil_div(k, BLOCK), device=self.device)
        return zeros.view(torch.float8_e4m3fn), sf


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

    @classmethod
    def build(cls, problem: Problem, source: Source) -> Operands:
        a, sfa = source.by_token(problem.m, problem.k)
        b, sfb = source.by_block(problem.n, problem.k)
        d = torch.empty(problem.m, problem.n, dtype=torch.bfloat16, device=source.device)
        return cls(a, sfa, b, sfb, d)
