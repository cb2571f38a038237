"""What SM100 asks of operands and scale factors, and how they get to it.

Its tensor cores take either major, and scale factors as UE8M0 bytes, four along K to a word, one
for each row of an operand.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from deep_gemm.checks import (
    check_positive,
    check_shape,
    check_tensor,
    check_tma_rows,
    refuse,
)
from deep_gemm.errors import UnsupportedArchitectureError
from deep_gemm.layout import SFS_OF_WORD, SM100_GRAN_K
from deep_gemm.scaling import Recipes
from deep_gemm.utils.math import ceil_div


class Granularity(NamedTuple):
    """Elements that share a scale factor. Rows may be any number if it is FP32: when it is packed,
    it is written for each of them."""

    rows: int
    k: int


def resolve_granularity(recipes: Recipes, sfb: torch.Tensor) -> tuple[Granularity, Granularity]:
    """The granularity of A's scale factors and of B's, as a call asked for it.

    The default is one per 1 x 128 of A and per 128 x 128 of B, or where B's are packed, which have
    every row for themselves, per 1 x 128.

    Raises:
        ArgumentError: both forms are given, one half is missing, or SM100 has none such.
    """
    recipe, recipe_a, recipe_b = recipes
    if recipe is not None:
        if recipe_a is not None or recipe_b is not None:
            refuse("recipe", "excludes recipe_a and recipe_b", recipes)
        if not isinstance(recipe, (tuple, list)) or len(recipe) != 3:
            refuse("recipe", "must be (gran_m, gran_n, gran_k)", repr(recipe))
        recipe_a, recipe_b = (recipe[0], recipe[2]), (recipe[1], recipe[2])
    elif recipe_a is None and recipe_b is None:
        recipe_a, recipe_b = (1, 128), (1 if sfb.dtype == torch.int32 else 128, 128)
    elif recipe_a is None or recipe_b is None:
        refuse("recipe_a, recipe_b", "must be given together", (recipe_a, recipe_b))
    for name, half in (("recipe_a", recipe_a), ("recipe_b", recipe_b)):
        if not isinstance(half, (tuple, list)) or len(half) != 2:
            refuse(name, "must be (gran_mn, gran_k)", repr(half))
        check_positive(name, half[0])
        if half[1] not in SM100_GRAN_K:
            refuse(name, "must have gran_k 32 or 128 on SM100", half)
    return Granularity(*recipe_a), Granularity(*recipe_b)


def check_sm100_scale_factors(
    argument: str,
    sf: torch.Tensor,
    rows: int,
    k: int,
    gran: Granularity,
    device: torch.device,
    num_groups: int | None = None,
) -> None:
    """Checks FP32 or packed scale factors of a [rows, k] operand, or of many; any strides.

    Raises:
        ArgumentError: wrong dtype, device or shape.
    """
    if sf.dtype not in (torch.float32, torch.int32):
        refuse(argument, "must be FP32, or UE8M0 packed into torch.int32, on SM100", sf.dtype)
    groups = () if num_groups is None else (num_groups,)
    check_tensor(argument, sf, 2 + len(groups), sf.dtype, device)
    gran_rows, elements = gran
    if sf.dtype == torch.int32:
        if gran_rows != 1:
            refuse(argument, "packed, must have a scale factor for each row", f"gran {gran_rows}")
        elements *= SFS_OF_WORD
    shape = (*groups, ceil_div(rows, gran_rows), ceil_div(k, elements))
    front = "".join(f"{size}, " for size in groups)
    meaning = f"[{front}ceil({rows} / {gran_rows}), ceil({k} / {elements})]"
    check_shape(argument, sf, shape, meaning)


def is_mn_major(x: torch.Tensor) -> bool:
    """Whether an operand [.., rows, k] has contiguous columns, and not contiguous rows."""
    return x.shape[-1] > 1 and x.stride(-1) != 1 and (x.stride(-2) == 1 or x.shape[-2] == 1)


def check_operand_rows(argument: str, x: torch.Tensor) -> None:
    """An operand [.., rows, k] that TMA takes, of either major."""
    check_tma_rows(argument, x.mT if is_mn_major(x) else x)


def no_kernel(what: str, arch: str) -> UnsupportedArchitectureError:
    """The error for what only another architecture has."""
    text = f"{what} have no kernel for {arch}; got a device or an emulator of {arch}"
    return UnsupportedArchitectureError(f"argument a[0]: {text}")
