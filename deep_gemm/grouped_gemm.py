"""Many FP8 GEMMs in one launch: the experts of a mixture, forwards and backwards."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch

from deep_gemm.call_cache import CallCache
from deep_gemm.calls import (
    Operand,
    PlannedCall,
    Transform,
    as_it_is,
    check_addresses,
    chosen,
    needed,
    operand_transform,
)
from deep_gemm.checks import (
    TMA_ALIGNMENT,
    check_dimensions,
    check_fp8,
    check_index,
    check_is_tensor,
    check_newer,
    check_operand,
    check_output,
    check_positive,
    check_shape,
    check_tma_operand,
    check_tma_rows,
    refuse,
)
from deep_gemm.config.gemm_config import Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_m_grouped
from deep_gemm.kernels.sm100_fp8_gemm import plan_sm100_m_grouped
from deep_gemm.runtime.device import arch_of, gpu_name_of
from deep_gemm.scaling import (
    NO_RECIPES,
    RECIPE_1D2D,
    Recipes,
    check_scale_factors,
    hashable,
    resolve_recipe,
)
from deep_gemm.settings import Settings, current, usable_sms
from deep_gemm.sm100_operands import (
    check_operand_rows,
    check_sm100_scale_factors,
    is_mn_major,
    resolve_granularity,
)
from deep_gemm.sm100_operands import chosen as chosen_on_sm100
from deep_gemm.sm100_operands import sf_transform as packing_of
from deep_gemm.utils.math import ceil_div

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""x, y, d, sfa, sfb and the grouped layout."""


class _Kind(NamedTuple):
    """What a call asks for beyond its tensors; a part of its key, and so made at every call.

    Attributes:
        layout: what the grouped layout holds.
        alignment: rows to a multiple of which groups begin.
        clears_padding: rows of D between groups become zero.
        expected_m: rows that a group is expected to have; None if the caller does not say.
        recipes: of the scale factors.
    """

    layout: GroupedLayout
    alignment: int
    clears_padding: bool
    expected_m: int | None
    recipes: Recipes

    @property
    def is_masked(self) -> bool:
        """Whether each group has a matrix of A and D for itself."""
        return self.layout == GroupedLayout.ROW_COUNTS


_calls: CallCache[PlannedCall] = CallCache()


def m_grouped_fp8_gemm_nt_contiguous(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    expected_m_for_psum_layout: int | None = None,
    epilogue: object = None,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Computes D[r] = A[r] @ B[g].T for every row r of every group g, on the current stream. The
    rows of a group lie together; which rows those are is read on the device, without a
    synchronisation.

    Groups begin at multiples of `get_mk_alignment_for_contiguous_layout()`, 128 unless set
    otherwise. Rows between a group's end and the next group's beginning are padding: whatever A and
    SFA hold there, D becomes zero.

    Args:
        a: (data, sfa): [m, k] float8_e4m3fn with contiguous rows, and FP32 [m, ceil(k / 128)] in
            any layout.
        b: (data, sfb): [groups, n, k] float8_e4m3fn, and FP32
            [groups, ceil(n / 128), ceil(k / 128)] in any layout.
        d: [m, n] bfloat16 or float32 with contiguous rows.
        grouped_layout: int32, contiguous, on the device. [m]: each row's group; every other number,
            such as -1, is padding. With `use_psum_layout` [groups]: the row behind each group's
            last; an empty group's is where it begins.
        recipe: (gran_m, gran_n, gran_k) of the scale factors: (1, 128, 128).
        recipe_a: (gran_m, gran_k), instead of `recipe` and together with `recipe_b`.
        recipe_b: (gran_n, gran_k).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        disable_ue8m0_cast: accepted for compatibility; SM90 never rounds scale factors.
        use_psum_layout: what `grouped_layout` holds. Rows behind the last group are not written.
        ensure_zero_padding: with `use_psum_layout`, False leaves D as it is in padding.
        expected_m_for_psum_layout: rows that a group is expected to have, for the choice of the
            kernel; results do not depend on it.
        epilogue: what else would be done with D; no kernel here has one: None.
        m_indices: an older name of `grouped_layout`.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: the device is not SM90.
        CompilationError: the kernel could not be compiled.
    """
    if epilogue is not None:
        check_newer(epilogue=epilogue)
    if (grouped_layout is None) == (m_indices is None):
        both = "both" if m_indices is not None else "neither"
        refuse("grouped_layout", "must be given, or m_indices instead", both)
    if expected_m_for_psum_layout is not None and not use_psum_layout:
        rule = "needs use_psum_layout"
        refuse("expected_m_for_psum_layout", rule, expected_m_for_psum_layout)
    if expected_m_for_psum_layout is not None:
        check_positive("expected_m_for_psum_layout", expected_m_for_psum_layout)
    kind = _Kind(
        GroupedLayout.ROW_ENDS if use_psum_layout else GroupedLayout.ROW_IDS,
        current().mk_alignment,
        ensure_zero_padding,
        expected_m_for_psum_layout,
        (recipe, recipe_a, recipe_b),
    )
    layout = m_indices if grouped_layout is None else grouped_layout
    _m_grouped(check_operand("a", a), check_operand("b", b), d, layout, kind)


def m_grouped_fp8_gemm_nn_contiguous(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    use_psum_layout: bool = False,
    ensure_zero_padding: bool = True,
    epilogue: object = None,
    *,
    m_indices: torch.Tensor | None = None,
) -> None:
    """Computes D[r] = A[r] @ B[g]: `m_grouped_fp8_gemm_nt_contiguous` with B stored as
    [groups, k, n], and its scale factors likewise. A B that is not a transposed view of a K-major
    one is transposed by a kernel first.

    Raises:
        ArgumentError: as `m_grouped_fp8_gemm_nt_contiguous`, which has the arguments too.
    """
    data, sf = check_operand("b", b)
    for name, tensor in (("b[0]", data), ("b[1]", sf)):
        if tensor.dim() != 3:
            refuse(name, "must have 3 dimension(s)", f"shape {tuple(tensor.shape)}")
    m_grouped_fp8_gemm_nt_contiguous(
        a,
        (data.transpose(1, 2), sf.transpose(1, 2)),
        d,
        grouped_layout,
        recipe,
        recipe_a,
        recipe_b,
        use_psum_layout=use_psum_layout,
        ensure_zero_padding=ensure_zero_padding,
        epilogue=epilogue,
        m_indices=m_indices,
    )


def m_grouped_fp8_gemm_nt_masked(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    epilogue: object = None,
    *,
    enable_overlap: bool = False,
    max_block_n: int | None = None,
    signal: torch.Tensor | None = None,
) -> None:
    """Computes D[g, r] = A[g, r] @ B[g].T for the first masked_m[g] rows r of every group g, on the
    current stream. Other rows are neither looked at nor written.

    Args:
        a: (data, sfa): [groups, m_max, k] float8_e4m3fn with contiguous rows, and FP32
            [groups, m_max, ceil(k / 128)] in any layout.
        b: (data, sfb): [groups, n, k] float8_e4m3fn, and FP32
            [groups, ceil(n / 128), ceil(k / 128)] in any layout.
        d: [groups, m_max, n] bfloat16 or float32 with contiguous rows.
        masked_m: int32, contiguous, [groups], on the device: rows of each group. More than m_max
            count as m_max, less than 0 as 0.
        expected_m: rows that a group is expected to have, for the choice of the kernel; results do
            not depend on it.
        recipe: (gran_m, gran_n, gran_k) of the scale factors: (1, 128, 128).
        recipe_a: (gran_m, gran_k), instead of `recipe` and together with `recipe_b`.
        recipe_b: (gran_n, gran_k).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        disable_ue8m0_cast: accepted for compatibility; SM90 never rounds scale factors.
        epilogue: what else would be done with D; no kernel here has one: None.
        enable_overlap: whether blocks of D are signalled as they are done; not supported: False.
        max_block_n: of `enable_overlap`: None.
        signal: of `enable_overlap`: None.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: the device is not SM90.
        CompilationError: the kernel could not be compiled.
    """
    overlap = enable_overlap or max_block_n is not None or signal is not None
    if overlap or epilogue is not None:
        check_newer(
            epilogue=epilogue,
            enable_overlap=enable_overlap,
            max_block_n=max_block_n,
            signal=signal,
        )
    check_positive("expected_m", expected_m)
    kind = _Kind(GroupedLayout.ROW_COUNTS, 1, False, expected_m, (recipe, recipe_a, recipe_b))
    _m_grouped(check_operand("a", a), check_operand("b", b), d, masked_m, kind)


fp8_m_grouped_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
m_grouped_fp8_fp4_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
m_grouped_fp8_fp4_gemm_nt_contiguous = m_grouped_fp8_gemm_nt_contiguous
m_grouped_fp8_fp4_gemm_nn_contiguous = m_grouped_fp8_gemm_nn_contiguous


def _m_grouped(
    a: Operand, b: Operand, d: torch.Tensor, layout: torch.Tensor | None, kind: _Kind
) -> None:
    (x, sfa), (y, sfb) = a, b
    check_is_tensor("d", d)
    settings = current()
    if kind.recipes != NO_RECIPES:
        kind = kind._replace(recipes=hashable(kind.recipes))
    tensors = x, y, d, sfa, sfb, check_is_tensor(_layout_name(kind), layout)
    key = (
        *(kind, settings, sfa.data_ptr() % 16 == 0),
        *((t.shape, t.stride(), t.dtype, t.device) for t in tensors),
    )
    call = _calls.get(key)
    if call is None:
        call = _calls.remember(key, _prepare(tensors, _check(tensors, kind, settings), kind))
    elif (x.data_ptr() | y.data_ptr() | d.data_ptr()) % TMA_ALIGNMENT:
        check_addresses(tensors, call.transforms)
    # D and SFA once more, for rows that TMA does not reach.
    every = (*tensors, d, sfa)
    call.run(every, None, tuple(tensor.data_ptr() for tensor in every))


def _layout_name(kind: _Kind) -> str:
    return "masked_m" if kind.is_masked else "grouped_layout"


def _check(tensors: Tensors, kind: _Kind, settings: Settings) -> GemmProblem:
    """Checks everything but the addresses, which differ from call to call."""
    x, y, d, sfa, sfb, layout = tensors
    device = x.device
    check_fp8("a[0]", x, 3 if kind.is_masked else 2, device)
    check_fp8("b[0]", y, 3, device)
    check_output("d", d, x.dim(), device)
    (m, k), (num_groups, n, _) = x.shape[-2:], y.shape
    batch = (num_groups,) if kind.is_masked else ()
    check_dimensions(m, n, k)
    if 0 in (num_groups, n, k):
        refuse("b[0]", "must have at least one group, row and column", f"shape {tuple(y.shape)}")
    if kind.is_masked:
        if m == 0:
            refuse("a[0]", "m_max must be positive", f"shape {tuple(x.shape)}")
        check_shape("a[0]", x, (*batch, m, k), "[groups, m_max, k]")
    check_shape("b[0]", y, (num_groups, n, k), "[groups, n, k]")
    check_shape("d", d, (*batch, m, n), "[groups, m_max, n]" if batch else "[m, n]")
    arch = arch_of(device)
    _check_layout(layout, m, num_groups, device, kind)
    expected_m = kind.expected_m if kind.expected_m is not None else ceil_div(m, num_groups)
    problem = GemmProblem(
        *(min(expected_m, m), n, k, arch, usable_sms(device, settings)),
        grouping=Grouping.M_GROUPED,
        num_groups=num_groups,
        alignment=kind.alignment,
        d_bytes=d.element_size(),
        block_multiple=settings.block_multiple,
        pdl=settings.pdl,
        gpu=gpu_name_of(device),
    )
    if problem.is_sm100:
        return _check_sm100(tensors, problem, kind)
    recipe = resolve_recipe(*kind.recipes)
    if recipe != RECIPE_1D2D:
        got = (recipe.gran_m, recipe.gran_n, recipe.gran_k)
        refuse("recipe", "must be (1, 128, 128) for m-grouped products on SM90", got)
    if m > 0:
        check_scale_factors("a[1]", sfa, m, k, (1, 128), device, *batch)
        check_scale_factors("b[1]", sfb, n, k, (128, 128), device, num_groups)
        check_tma_operand("a[0]", x)
        check_tma_operand("b[0]", y)
        check_tma_rows("d", d)
    return problem


def _check_sm100(tensors: Tensors, problem: GemmProblem, kind: _Kind) -> GemmProblem:
    """What is different on SM100; gives the problem with its majors and granularity."""
    x, y, d, sfa, sfb, _ = tensors
    gran_a, gran_b = resolve_granularity(kind.recipes, sfb)
    m, n, k, num_groups = x.shape[-2], problem.n, problem.k, problem.num_groups
    if m > 0:
        batch = (num_groups,) if kind.is_masked else ()
        check_sm100_scale_factors("a[1]", sfa, m, k, gran_a, x.device, *batch)
        check_sm100_scale_factors("b[1]", sfb, n, k, gran_b, x.device, num_groups)
        check_operand_rows("a[0]", x)
        check_operand_rows("b[0]", y)
        check_tma_rows("d", d)
    majors = is_mn_major(x), is_mn_major(y)
    return replace(problem, gran_n=1, mn_major=majors, gran_k=(gran_a.k, gran_b.k))


def _check_layout(
    layout: torch.Tensor, m: int, num_groups: int, device: torch.device, kind: _Kind
) -> None:
    name = _layout_name(kind)
    check_index(name, layout, device)
    size, meaning = (m, "m") if kind.layout == GroupedLayout.ROW_IDS else (num_groups, "groups")
    if layout.numel() != size:
        refuse(name, f"must have {meaning} = {size} elements", f"shape {tuple(layout.shape)}")


def _prepare(tensors: Tensors, problem: GemmProblem, kind: _Kind) -> PlannedCall:
    if problem.m == 0:
        return PlannedCall()
    transforms = needed(*_transforms(tensors, problem), *[as_it_is] * 3)
    check_addresses(tensors, transforms)
    made = tensors
    if transforms is not None:
        made = tuple(f(t) for f, t in zip(transforms, tensors, strict=False))  # type: ignore[assignment]
    x, y, d, sfa, sfb, layout = made
    if not kind.is_masked:
        x, sfa, d = (tensor.unsqueeze(0) for tensor in (x, sfa, d))
    matrices = GemmTensors(x, sfa, y, sfb, d)
    rest = matrices, kind.layout, layout, kind.clears_padding
    if problem.is_sm100:
        return PlannedCall(
            plan_sm100_m_grouped(problem, chosen_on_sm100(problem), *rest), transforms
        )
    return PlannedCall(plan_m_grouped(problem, chosen(problem), *rest), transforms)


def _transforms(tensors: Tensors, problem: GemmProblem) -> tuple[Transform, ...]:
    """What x, y, d, sfa and sfb go through."""
    x, y, _, sfa, sfb, _ = tensors
    if problem.is_sm100:
        packing = packing_of(sfa, x.shape[-2]), packing_of(sfb, problem.n)
        return as_it_is, as_it_is, as_it_is, *packing
    operands = operand_transform("a[0]", x), operand_transform("b[0]", y)
    return *operands, as_it_is, as_it_is, as_it_is
