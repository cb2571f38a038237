"""Operands of the grouped tables and of weight gradients, and what their product has to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate

import torch

from benchmarks.operands import Source
from benchmarks.problems import BLOCK, MASKED_M_MAX, GroupedProblem
from deep_gemm.testing.random_operands import Scaled, side_by_side, stacked
from deep_gemm.testing.reference import PER_BLOCK, PER_TOKEN, dequantize
from deep_gemm.utils.math import align

Part = tuple[tuple[int | slice, ...], torch.Tensor]
"""Where in D, and the product that belongs there in FP64."""


@dataclass(frozen=True)
class GroupedOperands:
    """Operands of one problem, and a place for the result.

    Attributes:
        problem: what is computed.
        sizes: what each group takes of the rows of A, or of K, padding included.
        a: float8_e4m3fn. [m, k] in contiguous, decode and wgrad, [groups, 4096, k] in masked, flat
            in k_grouped: one group's [m, k_i] behind the other's.
        sfa: FP32, row-major: [..., rows, k / 128].
        b: [groups, n, k], [n, k] in wgrad, flat in k_grouped.
        sfb: [groups, ceil(n / 128), k / 128], [n, k / 128] where D is accumulated.
        d: BF16, or FP32 where it is accumulated, [groups, m, n] in k_grouped.
    """

    problem: GroupedProblem
    sizes: tuple[int, ...]
    a: torch.Tensor
    sfa: torch.Tensor
    b: torch.Tensor
    sfb: torch.Tensor
    d: torch.Tensor

    @classmethod
    def build(cls, problem: GroupedProblem, source: Source) -> GroupedOperands:
        build = {"wgrad": _dense, "k_grouped": _grouped_k}.get(problem.table, _grouped_rows)
        return cls(problem, problem.sizes, *build(problem, source))

    def products(self) -> Iterator[Part]:
        """The product, group by group, of all rows that are no padding."""
        if self.problem.table == "wgrad":
            yield (), _product((self.a, self.sfa), (self.b, self.sfb), PER_TOKEN)
        elif self.problem.table == "k_grouped":
            yield from self._products_of_k_groups()
        else:
            for group, where in enumerate(self.rows()):
                b = (self.b[group], self.sfb[group])
                yield where, _product((self.a[where], self.sfa[where]), b, PER_BLOCK)

    def padded(self, alignment: int) -> GroupedOperands:
        """The same tokens where every group of rows begins at a multiple of `alignment`."""
        sizes = tuple(align(tokens, alignment) for tokens in self.problem.tokens)
        data = torch.zeros(sum(sizes), self.problem.k, dtype=torch.uint8, device=self.a.device)
        a = data.view(self.a.dtype)
        sfa = self.sfa.new_ones(sum(sizes), self.sfa.shape[1])
        copy = replace(self, sizes=sizes, a=a, sfa=sfa, d=self.d.new_empty(len(a), self.problem.n))
        for old, new in zip(self.rows(), copy.rows(), strict=True):
            data[new] = self.a.view(torch.uint8)[old]
            sfa[new] = self.sfa[old]
        return copy

    def rows(self) -> Iterator[tuple[int | slice, ...]]:
        """Where each group's tokens are in A and D."""
        starts = (0, *accumulate(self.sizes))
        for group, (start, tokens) in enumerate(zip(starts, self.problem.tokens, strict=False)):
            if self.problem.table == "masked":
                yield group, slice(tokens)
            else:
                yield (slice(start, start + tokens),)

    def _products_of_k_groups(self) -> Iterator[Part]:
        start = 0
        for group, k in enumerate(self.sizes):
            a = _k_group(self.a, self.sfa, start, k)
            b = _k_group(self.b, self.sfb, start, k)
            yield (group,), _product(a, b, PER_TOKEN)
            start += k


def _grouped_rows(problem: GroupedProblem, source: Source) -> tuple[torch.Tensor, ...]:
    """A's rows belong to groups, each of which has its own B."""
    groups, n, k = problem.groups, problem.n, problem.k
    rows = groups * MASKED_M_MAX if problem.table == "masked" else problem.m
    shape = (groups, MASKED_M_MAX) if problem.table == "masked" else (rows,)
    a, sfa = source.by_token(rows, k)
    b, sfb = stacked([source.by_block(n, k) for _ in range(groups)])
    d = torch.empty(*shape, n, dtype=torch.bfloat16, device=source.device)
    return a.view(*shape, k), sfa.view(*shape, -1), b, sfb, d


def _dense(problem: GroupedProblem, source: Source) -> tuple[torch.Tensor, ...]:
    """A weight gradient: K is the tokens, and both sides have 1x128 scale factors."""
    a, b = (source.by_token(rows, problem.k) for rows in (problem.m, problem.n))
    return *a, *b, torch.empty(problem.m, problem.n, device=source.device)


def _grouped_k(problem: GroupedProblem, source: Source) -> tuple[torch.Tensor, ...]:
    """Each group has a part of K, and a D of its own."""
    operands: list[torch.Tensor] = []
    for rows in (problem.m, problem.n):
        parts = [source.by_token(rows, k) for k in problem.sizes]
        operands += side_by_side(parts)
    d = torch.empty(problem.groups, problem.m, problem.n, device=source.device)
    return *operands, d


def _k_group(flat: torch.Tensor, sf: torch.Tensor, start: int, k: int) -> Scaled:
    """One group of a flat operand: [rows, k] that begin `start` columns behind the first group."""
    rows = len(sf)
    data = flat[start * rows : (start + k) * rows].view(rows, k)
    return data, sf[:, start // BLOCK : (start + k) // BLOCK]


def _product(a: Scaled, b: Scaled, granularity_b: tuple[int, int]) -> torch.Tensor:
    return dequantize(a, PER_TOKEN) @ dequantize(b, granularity_b).T
