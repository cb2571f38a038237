"""How a row of the grouped tables is called: in our library and in the reference alike."""

from __future__ import annotations

from functools import partial
from itertools import accumulate
from types import ModuleType

import torch

from benchmarks.case import Case, Launch
from benchmarks.grouped_operands import GroupedOperands
from benchmarks.problems import BLOCK, GroupedProblem
from deep_gemm.testing.random_operands import mn_major
from deep_gemm.utils.math import ceil_div

WGRAD_RECIPE = (1, 1, BLOCK)
OUR_VARIANTS = {"contiguous": ("ours", "ours_psum"), "wgrad": ("ours", "ours_row_major")}


def our_variants(problem: GroupedProblem) -> tuple[str, ...]:
    """The ways to call our library for a row."""
    return OUR_VARIANTS.get(problem.table, ("ours",))


def grouped_case(library: ModuleType, variant: str, x: GroupedOperands) -> Case:
    """A call with everything prepared that an engine prepares once, scale factors MN-major.

    Args:
        library: deep_gemm, ours or the reference.
        variant: of `our_variants`, or `reference`.
        x: operands.

    Raises:
        AttributeError: the library has no such function.
    """
    if x.problem.table == "decode" and variant == "reference":
        x = x.padded(BLOCK)
    call = {"masked": _masked, "wgrad": _wgrad, "k_grouped": _k_grouped}.get(
        x.problem.table, _contiguous
    )
    launch = call(library, variant, x)
    return Case(launch, x.d, x.products, x.problem.accumulates)


def _contiguous(library: ModuleType, variant: str, x: GroupedOperands) -> Launch:
    function = library.m_grouped_fp8_gemm_nt_contiguous
    a, b = (x.a, mn_major(x.sfa)), (x.b, x.sfb)
    is_unpadded = x.problem.table == "decode" and variant == "ours"
    if not is_unpadded and variant != "ours_psum":
        return partial(function, a, b, x.d, _ids(x))
    hint = {"use_psum_layout": True, "expected_m_for_psum_layout": _expected_m(x.problem)}
    call = partial(function, a, b, x.d, _ends(x), **hint)
    return partial(_unpadded, library, call) if is_unpadded else call


def _unpadded(library: ModuleType, call: Launch) -> None:
    """The alignment is the process's, and read at every call."""
    old = library.get_mk_alignment_for_contiguous_layout()
    library.set_mk_alignment_for_contiguous_layout(1)
    try:
        call()
    finally:
        library.set_mk_alignment_for_contiguous_layout(old)


def _masked(library: ModuleType, variant: str, x: GroupedOperands) -> Launch:
    problem = x.problem
    masked_m = torch.tensor(problem.tokens, dtype=torch.int32, device=x.a.device)
    expected_m = _expected_m(problem)
    a, b = (x.a, mn_major(x.sfa)), (x.b, x.sfb)
    return partial(library.fp8_m_grouped_gemm_nt_masked, a, b, x.d, masked_m, expected_m)


def _wgrad(library: ModuleType, variant: str, x: GroupedOperands) -> Launch:
    order = (lambda sf: sf) if variant == "ours_row_major" else mn_major
    a, b = (x.a, order(x.sfa)), (x.b, order(x.sfb))
    # N and K are compiled in, as for the dense table.
    return partial(library.fp8_gemm_nt, a, b, x.d, c=x.d, recipe=WGRAD_RECIPE, compiled_dims="nk")


def _k_grouped(library: ModuleType, variant: str, x: GroupedOperands) -> Launch:
    ks = list(x.problem.sizes)
    on_device = torch.tensor(ks, dtype=torch.int32, device=x.a.device)
    a, b = (x.a, mn_major(x.sfa)), (x.b, mn_major(x.sfb))
    return partial(
        library.k_grouped_fp8_gemm_nt_contiguous,
        *(a, b, x.d, ks, on_device),
        c=x.d,
        recipe=WGRAD_RECIPE,
    )


def _expected_m(problem: GroupedProblem) -> int:
    """What an engine expects a group to have, for the choice of the kernel."""
    return ceil_div(problem.m, problem.groups)


def _ids(x: GroupedOperands) -> torch.Tensor:
    """Each row's group, -1 in the padding behind a group's tokens."""
    ids = torch.full((sum(x.sizes),), -1, dtype=torch.int32)
    for group, rows in enumerate(x.rows()):
        ids[rows] = group
    return ids.to(x.a.device)


def _ends(x: GroupedOperands) -> torch.Tensor:
    """Each group's end, without its padding."""
    starts = (0, *accumulate(x.sizes))
    ends = [start + tokens for start, tokens in zip(starts, x.problem.tokens, strict=False)]
    return torch.tensor(ends, dtype=torch.int32, device=x.a.device)
