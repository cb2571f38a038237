"""Many FP8 GEMMs in one launch: the experts of a mixture, forwards and backwards."""

from __future__ import annotations

from typing import Any

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm import knobs
from deep_gemm.call_cache import CallCache
from deep_gemm.calls import (
    Operand,
    PlannedCall,
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
from deep_gemm.grouped_options import ROW_COUNTS, ROW_ENDS, ROW_IDS, Kind, Options
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_m_grouped
from deep_gemm.runtime.device import arch_of, gpu_name_of
from deep_gemm.scaling import (
    NO_RECIPES,
    RECIPE_1D2D,
    check_scale_factors,
    check_uncast,
    hashable,
    resolve_recipe,
)
from deep_gemm.settings import Settings, current, usable_sms
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils.math import ceil_div

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""x, y, d, sfa, sfb and the grouped layout."""


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
        disable_ue8m0_cast: refuses FP32 scale factors on SM100, whose kernels take UE8M0; without
            meaning on SM90.
        use_psum_layout: what `grouped_layout` holds. Rows behind the last group are not written.
        ensure_zero_padding: with `use_psum_layout`, False leaves D as it is in padding.
        expected_m_for_psum_layout: rows that a group is expected to have, for the choice of the
            kernel; results do not depend on it.
        epilogue: what else would be done with D; no kernel here has one: None.
        m_indices: an older name of `grouped_layout`.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: there is no kernel for the device.
        ScaleFactorError: on SM100, FP32 scale factors of an earlier call were no powers of two.
        CompilationError: the kernel could not be compiled.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    if epilogue is not None:
        check_newer(epilogue=epilogue)
    if (grouped_layout is None) == (m_indices is None):
        both = "both" if m_indices is not None else "neither"
        refuse("grouped_layout", "must be given, or m_indices instead", both)
    if expected_m_for_psum_layout is not None and not use_psum_layout:
        rule = "needs use_psum_layout"
        refuse("expected_m_for_psum_layout", rule, expected_m_for_psum_layout)
    options = (
        ROW_ENDS if use_psum_layout else ROW_IDS,
        ensure_zero_padding,
        expected_m_for_psum_layout,
        (recipe, recipe_a, recipe_b),
    )
    layout = m_indices if grouped_layout is None else grouped_layout
    run_m_grouped(a, b, d, layout, options)


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
    if disable_ue8m0_cast:
        check_uncast(a, b)
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
        disable_ue8m0_cast: refuses FP32 scale factors on SM100, whose kernels take UE8M0; without
            meaning on SM90.
        epilogue: what else would be done with D; no kernel here has one: None.
        enable_overlap: whether blocks of D are signalled as they are done; not supported: False.
        max_block_n: of `enable_overlap`: None.
        signal: of `enable_overlap`: None.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: there is no kernel for the device.
        ScaleFactorError: on SM100, FP32 scale factors of an earlier call were no powers of two.
        CompilationError: the kernel could not be compiled.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    overlap = enable_overlap or max_block_n is not None or signal is not None
    if overlap or epilogue is not None:
        check_newer(
            epilogue=epilogue,
            enable_overlap=enable_overlap,
            max_block_n=max_block_n,
            signal=signal,
        )
    options = ROW_COUNTS, False, expected_m, (recipe, recipe_a, recipe_b)
    run_m_grouped(a, b, d, masked_m, options)


fp8_m_grouped_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
m_grouped_fp8_fp4_gemm_nt_masked = m_grouped_fp8_gemm_nt_masked
m_grouped_fp8_fp4_gemm_nt_contiguous = m_grouped_fp8_gemm_nt_contiguous
m_grouped_fp8_fp4_gemm_nn_contiguous = m_grouped_fp8_gemm_nn_contiguous


def run_m_grouped(a: Operand, b: Operand, d: torch.Tensor, layout: Any, options: Options) -> None:
    """What the public functions do once they know what a call asks for."""
    if is_dynamo_compiling():
        return _run_any(a, b, d, layout, options)
    try:
        (x, sfa), (y, sfb) = a, b
        hint, tensors = (d.shape, options[2]), (x, y, d, sfa, sfb, layout)
        launch = _calls.recent.find(hint, tensors, (current(), options))
    except (TypeError, ValueError, AttributeError):
        return _run_any(a, b, d, layout, options)
    if launch is not None:
        x_at, y_at, d_at, sfa_at = x.data_ptr(), y.data_ptr(), d.data_ptr(), sfa.data_ptr()
        if not (x_at | y_at | d_at | sfa_at) % TMA_ALIGNMENT:
            # D and SFA once more, for rows that TMA does not reach.
            others = sfb.data_ptr(), layout.data_ptr(), d_at, sfa_at
            return launch(x_at, y_at, d_at, sfa_at, *others)
    return _run_any(a, b, d, layout, options)


def _run_any(a: Operand, b: Operand, d: torch.Tensor, layout: object, options: Options) -> None:
    """Calls of every kind: the first of a kind, rare ones, and those that are only recorded."""
    kind = Kind(*options)
    if kind.is_masked or kind.expected_m is not None:
        check_positive(kind.name_of_expected_m, kind.expected_m)
    (x, sfa), (y, sfb) = check_operand("a", a), check_operand("b", b)
    check_is_tensor("d", d)
    tensors = x, y, d, sfa, sfb, check_is_tensor(_layout_name(kind), layout)
    if is_dynamo_compiling() or has_no_memory(d):
        torch.ops.deep_gemm.m_grouped_fp8_gemm_nt(
            *(x, sfa, y, sfb, d, tensors[5], int(kind.layout)),
            *(kind.clears_padding, kind.expected_m, *kind.recipes),
        )
        return
    settings = current()
    if kind.recipes != NO_RECIPES:
        kind = kind._replace(recipes=hashable(kind.recipes))
    key = (
        *(kind, settings, sfa.data_ptr() % 16 == 0),
        *((t.shape, t.stride(), t.dtype, t.device) for t in tensors),
    )
    call = _calls.get(key)
    if call is None:
        call = _calls.remember(key, _prepare(tensors, _check(tensors, kind, settings), kind))
    elif (x.data_ptr() | y.data_ptr() | d.data_ptr()) % TMA_ALIGNMENT:
        check_addresses(tensors, call.transforms)
    every = (*tensors, d, sfa)
    addresses = tuple(tensor.data_ptr() for tensor in every)
    launch = call.direct_launch(d.device)
    if launch is not None and addresses[3] % TMA_ALIGNMENT == 0:
        _calls.recent.remember((d.shape, kind.expected_m), tensors, (settings, kind), launch)
    call.run(every, None, addresses)


def _layout_name(kind: Kind) -> str:
    return "masked_m" if kind.is_masked else "grouped_layout"


def _check(tensors: Tensors, kind: Kind, settings: Settings) -> GemmProblem:
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
        alignment=1 if kind.is_masked else settings.mk_alignment,
        d_bytes=d.element_size(),
        block_multiple=settings.block_multiple,
        pdl=settings.pdl,
        few_kernels=knobs.few_kernels.get(),
        gpu=gpu_name_of(device),
    )
    if problem.is_sm100:
        from deep_gemm import sm100_calls

        return sm100_calls.check_m_grouped(tensors, problem, kind.recipes, kind.is_masked)
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


def _check_layout(
    layout: torch.Tensor, m: int, num_groups: int, device: torch.device, kind: Kind
) -> None:
    name = _layout_name(kind)
    check_index(name, layout, device)
    size, meaning = (m, "m") if kind.layout == ROW_IDS else (num_groups, "groups")
    if layout.numel() != size:
        refuse(name, f"must have {meaning} = {size} elements", f"shape {tuple(layout.shape)}")


def _prepare(tensors: Tensors, problem: GemmProblem, kind: Kind) -> PlannedCall:
    if problem.m == 0:
        return PlannedCall()
    if problem.is_sm100:
        from deep_gemm import sm100_calls

        return sm100_calls.prepare_m_grouped(tensors, problem, kind)
    first = operand_transform("a[0]", tensors[0]), operand_transform("b[0]", tensors[1])
    transforms = needed(*first, *[as_it_is] * (8 - len(first)))
    check_addresses(tensors, transforms)
    made = tensors
    if transforms is not None:
        made = tuple(f(t) for f, t in zip(transforms, tensors, strict=False))  # type: ignore[assignment]
    x, y, d, sfa, sfb, layout = made
    if not kind.is_masked:
        x, sfa, d = (tensor.unsqueeze(0) for tensor in (x, sfa, d))
    matrices = GemmTensors(x, sfa, y, sfb, d)
    plan = plan_m_grouped(
        problem, chosen(problem), matrices, kind.layout, layout, kind.clears_padding
    )
    return PlannedCall(plan, transforms)
