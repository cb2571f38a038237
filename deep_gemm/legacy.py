"""The GEMMs of version 1, by their old names: one line each over the present ones.

Errors call the arguments by their present names: a, b and d for lhs, rhs and out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm.calls import Operand
from deep_gemm.checks import check_is_tensor, check_operand, refuse
from deep_gemm.gemm import fp8_gemm_nt
from deep_gemm.grouped_gemm import (
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.scaling import RECIPE_1D1D
from deep_gemm.utils.math import ceil_div

WEIGHT_GRADIENTS = (RECIPE_1D1D.gran_m, RECIPE_1D1D.gran_n, RECIPE_1D1D.gran_k)
"""The recipe of the functions for weight gradients."""


def gemm_fp8_fp8_bf16_nt(
    lhs: Operand, rhs: Operand, out: torch.Tensor, disable_ue8m0_cast: bool = False
) -> None:
    """Computes out = lhs @ rhs.T: `fp8_gemm_nt(lhs, rhs, out)`, which has the arguments.

    Raises:
        ArgumentError: as `fp8_gemm_nt`.
    """
    fp8_gemm_nt(lhs, rhs, out, disable_ue8m0_cast=disable_ue8m0_cast)


def m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
    lhs: Operand,
    rhs: Operand,
    out: torch.Tensor,
    m_indices: torch.Tensor,
    disable_ue8m0_cast: bool = False,
) -> None:
    """Computes out[r] = lhs[r] @ rhs[m_indices[r]].T: `m_grouped_fp8_gemm_nt_contiguous`, which has
    the arguments.

    Raises:
        ArgumentError: as `m_grouped_fp8_gemm_nt_contiguous`.
    """
    m_grouped_fp8_gemm_nt_contiguous(
        lhs, rhs, out, m_indices, disable_ue8m0_cast=disable_ue8m0_cast
    )


def m_grouped_gemm_fp8_fp8_bf16_nt_masked(
    lhs: Operand,
    rhs: Operand,
    out: torch.Tensor,
    masked_m: torch.Tensor,
    expected_m: int,
    disable_ue8m0_cast: bool = False,
) -> None:
    """Computes out[g, r] = lhs[g, r] @ rhs[g].T for the first masked_m[g] rows r of every group g:
    `m_grouped_fp8_gemm_nt_masked`, which has the arguments.

    Raises:
        ArgumentError: as `m_grouped_fp8_gemm_nt_masked`.
    """
    m_grouped_fp8_gemm_nt_masked(
        lhs, rhs, out, masked_m, expected_m, disable_ue8m0_cast=disable_ue8m0_cast
    )


def wgrad_gemm_fp8_fp8_fp32_nt(lhs: Operand, rhs: Operand, out: torch.Tensor) -> None:
    """Adds a weight gradient: out += lhs @ rhs.T, `fp8_gemm_nt(.., c=out, recipe=(1, 1, 128))`.

    Args:
        lhs: (data, sfa): [m, k] float8_e4m3fn, and FP32 [m, ceil(k / 128)] or
            [ceil(k / 128), m]; of one that is both, the first.
        rhs: (data, sfb): the same with n rows.
        out: [m, n] float32 with contiguous rows.

    Raises:
        ArgumentError: as `fp8_gemm_nt`. Nothing was written.
    """
    a, b = _with_rows_first("a", lhs), _with_rows_first("b", rhs)
    fp8_gemm_nt(a, b, out, c=out, recipe=WEIGHT_GRADIENTS)


def k_grouped_wgrad_gemm_fp8_fp8_fp32_nt(
    lhs: Operand, rhs: Operand, out: torch.Tensor, batch_sizes: Sequence[int]
) -> None:
    """Adds a weight gradient for every group: out[g] += lhs_g @ rhs_g.T, by a launch for each.
    `k_grouped_fp8_gemm_nt_contiguous` takes one launch for all.

    Args:
        lhs: (data, sfa): float8_e4m3fn, one dimension: the [m, k_g] matrices of all groups,
            row-major, one behind the other; and FP32 [sum(ceil(k_g / 128)), m].
        rhs: (data, sfb): the same with n rows.
        out: [groups, m, n] float32 with contiguous rows.
        batch_sizes: k_g of every group, multiples of 16.

    Raises:
        ArgumentError: an argument breaks a rule.
    """
    (x, sfa), (y, sfb) = check_operand("a", lhs), check_operand("b", rhs)
    if check_is_tensor("d", out).dim() != 3 or out.shape[0] != len(batch_sizes):
        rule = f"must have 3 dimensions, the first one {len(batch_sizes)} as batch_sizes has"
        refuse("d", rule, f"shape {tuple(out.shape)}")
    for size in batch_sizes:
        if size < 0:
            refuse("batch_sizes", "must hold no negative number", size)
    _, m, n = out.shape
    num_k_blocks = [ceil_div(k, RECIPE_1D1D.gran_k) for k in batch_sizes]
    for name, data, sf, rows in (("a", x, sfa, m), ("b", y, sfb, n)):
        _check_size(f"{name}[0]", data, (rows * sum(batch_sizes),))
        _check_size(f"{name}[1]", sf, (sum(num_k_blocks), rows))
    groups = zip(
        *(torch.split(x, [m * k for k in batch_sizes]), torch.split(sfa, num_k_blocks)),
        *(torch.split(y, [n * k for k in batch_sizes]), torch.split(sfb, num_k_blocks)),
        *(out, batch_sizes),
        strict=True,
    )
    for x_g, sfa_g, y_g, sfb_g, out_g, k in groups:
        a, b = (x_g.view(m, k), sfa_g.t()), (y_g.view(n, k), sfb_g.t())
        fp8_gemm_nt(a, b, out_g, c=out_g, recipe=WEIGHT_GRADIENTS)


def _with_rows_first(argument: str, operand: object) -> Operand:
    """The operand with scale factors [rows, k blocks], which may be stored the other way round."""
    data, sf = check_operand(argument, operand)
    if data.dim() != 2:
        refuse(f"{argument}[0]", "must have 2 dimension(s)", f"shape {tuple(data.shape)}")
    shape = data.shape[0], ceil_div(data.shape[1], RECIPE_1D1D.gran_k)
    return data, sf.t() if tuple(sf.shape) == shape[::-1] != shape else sf


def _check_size(argument: str, tensor: torch.Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape) != shape:
        refuse(argument, f"must have shape {shape}, as batch_sizes asks", tuple(tensor.shape))
