"""What calls do on SM100: their checks, the choice of a kernel, and their plans."""

from __future__ import annotations

import sys
from dataclasses import replace
from math import gcd

from deep_gemm import knobs
from deep_gemm.calls import check_addresses
from deep_gemm.checks import check_tma_rows, refuse
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.sm100 import Sm100Selection, explain, select
from deep_gemm.grouped_options import Kind
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.kernels.sm100_fp8_gemm import plan_sm100_dense, plan_sm100_m_grouped
from deep_gemm.record import record
from deep_gemm.scaling import Recipes
from deep_gemm.settings import Settings, usable_sms
from deep_gemm.sm100_operands import (
    Granularity,
    check_operand_rows,
    check_sm100_scale_factors,
    is_mn_major,
    resolve_granularity,
)
from deep_gemm.sm100_packing import CountingRows, SfPacking, Sm100Call, Tensors, packing_of


def check_dense(
    tensors: Tensors,
    arch: str,
    recipes: Recipes,
    settings: Settings,
    head_splits: tuple[int, int, int],
) -> GemmProblem:
    """Checks what is different from SM90 in a call whose sizes and dtypes fit together.

    Raises:
        ArgumentError: an argument breaks a rule.
    """
    x, y, d, _, sfb = tensors
    gran = gran_a, gran_b = resolve_granularity(recipes, sfb)
    (m, k), n = x.shape, y.shape[0]
    if m and n and k:
        _check_operands(tensors, gran, (None, None))
    return GemmProblem(
        *(m, n, k, arch, usable_sms(x.device, settings)),
        gran_n=1,
        d_bytes=d.element_size(),
        block_multiple=settings.block_multiple,
        head_columns=gcd(head_splits[0], head_splits[2]),
        pdl=settings.pdl,
        mn_major=(is_mn_major(x), is_mn_major(y)),
        gran_k=(gran_a.k, gran_b.k),
    )


def check_m_grouped(
    tensors: Tensors, problem: GemmProblem, recipes: Recipes, is_masked: bool
) -> GemmProblem:
    """The same for an m-grouped call; gives the problem with its majors and granularity."""
    x, y, _, _, sfb, _ = tensors
    gran = gran_a, gran_b = resolve_granularity(recipes, sfb)
    if x.shape[-2] > 0:
        groups = problem.num_groups
        _check_operands(tensors, gran, (groups if is_masked else None, groups))
    majors = is_mn_major(x), is_mn_major(y)
    return replace(problem, gran_n=1, mn_major=majors, gran_k=(gran_a.k, gran_b.k))


def _check_operands(
    tensors: Tensors, gran: tuple[Granularity, Granularity], groups: tuple[int | None, int | None]
) -> None:
    x, y, d, sfa, sfb = tensors[:5]
    for name, operand, sf, each, count in zip("ab", (x, y), (sfa, sfb), gran, groups, strict=True):
        rows, k = operand.shape[-2:]
        check_sm100_scale_factors(f"{name}[1]", sf, rows, k, each, x.device, count)
        check_operand_rows(f"{name}[0]", operand)
    check_tma_rows("d", d)


def prepare_dense(
    tensors: Tensors,
    problem: GemmProblem,
    recipes: Recipes,
    c: tuple[bool, bool],
    head_splits: tuple[int, int, int],
) -> Sm100Call:
    """What a dense call has to do.

    Args:
        tensors: of the call.
        problem: what is computed; nothing of it is empty.
        recipes: the granularity that the call asked for.
        c: whether there is a C, and whether D has to become C first.
        head_splits: as for `plan_sm100_dense`.

    Raises:
        ArgumentError: an address is not aligned, or no kernel has blocks as the settings want them.
    """
    check_addresses(tensors, None)
    accumulates, copies_c = c
    packings = _packings(tensors, problem, recipes)
    x, y, d, sfa, sfb = _as_packed(tensors, packings)
    matrices = GemmTensors.of_matrices(x, sfa, y, sfb, d)
    plan = plan_sm100_dense(problem, chosen(problem), matrices, accumulates, head_splits)
    return Sm100Call(plan, None, copies_c, False, *packings)


def prepare_m_grouped(tensors: Tensors, problem: GemmProblem, kind: Kind) -> Sm100Call:
    """The same for an m-grouped call; its grouped layout is the sixth tensor."""
    check_addresses(tensors, None)
    packings = _packings(tensors, problem, kind.recipes)
    x, y, d, sfa, sfb = _as_packed(tensors, packings)
    if not kind.is_masked:
        x, sfa, d = (tensor.unsqueeze(0) for tensor in (x, sfa, d))
    plan = plan_sm100_m_grouped(
        *(problem, chosen(problem), GemmTensors(x, sfa, y, sfb, d)),
        *(kind.layout, tensors[5], kind.clears_padding),
    )
    counting = CountingRows(kind.layout, problem.num_groups, problem.alignment)
    return Sm100Call(plan, None, False, False, *packings, counting)


Packings = tuple[SfPacking | None, SfPacking | None]
"""What SFA and SFB need."""


def _packings(tensors: Tensors, problem: GemmProblem, recipes: Recipes) -> Packings:
    x, _, _, sfa, sfb = tensors[:5]
    gran_a, gran_b = resolve_granularity(recipes, sfb)
    return (
        packing_of("a[1]", sfa, x.shape[-2], gran_a.rows),
        packing_of("b[1]", sfb, problem.n, gran_b.rows),
    )


def _as_packed(tensors: Tensors, packings: Packings) -> Tensors:
    """The first five tensors, with scale factors of which only shape and strides mean anything."""
    scale_factors = zip(tensors[3:5], packings, strict=True)
    return *tensors[:3], *(sf if how is None else how.place(sf) for sf, how in scale_factors)


def chosen(problem: GemmProblem) -> Sm100Selection:
    """The selection for a problem; printed if a knob asks for it.

    Raises:
        ArgumentError: no kernel has blocks as the settings want them.
    """
    selection = select(problem)
    if selection is None:
        rule = "leaves no kernel for this problem"
        refuse("block_size_multiple_of", rule, problem.block_multiple)
    record(problem)
    if knobs.print_configs.get():
        print(explain(problem), file=sys.stderr)
    return selection
