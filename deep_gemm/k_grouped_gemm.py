"""Weight gradients of a mixture's experts: FP8 GEMMs that each have a stretch of K."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm.call_cache import CallCache
from deep_gemm.calls import (
    Operand,
    PlannedCall,
    as_it_is,
    c_key,
    check_addresses,
    chosen,
    needed,
    sf_transform,
)
from deep_gemm.checks import (
    TMA_ALIGNMENT,
    check_c,
    check_dimensions,
    check_fp8,
    check_index,
    check_is_tensor,
    check_newer,
    check_not_fp4,
    check_operand,
    check_output,
    check_shape,
    check_tma_rows,
    refuse,
)
from deep_gemm.config.gemm_config import BLOCK_K, Grouping
from deep_gemm.config.problem import GemmProblem
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.kernels.k_grouped import plan_k_grouped
from deep_gemm.runtime.device import arch_of, gpu_name_of, is_sm100
from deep_gemm.scaling import RECIPE_1D1D, Recipes, check_scale_factors, hashable, resolve_recipe
from deep_gemm.settings import Settings, current, usable_sms
from deep_gemm.sm100_k_grouped import (
    KForm,
    check_sizes,
    check_sm100_k_grouped,
    prepare_sm100_k_grouped,
)
from deep_gemm.sm100_operands import no_kernel
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils.math import ceil_div

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""x, y, d, sfa, sfb and the groups' sizes: the order in which a launch takes their addresses."""

_calls: CallCache[PlannedCall] = CallCache()


def k_grouped_fp8_gemm_nt_contiguous(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] = (1, 1, 128),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    epilogue: object = None,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
    use_padded_sf_layout: bool = False,
) -> None:
    """Computes D[g] = A_g @ B_g.T, or D[g] = C[g] + A_g @ B_g.T, for every group g, on the current
    stream. The groups' sizes are read on the device, without a synchronisation.

    Args:
        a: (data, sfa): float8_e4m3fn, one dimension: the [m, k_g] matrices of all groups,
            row-major, one behind the other; and FP32 [m, sum(k_g) / 128], best MN-major: others are
            transposed first. On SM100 also packed, [m, words].
        b: (data, sfb): the same with n rows.
        d: [groups, m, n] float32 or bfloat16 with contiguous rows, overwritten.
        ks_cpu: k_g of every group, as the host knows them, for checks; None if it does not.
        grouped_layout: int32 [groups], contiguous, on the device: k_g of every group, multiples of
            128. What counts if they differ from `ks_cpu`. Groups that reach beyond the operands'
            end are cut off there.
        c: of d's shape and dtype, or None; `d` itself accumulates in place. Groups with k_g = 0
            leave D = C, or zero without C.
        recipe: (gran_m, gran_n, gran_k) of the scale factors: (1, 1, 128); on SM100 also
            (1, 1, 32).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        use_psum_layout: not supported here: False.
        epilogue: what else would be done with D; no kernel here has one: None.
        ks: an older name of `ks_cpu`.
        ks_tensor: an older name of `grouped_layout`.
        use_padded_sf_layout: not supported on SM90: False.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: there is no kernel for the device.
        CompilationError: a kernel could not be compiled.
        ScaleFactorError: on SM100, an earlier call's scale factors were not powers of two.
    """
    check_newer(
        epilogue=epilogue,
        use_psum_layout=use_psum_layout,
        use_padded_sf_layout=use_padded_sf_layout,
    )
    known, sizes = groups_of_call(ks_cpu, ks, grouped_layout, ks_tensor)
    run_k_grouped(a, b, d, sizes, known, c, (recipe, None, None))


def groups_of_call(
    ks_cpu: Sequence[int] | None,
    ks: Sequence[int] | None,
    grouped_layout: torch.Tensor | None,
    ks_tensor: torch.Tensor | None,
) -> tuple[Sequence[int] | None, torch.Tensor]:
    """The groups' sizes as the host knows them, and their numbers on the device."""
    if ks_cpu is not None and ks is not None:
        refuse("ks_cpu", "must be given, or ks instead", "both")
    if (grouped_layout is None) == (ks_tensor is None):
        both = "both" if ks_tensor is not None else "neither"
        refuse("grouped_layout", "must be given, or ks_tensor instead", both)
    numbers = ks_tensor if grouped_layout is None else grouped_layout
    return ks if ks_cpu is None else ks_cpu, check_is_tensor("grouped_layout", numbers)


def run_k_grouped(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    sizes: torch.Tensor,
    known: Sequence[int] | None,
    c: torch.Tensor | None,
    recipes: Recipes,
    is_tn: bool = False,
    has_ends: bool = False,
) -> None:
    """What the public functions do once they know which argument is which."""
    (x, sfa), (y, sfb) = check_operand("a", a), check_operand("b", b)
    check_is_tensor("d", d)
    if is_dynamo_compiling() or has_no_memory(d):
        torch.ops.deep_gemm.k_grouped_fp8_gemm(
            *(x, sfa, y, sfb, d, sizes, known, None if c is d else c, c is d, recipes[0]),
            *(is_tn, has_ends),
        )
        return
    tensors = x, y, d, sfa, sfb, sizes
    recipes, settings = hashable(recipes), current()
    form = KForm(is_tn, settings.mk_alignment if has_ends else None)
    if known is not None and not (has_ends and len(known) == 0):
        _check_sizes(known, tensors, form, resolve_recipe(*recipes).gran_k)
    key = (
        *(recipes, settings, form, sfa.data_ptr() % 16 == 0, sfb.data_ptr() % 16 == 0),
        *((t.shape, t.stride(), t.dtype, t.device) for t in tensors),
        None if c is None else c_key(c, d),
    )
    call = _calls.get(key)
    if call is None:
        problem = _check(tensors, c, recipes, settings, form)
        call = _calls.remember(key, _prepare(tensors, c, problem, form))
    elif (x.data_ptr() | y.data_ptr() | d.data_ptr()) % TMA_ALIGNMENT:
        check_addresses(tensors, call.transforms)
    call.run(tensors, c, tuple(tensor.data_ptr() for tensor in tensors))


def _check_sizes(ks: Sequence[int], tensors: Tensors, form: KForm, gran_k: int) -> None:
    """Checks the groups' sizes that the host knows; they differ from call to call."""
    x, y, d, *_ = tensors
    multiple = 1 if form.is_tn else BLOCK_K
    if not isinstance(ks, (list, tuple)):
        refuse("ks_cpu", "must be a list or a tuple", type(ks).__name__)
    for k in ks:
        if isinstance(k, bool) or not isinstance(k, int) or k < 0 or k % multiple:
            refuse("ks_cpu", f"must hold multiples of {multiple}, 0 or more", repr(k))
    if d.dim() != 3 or len(ks) != d.shape[0]:
        rule = "must have one size for every group of d"
        refuse("ks_cpu", rule, f"{len(ks)} sizes for d of shape {tuple(d.shape)}")
    if is_sm100(arch_of(x.device)):
        check_sizes(ks, tensors, form, gran_k)
    if form.is_tn:
        return
    for name, operand, rows in (("a[0]", x, d.shape[1]), ("b[0]", y, d.shape[2])):
        if operand.numel() != rows * sum(ks):
            check_not_fp4(name, operand)
            rule = f"must have {rows} * sum(ks_cpu) = {rows * sum(ks)} elements"
            refuse(name, rule, operand.numel())


def _check(
    tensors: Tensors,
    c: torch.Tensor | None,
    recipes: Recipes,
    settings: Settings,
    form: KForm,
) -> GemmProblem:
    """Checks everything but the addresses and the groups' sizes."""
    x, y, d, sfa, sfb, sizes = tensors
    device = x.device
    check_fp8("a[0]", x, 2 if form.is_tn else 1, device)
    check_fp8("b[0]", y, 2 if form.is_tn else 1, device)
    check_output("d", d, 3, device)
    num_groups, m, n = d.shape
    arch, recipe = arch_of(device), resolve_recipe(*recipes)
    if form.is_tn and not is_sm100(arch):
        raise no_kernel("k-grouped products of operands [k, m] and [k, n]", "SM90")
    check_index("grouped_layout", sizes, device)
    if sizes.numel() != num_groups:
        rule = f"must have one element for each of {num_groups} groups of d"
        refuse("grouped_layout", rule, f"shape {tuple(sizes.shape)}")
    total_k = _total_k(x, m)
    check_dimensions(m, n, total_k)
    if c is not None and d.numel():
        check_c(c, d, "[groups, m, n]")
    if d.numel():
        for name, operand, rows in (("a[0]", x, m), ("b[0]", y, n)):
            if form.is_tn:
                check_shape(name, operand, (total_k, rows), f"[k, {rows}]")
            else:
                _check_flat(name, operand, rows, total_k)
    problem = GemmProblem(
        *(m, n, ceil_div(total_k, max(num_groups, 1)), arch, usable_sms(device, settings)),
        grouping=Grouping.K_GROUPED,
        num_groups=num_groups,
        gran_n=recipe.gran_n,
        d_bytes=d.element_size(),
        block_multiple=settings.block_multiple,
        pdl=settings.pdl,
        gpu=gpu_name_of(device),
    )
    if problem.is_sm100:
        return check_sm100_k_grouped(tensors, problem, recipe, form)
    if recipe != RECIPE_1D1D:
        got = (recipe.gran_m, recipe.gran_n, recipe.gran_k)
        refuse("recipe", "must be (1, 1, 128) for k-grouped products on SM90", got)
    if d.numel():
        check_scale_factors("a[1]", sfa, m, total_k, (1, BLOCK_K), device)
        check_scale_factors("b[1]", sfb, n, total_k, (1, BLOCK_K), device)
        check_tma_rows("d", d)
    return problem


def _total_k(x: torch.Tensor, m: int) -> int:
    """K of all groups, of an A [k, m] or flat."""
    if x.dim() == 2:
        return x.shape[0]
    return x.numel() // m if m else 0


def _check_flat(name: str, operand: torch.Tensor, rows: int, total_k: int) -> None:
    if operand.numel() > 1 and operand.stride(0) != 1:
        refuse(name, "must be contiguous", f"stride {operand.stride(0)}")
    if operand.numel() != rows * total_k or total_k % BLOCK_K:
        rule = f"must have {rows} rows of the same sum(k_g), a multiple of {BLOCK_K}"
        refuse(name, rule, f"{operand.numel()} elements")


def _prepare(
    tensors: Tensors, c: torch.Tensor | None, problem: GemmProblem, form: KForm
) -> PlannedCall:
    x, y, d, sfa, sfb, sizes = tensors
    if d.numel() == 0:
        return PlannedCall()
    copies_c = c is not None and c.data_ptr() != d.data_ptr()
    total_k = _total_k(x, problem.m)
    if total_k == 0:
        return PlannedCall(copies_c=copies_c, clears_d=c is None)
    if problem.is_sm100:
        with_c = c is not None, copies_c
        return prepare_sm100_k_grouped(tensors, problem, form, total_k, with_c)
    transforms = needed(
        *[as_it_is] * 3,
        sf_transform(sfa, is_1d1d=True, along_k_too=False),
        sf_transform(sfb, is_1d1d=True, along_k_too=False),
        as_it_is,
    )
    check_addresses(tensors, transforms)
    if transforms is not None:
        sfa, sfb = transforms[3](sfa), transforms[4](sfb)
    plan = plan_k_grouped(
        problem,
        chosen(problem),
        GemmTensors(x, sfa.unsqueeze(0), y, sfb.unsqueeze(0), d),
        total_k,
        sizes,
        accumulates=c is not None,
    )
    return PlannedCall(plan, transforms, copies_c)
