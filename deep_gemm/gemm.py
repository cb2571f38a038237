"""FP8 GEMM of two matrices."""

from __future__ import annotations

from math import gcd

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm import knobs
from deep_gemm.call_cache import CallCache
from deep_gemm.calls import (
    Operand,
    PlannedCall,
    as_it_is,
    c_key,
    check_addresses,
    chosen,
    needed,
    operand_transform,
    sf_transform,
)
from deep_gemm.checks import (
    TMA_ALIGNMENT,
    check_c,
    check_dimensions,
    check_fp8,
    check_is_tensor,
    check_newer,
    check_operand,
    check_output,
    check_shape,
    check_tma_operand,
    check_tma_rows,
    refuse,
)
from deep_gemm.config.problem import GemmProblem
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from deep_gemm.runtime.device import arch_of, gpu_name_of, is_sm100
from deep_gemm.scaling import (
    NO_RECIPES,
    RECIPE_1D2D,
    Recipes,
    check_recipe,
    check_scale_factors,
    check_uncast,
    hashable,
    resolve_recipe,
)
from deep_gemm.settings import Settings, current, usable_sms
from deep_gemm.tracing import has_no_memory

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""x, y, d, sfa and sfb: the order in which a launch takes their addresses."""

HeadSplits = tuple[int, int, int]
"""Columns of D to the left of each gap, in it, and to its right."""

NO_HEADS: HeadSplits = (0, 0, 0)

_calls: CallCache[PlannedCall] = CallCache()


def gap_columns(n: int, head_splits: HeadSplits) -> int:
    """Columns of D that are not written, for a product of n columns."""
    left, mid, right = head_splits
    return n // (left + right) * mid if mid else 0


def fp8_gemm_nt(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    alpha: float | None = None,
    epilogue: object = None,
) -> None:
    """Computes D = A @ B.T, or D = C + A @ B.T, of FP8 operands with fine-grained scale factors, on
    the current stream.

    Each 128 of K are multiplied by the tensor cores, scaled, and added up in FP32. With C, that sum
    is rounded to D's type and added to C in D's type.

    Args:
        a: (data, sfa): [m, k] float8_e4m3fn, and FP32 [m, ceil(k / 128)] in any layout: row-major,
            MN-major, padded or sliced, it is read as it is.
        b: (data, sfb): [n, k] float8_e4m3fn, and FP32 [ceil(n / 128), ceil(k / 128)] in any layout;
            for 1D1D [n, ceil(k / 128)], best MN-major: row-major ones are transposed first.
        d: [m, n] bfloat16 or float32 with contiguous rows, overwritten.
        c: [m, n] of d's dtype, or None; `d` itself accumulates in place.
        recipe: (gran_m, gran_n, gran_k) of the scale factors: (1, 128, 128), 1D2D, which is the
            default, or (1, 1, 128), 1D1D. On SM100 any gran_m and gran_n, and 32 or 128 for gran_k.
        recipe_a: (gran_m, gran_k), instead of `recipe` and together with `recipe_b`.
        recipe_b: (gran_n, gran_k).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        disable_ue8m0_cast: refuses FP32 scale factors on SM100, whose kernels take UE8M0; without
            meaning on SM90.
        alpha: a factor, of which no kernel here has another than 1: None or 1.
        epilogue: what else would be done with D; no kernel here has one: None.

    Operands with contiguous columns instead of contiguous rows are transposed by a kernel first.
    The addresses of all others and of d must be multiples of 16 bytes, and so must their rows and
    row strides: k a multiple of 16, n of 8 (of 4 for float32). If m or n is 0 nothing happens; if k
    is 0, D becomes C, or zero without one.

    Raises:
        ArgumentError: an argument breaks one of these rules. Nothing was written.
        UnsupportedArchitectureError: there is no kernel for the device.
        ScaleFactorError: on SM100, FP32 scale factors of an earlier call were no powers of two.
        CompilationError: the kernel could not be compiled.

    Example:
        >>> a = per_token_cast_to_fp8(torch.randn(64, 7168, device="cuda"), use_ue8m0=False)
        >>> b = per_block_cast_to_fp8(torch.randn(2048, 7168, device="cuda"), use_ue8m0=False)
        >>> d = torch.empty(64, 2048, device="cuda", dtype=torch.bfloat16)
        >>> fp8_gemm_nt(a, b, d)
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    if alpha is not None or epilogue is not None:
        check_newer(alpha=alpha, epilogue=epilogue)
    run_gemm(a, b, d, c, (recipe, recipe_a, recipe_b))


def fp8_gemm_nn(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
    alpha: float | None = None,
    epilogue: object = None,
) -> None:
    """Computes D = A @ B, or D = C + A @ B: `fp8_gemm_nt` with B stored as [k, n], and its scale
    factors likewise, [ceil(k / 128), ceil(n / 128)] or [ceil(k / 128), n].

    Raises:
        ArgumentError: as `fp8_gemm_nt`, which has the arguments too.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    if alpha is not None or epilogue is not None:
        check_newer(alpha=alpha, epilogue=epilogue)
    run_gemm(a, _transposed("b", b), d, c, (recipe, recipe_a, recipe_b))


def fp8_gemm_tn(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
    alpha: float | None = None,
    epilogue: object = None,
) -> None:
    """Computes D = A.T @ B, or D = C + A.T @ B: `fp8_gemm_nt` with A stored as [k, m] and B as
    [k, n], and their scale factors likewise.

    Raises:
        ArgumentError: as `fp8_gemm_nt`, which has the arguments too.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    if alpha is not None or epilogue is not None:
        check_newer(alpha=alpha, epilogue=epilogue)
    run_gemm(_transposed("a", a), _transposed("b", b), d, c, (recipe, recipe_a, recipe_b))


def fp8_gemm_tt(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] | None = None,
    recipe_a: tuple[int, int] | None = None,
    recipe_b: tuple[int, int] | None = None,
    compiled_dims: str = "mn",
    disable_ue8m0_cast: bool = False,
    alpha: float | None = None,
    epilogue: object = None,
) -> None:
    """Computes D = A.T @ B.T, or D = C + A.T @ B.T: `fp8_gemm_nt` with A stored as [k, m], and its
    scale factors likewise.

    Raises:
        ArgumentError: as `fp8_gemm_nt`, which has the arguments too.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    if alpha is not None or epilogue is not None:
        check_newer(alpha=alpha, epilogue=epilogue)
    run_gemm(_transposed("a", a), b, d, c, (recipe, recipe_a, recipe_b))


fp8_fp4_gemm_nt = fp8_gemm_nt
fp8_fp4_gemm_nn = fp8_gemm_nn
fp8_fp4_gemm_tn = fp8_gemm_tn
fp8_fp4_gemm_tt = fp8_gemm_tt


def _transposed(argument: str, operand: object) -> Operand:
    """The operand with both its tensors' dimensions exchanged, as views."""
    data, sf = check_operand(argument, operand)
    for name, tensor in ((f"{argument}[0]", data), (f"{argument}[1]", sf)):
        if tensor.dim() != 2:
            refuse(name, "must have 2 dimension(s)", f"shape {tuple(tensor.shape)}")
    return data.t(), sf.t()


def run_gemm(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None,
    recipes: Recipes,
    head_splits: HeadSplits = NO_HEADS,
) -> None:
    """What the public functions do once their operands are as `fp8_gemm_nt` has them."""
    if c is not None or is_dynamo_compiling():
        return _run_any(a, b, d, c, recipes, head_splits)
    try:
        (x, sfa), (y, sfb) = a, b
        options = current(), recipes, head_splits
        launch = _calls.recent.find(d.shape, (x, y, d, sfa, sfb), options)
    except (TypeError, ValueError, AttributeError):
        return _run_any(a, b, d, c, recipes, head_splits)
    if launch is not None:
        x_at, y_at, d_at = x.data_ptr(), y.data_ptr(), d.data_ptr()
        sfa_at, sfb_at = sfa.data_ptr(), sfb.data_ptr()
        if not (x_at | y_at | d_at | sfa_at | sfb_at) % TMA_ALIGNMENT:
            return launch(x_at, y_at, d_at, sfa_at, sfb_at)
    return _run_any(a, b, d, c, recipes, head_splits)


def _run_any(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    c: torch.Tensor | None,
    recipes: Recipes,
    head_splits: HeadSplits,
) -> None:
    """Calls of every kind: the first of a kind, rare ones, and those that are only recorded."""
    (x, sfa), (y, sfb) = check_operand("a", a), check_operand("b", b)
    check_is_tensor("d", d)
    if is_dynamo_compiling() or has_no_memory(d):
        torch.ops.deep_gemm.fp8_gemm_nt(
            *(x, sfa, y, sfb, d, None if c is d else c, c is d, *recipes, head_splits)
        )
        return
    if recipes != NO_RECIPES:
        recipes = hashable(recipes)
    settings = current()
    addresses = x.data_ptr(), y.data_ptr(), d.data_ptr(), sfa.data_ptr(), sfb.data_ptr()
    key = (
        *(addresses[3] % 16 == 0, addresses[4] % 16 == 0, settings, head_splits, *recipes),
        *(x.shape, x.stride(), x.dtype, x.device, sfa.shape, sfa.stride(), sfa.dtype, sfa.device),
        *(y.shape, y.stride(), y.dtype, y.device, sfb.shape, sfb.stride(), sfb.dtype, sfb.device),
        *(d.shape, d.stride(), d.dtype, d.device, None if c is None else c_key(c, d)),
    )
    tensors = x, y, d, sfa, sfb
    call = _calls.get(key)
    if call is None:
        problem = _check(tensors, c, recipes, settings, head_splits)
        call = _calls.remember(key, _prepare(tensors, c, problem, recipes, head_splits))
    elif (addresses[0] | addresses[1] | addresses[2]) % TMA_ALIGNMENT:
        check_addresses(tensors, call.transforms)
    direct = c is None and not any(p % TMA_ALIGNMENT for p in addresses)
    launch = call.direct_launch(d.device) if direct else None
    if launch is not None:
        _calls.recent.remember(d.shape, tensors, (settings, recipes, head_splits), launch)
    call.run(tensors, c, addresses)


def _check(
    tensors: Tensors,
    c: torch.Tensor | None,
    recipes: Recipes,
    settings: Settings,
    head_splits: HeadSplits,
) -> GemmProblem:
    """Checks everything but the addresses, which differ from call to call."""
    x, y, d, sfa, sfb = tensors
    device = x.device
    check_fp8("a[0]", x, 2, device)
    check_fp8("b[0]", y, 2, device)
    check_output("d", d, 2, device)
    (m, k), n = x.shape, y.shape[0]
    check_dimensions(m, n, k)
    check_shape("b[0]", y, (n, k), "[n, k]")
    check_shape("d", d, (m, n + gap_columns(n, head_splits)), "[m, n]")
    arch = arch_of(device)
    if c is not None and m and n:
        check_c(c, d, "[m, n]")
    if is_sm100(arch):
        from deep_gemm import sm100_calls

        return sm100_calls.check_dense(tensors, arch, recipes, settings, head_splits)
    recipe = resolve_recipe(*recipes)
    if head_splits != NO_HEADS and recipe != RECIPE_1D2D:
        rule = "must be (1, 128, 128) where D has gaps"
        refuse("recipe", rule, (recipe.gran_m, recipe.gran_n, recipe.gran_k))
    if m and n and k:
        check_recipe(recipe)
        check_scale_factors("a[1]", sfa, m, k, (recipe.gran_m, recipe.gran_k), device)
        check_scale_factors("b[1]", sfb, n, k, (recipe.gran_n, recipe.gran_k), device)
        check_tma_operand("a[0]", x)
        check_tma_operand("b[0]", y)
        check_tma_rows("d", d)
    return GemmProblem(
        *(m, n, k, arch, usable_sms(device, settings)),
        gran_n=recipe.gran_n,
        d_bytes=d.element_size(),
        block_multiple=settings.block_multiple,
        head_columns=gcd(head_splits[0], head_splits[2]),
        pdl=settings.pdl,
        splits_k=not settings.batch_invariant and recipe == RECIPE_1D2D,
        few_kernels=knobs.few_kernels.get(),
        gpu=gpu_name_of(device),
    )


def _prepare(
    tensors: Tensors,
    c: torch.Tensor | None,
    problem: GemmProblem,
    recipes: Recipes,
    head_splits: HeadSplits,
) -> PlannedCall:
    x, y, d, sfa, sfb = tensors
    if problem.m == 0 or problem.n == 0:
        return PlannedCall()
    copies_c = c is not None and c.data_ptr() != d.data_ptr()
    if problem.k == 0:
        return PlannedCall(copies_c=copies_c, clears_d=c is None)
    if problem.is_sm100:
        from deep_gemm import sm100_calls

        with_c = c is not None, copies_c
        return sm100_calls.prepare_dense(tensors, problem, recipes, with_c, head_splits)
    transforms = needed(
        operand_transform("a[0]", x),
        operand_transform("b[0]", y),
        as_it_is,
        sf_transform(sfa, problem.is_1d1d, along_k_too=True),
        sf_transform(sfb, problem.is_1d1d, along_k_too=False),
    )
    check_addresses(tensors, transforms)
    if transforms is not None:
        x, y, d, sfa, sfb = (f(tensor) for f, tensor in zip(transforms, tensors, strict=True))
    plan = plan_dense(
        problem,
        chosen(problem),
        GemmTensors.of_matrices(x, sfa, y, sfb, d),
        accumulates=c is not None,
        head_splits=head_splits,
    )
    return PlannedCall(plan, transforms, copies_c)
