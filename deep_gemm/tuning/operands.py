"""Random operands of a problem, what their product has to be, and launches of it.

They are what an engine would bring: scale factors of A and of 1D1D are MN-major. FP32 results are
added to D, as weight gradients are. Groups have between 0.7 and 1.3 of what is expected of one.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deep_gemm.config.gemm_config import BLOCK_K, GRAN_N, GemmConfig, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.errors import ArgumentError
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense, plan_m_grouped
from deep_gemm.kernels.k_grouped import KGroupedPlan, plan_k_grouped
from deep_gemm.runtime.launch import Plan
from deep_gemm.testing.grouped_reference import by_k_group, by_masked_group, by_row_group
from deep_gemm.testing.numeric import max_scaled_error
from deep_gemm.testing.random_operands import (
    RandomOperands,
    Scaled,
    mn_major,
    side_by_side,
    split,
    stacked,
)
from deep_gemm.testing.reference import fp8_gemm_nt_reference

MAX_ERROR = 0.05
"""Of an element, in units of the result's root mean square. The largest of many elements are 6 of
those, and rounding them to BF16 costs up to 0.024. One lost instruction, 32 of K = 16384, would
cost 0.2."""

OLD_SCALE = 64.0
"""About what a product is large: a D that is read wrongly is as wrong as one that is not added."""

AnyPlan = Plan | KGroupedPlan


@dataclass(frozen=True)
class Operands:
    """One set of operands of a problem.

    Attributes:
        tensors: whose addresses a launch takes, in its order.
        d: the result.
        before: what D holds before the launch.
        expected: D in FP64.
        rows: where D has a product, [m] or [groups, m_max]; all other rows must be zero. None if
            there are none.
        plan: a launch of a selection.
    """

    tensors: tuple[torch.Tensor, ...]
    d: torch.Tensor
    before: torch.Tensor
    expected: torch.Tensor
    rows: torch.Tensor | None
    plan: Callable[[Selection], AnyPlan]

    def launcher(self, plan: AnyPlan) -> Callable[[], None]:
        """A call of the plan on these operands, whoever's it is."""
        tensors = self.tensors

        def launch() -> None:
            plan.launch(*(tensor.data_ptr() for tensor in tensors))

        return launch

    def check(self, launch: Callable[[], None]) -> float:
        """Runs a launch on D as it was and compares every element.

        Returns:
            `max_scaled_error`, at most MAX_ERROR.

        Raises:
            AssertionError: it is more, or an element is NaN, or rows without a product not zero.
        """
        self.d.copy_(self.before)
        launch()
        d, expected = self.d, self.expected
        if self.rows is not None:
            if d[~self.rows].count_nonzero():
                raise AssertionError("rows that belong to no group are not zero")
            d, expected = d[self.rows], expected[self.rows]
        error = max_scaled_error(d, expected)
        if not error <= MAX_ERROR:
            raise AssertionError(f"wrong result: max_error {error:.3g}, at most {MAX_ERROR}")
        return error


def selection_of(problem: GemmProblem, config: GemmConfig) -> Selection:
    """A configuration, and the band that goes with it."""
    return Selection(config, best_band(problem, config))


def make_operands(problem: GemmProblem, set_idx: int, device: torch.device) -> Operands:
    """The same ones for the same problem and set. Groups have other sizes in each set, since it
    hangs on them which tile is best.

    Raises:
        ArgumentError: D has gaps between heads: where they are is not part of the problem.
    """
    if problem.head_columns:
        raise ArgumentError("head_columns: must be 0 where problems are timed")
    sizes = (problem.m, problem.n, problem.k, problem.num_groups, set_idx)
    draws = random.Random(repr(sizes))
    source = RandomOperands(draws.getrandbits(60), device)
    if problem.grouping is Grouping.DENSE:
        return _dense(problem, source)
    build = _m_grouped if problem.grouping is Grouping.M_GROUPED else _k_grouped
    return build(problem, source, draws)


def _accumulates(problem: GemmProblem) -> bool:
    return problem.d_bytes == 4


def _output(problem: GemmProblem, shape: tuple[int, ...], source: RandomOperands) -> torch.Tensor:
    """What D holds before: NaN, or what the product is added to."""
    if _accumulates(problem):
        return source.normal(*shape).mul_(OLD_SCALE)
    return torch.full(shape, torch.nan, dtype=torch.bfloat16, device=source.device)


def _dense(problem: GemmProblem, source: RandomOperands) -> Operands:
    m, n, k = problem.m, problem.n, problem.k
    a = source.by_token(m, k)
    b = source.by_token(n, k) if problem.is_1d1d else source.by_block(n, k)
    before = _output(problem, (m, n), source)
    old = before if _accumulates(problem) else None
    d, sfa = torch.empty_like(before), mn_major(a[1])
    sfb = mn_major(b[1]) if problem.is_1d1d else b[1]
    matrices = GemmTensors.of_matrices(a[0], sfa, b[0], sfb, d)
    return Operands(
        tensors=(a[0], b[0], d, sfa, sfb),
        d=d,
        before=before,
        expected=fp8_gemm_nt_reference(a, b, old, problem.gran_n),
        rows=None,
        plan=lambda selection: plan_dense(problem, selection, matrices, _accumulates(problem)),
    )


def _sizes(problem: GemmProblem, expected: int, unit: int, draws: random.Random) -> list[int]:
    """What each group has of what is split: whole units."""
    mean = max(1, round(expected / unit))
    low, high = round(0.7 * mean), max(1, round(1.3 * mean))
    parts = split(mean * problem.num_groups, problem.num_groups, low, high, draws)
    return [part * unit for part in parts]


def _m_grouped(problem: GemmProblem, source: RandomOperands, draws: random.Random) -> Operands:
    """Masked where groups are not padded, else contiguous with a group's number for every row."""
    if problem.gran_n != GRAN_N or problem.d_bytes != 2:
        raise ArgumentError("m-grouped problems: must have gran_n 128 and d_bytes 2 to be timed")
    b = stacked([source.by_block(problem.n, problem.k) for _ in range(problem.num_groups)])
    build = _masked if problem.alignment == 1 else _contiguous
    return build(problem, source, draws, b)


def _masked(
    problem: GemmProblem, source: RandomOperands, draws: random.Random, b: Scaled
) -> Operands:
    tokens = _sizes(problem, problem.m, 1, draws)
    groups, m_max = problem.num_groups, max(tokens)
    data, sf = source.by_token(groups * m_max, problem.k)
    a = data.view(groups, m_max, problem.k), sf.view(groups, m_max, -1)
    counts = torch.tensor(tokens, dtype=torch.int32, device=source.device)
    rows = torch.arange(m_max, device=source.device) < counts[:, None]
    before = _output(problem, (groups, m_max, problem.n), source)
    # Rows behind a group's last are not written: zeros show that.
    before[~rows] = 0
    d, sfa = torch.empty_like(before), mn_major(a[1])
    tensors = GemmTensors(a[0], sfa, *b, d)
    return Operands(
        tensors=(a[0], b[0], d, sfa, b[1], counts, d, sfa),
        d=d,
        before=before,
        expected=by_masked_group(fp8_gemm_nt_reference, a, b, tokens),
        rows=rows,
        plan=lambda selection: plan_m_grouped(
            problem, selection, tensors, GroupedLayout.ROW_COUNTS, counts, False
        ),
    )


def _contiguous(
    problem: GemmProblem, source: RandomOperands, draws: random.Random, b: Scaled
) -> Operands:
    ids = _row_ids(problem, draws).to(source.device)
    a = source.by_token(len(ids), problem.k)
    before = _output(problem, (len(ids), problem.n), source)
    d, sfa = torch.empty_like(before), mn_major(a[1])
    tensors = GemmTensors(a[0][None], sfa[None], *b, d[None])
    return Operands(
        tensors=(a[0], b[0], d, sfa, b[1], ids, d, sfa),
        d=d,
        before=before,
        expected=by_row_group(fp8_gemm_nt_reference, a, b, ids),
        rows=ids >= 0,
        plan=lambda selection: plan_m_grouped(
            problem, selection, tensors, GroupedLayout.ROW_IDS, ids, True
        ),
    )


def _row_ids(problem: GemmProblem, draws: random.Random) -> torch.Tensor:
    """Each row's group, -1 in the padding behind a group's tokens."""
    ids = []
    for group, size in enumerate(_sizes(problem, problem.m, problem.alignment, draws)):
        padding = draws.randrange(problem.alignment) if size else 0
        ids += [group] * (size - padding) + [-1] * padding
    return torch.tensor(ids, dtype=torch.int32)


def _k_grouped(problem: GemmProblem, source: RandomOperands, draws: random.Random) -> Operands:
    if problem.gran_n != 1:
        raise ArgumentError(f"k-grouped problems: must have gran_n 1, got {problem.gran_n}")
    m, n = problem.m, problem.n
    ks = _sizes(problem, problem.k, BLOCK_K, draws)
    a, b = (side_by_side([source.by_token(rows, k) for k in ks]) for rows in (m, n))
    before = _output(problem, (problem.num_groups, m, n), source)
    old = before if _accumulates(problem) else None
    d, sfa, sfb = torch.empty_like(before), mn_major(a[1]), mn_major(b[1])
    sizes = torch.tensor(ks, dtype=torch.int32, device=source.device)
    tensors = GemmTensors(a[0], sfa[None], b[0], sfb[None], d)
    return Operands(
        tensors=(a[0], b[0], d, sfa, sfb, sizes),
        d=d,
        before=before,
        expected=by_k_group(fp8_gemm_nt_reference, a, b, ks, old),
        rows=None,
        plan=lambda selection: plan_k_grouped(
            problem, selection, tensors, sum(ks), sizes, _accumulates(problem)
        ),
    )
