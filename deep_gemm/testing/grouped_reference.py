"""What grouped GEMMs must give: a function for one product, applied to each group.

`gemm` is `fp8_gemm_nt_reference` for the result itself, or `fp8_gemm_nt_yardstick` for what plain
FP32 code makes of it. Group sizes are read on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.testing.reference import GRAN_K, Operand

Gemm = Callable[..., torch.Tensor]
"""(a, b) -> A @ B.T; for `by_k_group` (a, b, c, gran_n) -> C + A @ B.T."""


def by_row_group(gemm: Gemm, a: Operand, b: Operand, row_groups: torch.Tensor) -> torch.Tensor:
    """D[r] = A[r] @ B[g].T for each row r of group g; padding is never looked at.

    Args:
        gemm: for the rows of one group.
        a: data [m, k] and sf [m, ceil(k / 128)].
        b: data [groups, n, k] and sf [groups, ceil(n / 128), ceil(k / 128)].
        row_groups: [m] each row's group, or a negative number for padding.

    Returns:
        [m, n] of gemm's dtype; padding is zero.

    Raises:
        ArgumentError: row_groups does not fit a, or names a group that b does not have.
    """
    (data, sf), (weight, sfb) = a, b
    if tuple(row_groups.shape) != (data.shape[0],):
        raise ArgumentError(
            f"row_groups: must have shape [m] = {(data.shape[0],)}, got {tuple(row_groups.shape)}"
        )
    groups = sorted({int(g) for g in row_groups.tolist() if g >= 0})
    if groups and groups[-1] >= weight.shape[0]:
        raise ArgumentError(f"row_groups: must be below {weight.shape[0]}, got {groups[-1]}")
    d = gemm((data[:0], sf[:0]), (weight[0], sfb[0])).new_zeros(data.shape[0], weight.shape[1])
    # A gather of FP8 goes by its bytes: not every torch indexes the type itself.
    raw = data.view(torch.uint8)
    for group in groups:
        rows = (row_groups == group).nonzero().squeeze(1)
        mine = raw[rows].view(data.dtype), sf[rows]
        d[rows] = gemm(mine, (weight[group], sfb[group]))
    return d


def by_masked_group(gemm: Gemm, a: Operand, b: Operand, masked_m: Sequence[int]) -> torch.Tensor:
    """D[g, r] = A[g, r] @ B[g].T for the first masked_m[g] rows r of each group g.

    Args:
        gemm: for the rows of one group.
        a: data [groups, m_max, k] and sf [groups, m_max, ceil(k / 128)].
        b: data [groups, n, k] and sf [groups, ceil(n / 128), ceil(k / 128)].
        masked_m: rows of each group, none above m_max.

    Returns:
        [groups, m_max, n] of gemm's dtype; other rows are zero.

    Raises:
        ArgumentError: masked_m does not fit a.
    """
    (data, sf), (weight, sfb) = a, b
    num_groups, m_max, _ = data.shape
    if len(masked_m) != num_groups or not all(0 <= m <= m_max for m in masked_m):
        raise ArgumentError(
            f"masked_m: must be {num_groups} numbers in 0..{m_max}, got {list(masked_m)}"
        )
    products = [gemm((data[g, :m], sf[g, :m]), (weight[g], sfb[g])) for g, m in enumerate(masked_m)]
    d = products[0].new_zeros(num_groups, m_max, weight.shape[1])
    for group, product in enumerate(products):
        d[group, : product.shape[0]] = product
    return d


def by_k_group(
    gemm: Gemm, a: Operand, b: Operand, ks: Sequence[int], c: torch.Tensor | None = None
) -> torch.Tensor:
    """D[g] = A_g @ B_g.T, or C[g] + A_g @ B_g.T, for operands that lie one behind the other.

    Args:
        gemm: for one group; it is asked for scale factors of gran_n=1.
        a: data, flat: for each group [m, ks[g]] row-major; sf [m, sum(ks) / 128].
        b: data, flat: for each group [n, ks[g]] row-major; sf [n, sum(ks) / 128].
        ks: each group's k, multiples of 128, any of them 0.
        c: [groups, m, n].

    Returns:
        [groups, m, n] of gemm's dtype.

    Raises:
        ArgumentError: an operand does not have the size that ks asks for.
    """
    m, n = a[1].shape[0], b[1].shape[0]
    for name, (data, sf), rows in (("a", a, m), ("b", b, n)):
        size, num_k_blocks = rows * sum(ks), sum(ks) // GRAN_K
        if data.numel() != size or sf.shape[1] != num_k_blocks:
            raise ArgumentError(
                f"{name}: must have {size} elements and {num_k_blocks} columns of scale factors "
                f"for ks {list(ks)}, got {data.numel()} and {sf.shape[1]}"
            )
    products = []
    first = 0
    for group, k in enumerate(ks):
        blocks = slice(first // GRAN_K, (first + k) // GRAN_K)
        x, y = (
            (data[rows * first : rows * (first + k)].view(rows, k), sf[:, blocks])
            for (data, sf), rows in ((a, m), (b, n))
        )
        products.append(gemm(x, y, None if c is None else c[group], gran_n=1))
        first += k
    return torch.stack(products)
