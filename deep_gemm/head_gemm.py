"""FP8 GEMM whose result leaves a gap in the middle of every head."""

from __future__ import annotations

from math import gcd

import torch

from deep_gemm.calls import Operand
from deep_gemm.checks import check_operand, refuse
from deep_gemm.gemm import NO_HEADS, HeadSplits, run_gemm
from deep_gemm.scaling import check_uncast

NARROWEST_SLAB = 16
"""Columns that are stored together at least."""


def fp8_gemm_nt_skip_head_mid(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    head_splits: tuple[int, int, int],
    recipe: tuple[int, int, int] | None = None,
    compiled_dims: str = "nk",
    disable_ue8m0_cast: bool = False,
) -> None:
    """Computes A @ B.T as `fp8_gemm_nt` does, and writes it into a D that has more columns: each
    head, `left + right` columns of the product, is pulled apart by `mid` columns that stay as they
    are.

    Args:
        a: (data, sfa): [m, k], as in `fp8_gemm_nt`; k > 0.
        b: (data, sfb): [n, k], with scale factors per 128 x 128; n a multiple of left + right.
        d: [m, n + n / (left + right) * mid] bfloat16 or float32 with contiguous rows.
        head_splits: (left, mid, right): columns of a head to the left of its gap, the gap's, and
            those to the right; left and right multiples of 16, mid of 8.
        recipe: None or (1, 128, 128).
        compiled_dims: accepted for compatibility.
        disable_ue8m0_cast: refuses FP32 scale factors on SM100, whose kernels take UE8M0; without
            meaning on SM90.

    Raises:
        ArgumentError: an argument breaks one of these rules, or one of `fp8_gemm_nt`. Nothing was
            written.
        UnsupportedArchitectureError: there is no kernel for the device.
        ScaleFactorError: on SM100, FP32 scale factors of an earlier call were no powers of two.
        CompilationError: the kernel could not be compiled.
    """
    if disable_ue8m0_cast:
        check_uncast(a, b)
    splits = _check_splits(head_splits)
    (x, sfa), (y, sfb) = check_operand("a", a), check_operand("b", b)
    head = splits[0] + splits[2]
    if y.dim() == 2 and y.shape[0] % head:
        refuse("b[0]", f"must have a multiple of left + right = {head} rows", y.shape[0])
    if x.dim() == 2 and x.shape[1] == 0:
        refuse("a[0]", "must have columns", f"shape {tuple(x.shape)}")
    run_gemm((x, sfa), (y, sfb), d, None, (recipe, None, None), splits if splits[1] else NO_HEADS)


def _check_splits(head_splits: object) -> HeadSplits:
    """Three ints that a head can be stored by."""
    if not isinstance(head_splits, (list, tuple)) or len(head_splits) != 3:
        refuse("head_splits", "must be (left, mid, right)", repr(head_splits))
    left, mid, right = head_splits
    are_ints = all(isinstance(size, int) and not isinstance(size, bool) for size in head_splits)
    if not are_ints or min(left, mid, right) < 0 or left + right == 0:
        refuse("head_splits", "must be three ints, none negative, left + right > 0", head_splits)
    if gcd(left, right) % NARROWEST_SLAB or mid % 8:
        rule = f"must have left and right in multiples of {NARROWEST_SLAB}, mid of 8"
        refuse("head_splits", rule, head_splits)
    return left, mid, right
