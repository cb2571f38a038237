"""Scale factors: how many elements share one, and which shapes follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deep_gemm.checks import check_operand, check_shape, check_tensor, refuse
from deep_gemm.runtime.device import arch_of, is_sm100
from deep_gemm.utils.math import ceil_div


@dataclass(frozen=True, slots=True)
class ScalingRecipe:
    """Granularity of the scale factors, in elements.

    Attributes:
        gran_m: rows of A that share one scale factor.
        gran_n: rows of B that share one.
        gran_k: elements along K that share one, in both operands.
    """

    gran_m: int
    gran_n: int
    gran_k: int


RECIPE_1D2D = ScalingRecipe(1, 128, 128)
"""SFA per 1 x 128, SFB per 128 x 128: activations against weights."""

RECIPE_1D1D = ScalingRecipe(1, 1, 128)
"""Both per 1 x 128: activations against gradients."""

RECIPES = (RECIPE_1D2D, RECIPE_1D1D)
"""Those that SM90 has."""


def check_recipe(recipe: ScalingRecipe) -> None:
    """SM90 has a kernel for the recipe.

    Raises:
        ArgumentError: it has none.
    """
    if recipe not in RECIPES:
        rule = "must be (1, 128, 128) or (1, 1, 128) on SM90"
        refuse("recipe", rule, (recipe.gran_m, recipe.gran_n, recipe.gran_k))


Recipes = tuple[Sequence[int] | None, Sequence[int] | None, Sequence[int] | None]
"""The arguments recipe, recipe_a and recipe_b."""


NO_RECIPES: Recipes = (None, None, None)


def hashable(recipes: Recipes) -> Recipes:
    """The three arguments as parts of a call's key; callers may have lists for tuples."""
    recipe, recipe_a, recipe_b = recipes
    if isinstance(recipe, list):
        recipe = tuple(recipe)
    if isinstance(recipe_a, list):
        recipe_a = tuple(recipe_a)
    if isinstance(recipe_b, list):
        recipe_b = tuple(recipe_b)
    return recipe, recipe_a, recipe_b


def resolve_recipe(
    recipe: Sequence[int] | None, recipe_a: Sequence[int] | None, recipe_b: Sequence[int] | None
) -> ScalingRecipe:
    """The recipe that a call asked for: `recipe`, or `recipe_a` with `recipe_b`, or the default.

    Args:
        recipe: (gran_m, gran_n, gran_k).
        recipe_a: (gran_m, gran_k) of A.
        recipe_b: (gran_n, gran_k) of B.

    Raises:
        ArgumentError: both forms are given, one half is missing, or the forms disagree on gran_k.
    """
    if recipe is not None:
        if recipe_a is not None or recipe_b is not None:
            refuse("recipe", "excludes recipe_a and recipe_b", (recipe, recipe_a, recipe_b))
        if not isinstance(recipe, (tuple, list)) or len(recipe) != 3:
            refuse("recipe", "must be (gran_m, gran_n, gran_k)", repr(recipe))
        return ScalingRecipe(*recipe)
    if recipe_a is None and recipe_b is None:
        return RECIPE_1D2D
    if recipe_a is None or recipe_b is None:
        refuse("recipe_a, recipe_b", "must be given together", (recipe_a, recipe_b))
    halves = recipe_a, recipe_b
    pairs = all(isinstance(half, (tuple, list)) and len(half) == 2 for half in halves)
    if not pairs or recipe_a[1] != recipe_b[1]:
        rule = "must be (gran_m, gran_k) and (gran_n, gran_k) with the same gran_k"
        refuse("recipe_a, recipe_b", rule, (recipe_a, recipe_b))
    return ScalingRecipe(recipe_a[0], recipe_b[0], recipe_a[1])


def check_scale_factors(
    argument: str,
    sf: torch.Tensor,
    rows: int,
    k: int,
    gran: tuple[int, int],
    device: torch.device,
    num_groups: int | None = None,
) -> None:
    """Checks FP32 scale factors of a [rows, k] operand, or of many; any strides are taken.

    Args:
        argument: its name, for the message.
        sf: [ceil(rows / gran[0]), ceil(k / gran[1])], FP32, with `num_groups` in front if given.
        rows: rows of the operand.
        k: columns of the operand.
        gran: elements per scale factor, along rows and along K.
        device: the device of the call.
        num_groups: number of operands; None for one.

    Raises:
        ArgumentError: wrong dtype, device or shape.
    """
    if sf.dtype in (torch.int32, torch.uint8):
        rule = "must be FP32 on SM90 (packed UE8M0 scale factors are for SM100)"
        refuse(argument, rule, sf.dtype)
    groups = () if num_groups is None else (num_groups,)
    check_tensor(argument, sf, 2 + len(groups), torch.float32, device)
    shape = (*groups, ceil_div(rows, gran[0]), ceil_div(k, gran[1]))
    front = "".join(f"{size}, " for size in groups)
    check_shape(argument, sf, shape, f"[{front}ceil({rows} / {gran[0]}), ceil({k} / {gran[1]})]")


def check_uncast(a: object, b: object) -> None:
    """The caller forbids a cast of scale factors to UE8M0: on SM100 they must have it done already.

    Raises:
        ArgumentError: operands on SM100 have FP32 scale factors, or are no operands.
    """
    (x, sfa), (_, sfb) = check_operand("a", a), check_operand("b", b)
    if torch.float32 in (sfa.dtype, sfb.dtype) and is_sm100(arch_of(x.device)):
        rule = "must be False for FP32 scale factors on SM100, whose kernels take UE8M0"
        refuse("disable_ue8m0_cast", rule, True)
