"""Dense FP8 GEMM."""

from __future__ import annotations

import sys

import torch

from deep_gemm import knobs
from deep_gemm.checks import (
    TMA_ALIGNMENT,
    check_address,
    check_dimensions,
    check_is_tensor,
    check_matrix,
    check_operand,
    check_shape,
    check_tma_rows,
    refuse,
)
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import explain, select
from deep_gemm.kernels.dense_fp8 import plan_dense
from deep_gemm.runtime.device import arch_of, num_sms_of
from deep_gemm.runtime.launch import Plan
from deep_gemm.scaling import RECIPE_1D2D, ScalingRecipe, check_scale_factors, resolve_recipe

Operand = tuple[torch.Tensor, torch.Tensor]
"""FP8 data and its scale factors."""

MAX_PLANS = 8192
"""Plans that are kept, at about 3 KB each; the oldest goes first."""

_plans: dict[object, Plan] = {}
"""Plans of the calls seen so far, by everything that a plan depends on but the addresses."""


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
) -> None:
    """Computes D = A @ B.T of FP8 operands with fine-grained scale factors, on the current stream.

    Each 128 of K are multiplied by the tensor cores, scaled, and added up in FP32.

    Args:
        a: (data, sfa): [m, k] float8_e4m3fn with contiguous rows, and FP32 [m, ceil(k / 128)] in
            any layout: row-major, MN-major, padded or sliced, it is read as it is.
        b: (data, sfb): [n, k] float8_e4m3fn with contiguous rows, and FP32
            [ceil(n / 128), ceil(k / 128)] in any layout.
        d: [m, n] bfloat16 with contiguous rows, overwritten.
        c: must be None on SM90 unless k is 0, when D becomes a copy of it.
        recipe: (gran_m, gran_n, gran_k) of the scale factors; SM90 has (1, 128, 128).
        recipe_a: (gran_m, gran_k), instead of `recipe` and together with `recipe_b`.
        recipe_b: (gran_n, gran_k).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        disable_ue8m0_cast: accepted for compatibility; SM90 never rounds scale factors.

    The addresses of a, b and d must be multiples of 16 bytes, and so must their rows and row
    strides: k a multiple of 16, n of 8. If m or n is 0 nothing happens; if k is 0, D becomes C, or
    zero without one.

    Raises:
        ArgumentError: an argument breaks one of these rules. Nothing was written.
        UnsupportedArchitectureError: the device is not SM90.
        CompilationError: the kernel could not be compiled.

    Example:
        >>> a = per_token_cast_to_fp8(torch.randn(64, 7168, device="cuda"), use_ue8m0=False)
        >>> b = per_block_cast_to_fp8(torch.randn(2048, 7168, device="cuda"), use_ue8m0=False)
        >>> d = torch.empty(64, 2048, device="cuda", dtype=torch.bfloat16)
        >>> fp8_gemm_nt(a, b, d)
    """
    x, sfa = check_operand("a", a)
    y, sfb = check_operand("b", b)
    check_is_tensor("d", d)
    addresses = x.data_ptr(), y.data_ptr(), d.data_ptr(), sfa.data_ptr(), sfb.data_ptr()
    key = (
        addresses[3] % 16 == 0,
        *(x.shape, x.stride(), x.dtype, x.device, sfa.shape, sfa.stride(), sfa.dtype, sfa.device),
        *(y.shape, y.stride(), y.dtype, y.device, sfb.shape, sfb.stride(), sfb.dtype, sfb.device),
        *(d.shape, d.stride(), d.dtype, d.device, c is None, recipe, recipe_a, recipe_b),
    )
    plan = _plans.get(key)
    if plan is None:
        problem = _check(x, sfa, y, sfb, d, resolve_recipe(recipe, recipe_a, recipe_b))
        if _is_trivial(problem, c, d):
            return
    if (addresses[0] | addresses[1] | addresses[2]) % TMA_ALIGNMENT:
        _refuse_misaligned(addresses)
    if plan is None:
        plan = _remember(key, _plan(problem, x, sfa, y, sfb, d))
    plan.launch(*addresses)


def _check(
    x: torch.Tensor,
    sfa: torch.Tensor,
    y: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
    recipe: ScalingRecipe,
) -> GemmProblem:
    """Checks everything but the addresses, which differ from call to call."""
    device = x.device
    check_matrix("a[0]", x, torch.float8_e4m3fn, device)
    check_matrix("b[0]", y, torch.float8_e4m3fn, device)
    check_matrix("d", d, torch.bfloat16, device)
    (m, k), n = x.shape, y.shape[0]
    check_dimensions(m, n, k)
    check_shape("b[0]", y, (n, k), "[n, k]")
    check_shape("d", d, (m, n), "[m, n]")
    arch = arch_of(device)
    if m and n and k:
        if recipe != RECIPE_1D2D:
            refuse("recipe", "must be (1, 128, 128) on SM90 (1D1D is not there yet)", recipe)
        check_scale_factors("a[1]", sfa, m, k, (recipe.gran_m, recipe.gran_k), device)
        check_scale_factors("b[1]", sfb, n, k, (recipe.gran_n, recipe.gran_k), device)
        check_tma_rows("a[0]", x)
        check_tma_rows("b[0]", y)
        check_tma_rows("d", d)
    return GemmProblem(m, n, k, arch, num_sms_of(device))


def _is_trivial(problem: GemmProblem, c: torch.Tensor | None, d: torch.Tensor) -> bool:
    """Handles problems that need no kernel, and refuses C where there is one."""
    if problem.m == 0 or problem.n == 0:
        return True
    if c is not None:
        check_matrix("c", c, d.dtype, d.device)
        check_shape("c", c, (problem.m, problem.n), "[m, n]")
    if problem.k == 0:
        d.zero_() if c is None else d.copy_(c)
        return True
    if c is not None:
        refuse("c", "must be None for BF16 output with recipe (1, 128, 128) on SM90", "a tensor")
    return False


def _plan(
    problem: GemmProblem,
    x: torch.Tensor,
    sfa: torch.Tensor,
    y: torch.Tensor,
    sfb: torch.Tensor,
    d: torch.Tensor,
) -> Plan:
    if knobs.print_configs.get():
        print(explain(problem), file=sys.stderr)
    return plan_dense(problem, select(problem), x, sfa, y, sfb, d)


def _remember(key: object, plan: Plan) -> Plan:
    while len(_plans) >= MAX_PLANS:
        _plans.pop(next(iter(_plans)), None)
    _plans[key] = plan
    return plan


def _refuse_misaligned(addresses: tuple[int, ...]) -> None:
    for name, address in zip(("a[0]", "b[0]", "d"), addresses, strict=False):
        check_address(name, address, TMA_ALIGNMENT)
