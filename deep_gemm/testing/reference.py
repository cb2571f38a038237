"""What a GEMM of scaled FP8 operands must give: in FP64, and as plain FP32 code would compute it.

An operand is a pair (data, sf): data [rows, k] float8_e4m3fn and sf FP32 with one scale factor per
block of `granularity` elements, the last blocks in a row and in a column partial. Everything runs
on the operands' device.
"""

from __future__ import annotations

import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.utils.math import ceil_div

Operand = tuple[torch.Tensor, torch.Tensor]

GRAN_K = 128
PER_TOKEN = (1, GRAN_K)
PER_BLOCK = (GRAN_K, GRAN_K)


def dequantize(operand: Operand, granularity: tuple[int, int]) -> torch.Tensor:
    """The operand's exact values.

    Args:
        operand: data [rows, k] float8_e4m3fn and sf [ceil(rows / gran_mn), ceil(k / gran_k)] FP32,
            of any strides.
        granularity: (gran_mn, gran_k): PER_TOKEN (1, 128) or PER_BLOCK (128, 128).

    Returns:
        [rows, k] FP64, each product data * sf exact.

    Raises:
        ArgumentError: sf has another shape than data and granularity ask for.
    """
    data, sf = operand
    rows, k = data.shape
    gran_mn, gran_k = granularity
    expected = (ceil_div(rows, gran_mn), ceil_div(k, gran_k))
    if tuple(sf.shape) != expected:
        raise ArgumentError(
            f"sf: must be {expected} for data {tuple(data.shape)} with one scale factor per "
            f"{gran_mn}x{gran_k}, got {tuple(sf.shape)}"
        )
    by_row = sf.double().repeat_interleave(gran_mn, dim=0)[:rows]
    return data.double().mul_(by_row.repeat_interleave(gran_k, dim=1)[:, :k])


def fp8_gemm_nt_reference(
    a: Operand,
    b: Operand,
    c: torch.Tensor | None = None,
    gran_n: int = GRAN_K,
    chunk_rows: int = 1024,
) -> torch.Tensor:
    """D = A @ B.T, or C + A @ B.T, of the dequantised operands in FP64.

    Args:
        a: data [m, k] and sf [m, ceil(k / 128)].
        b: data [n, k] and sf [ceil(n / gran_n), ceil(k / 128)].
        c: [m, n], any real dtype.
        gran_n: rows of B per scale factor: 128 for 1D2D, 1 for 1D1D.
        chunk_rows: rows of A that are held in FP64 at a time; B and D are held whole.

    Returns:
        [m, n] FP64; C, or zeros, if k is 0.

    Raises:
        ArgumentError: the operands' k differ, or an sf does not fit its data.
    """
    _check_k(a, b)
    data, sf = a
    weight = dequantize(b, (gran_n, GRAN_K)).T
    d = torch.empty(data.shape[0], weight.shape[1], dtype=torch.float64, device=data.device)
    chunks = (torch.split(t, chunk_rows) for t in (data, sf, d))
    for data_chunk, sf_chunk, d_chunk in zip(*chunks, strict=True):
        torch.mm(dequantize((data_chunk, sf_chunk), PER_TOKEN), weight, out=d_chunk)
    return d if c is None else d.add_(c)


def fp8_gemm_nt_yardstick(
    a: Operand, b: Operand, c: torch.Tensor | None = None, gran_n: int = GRAN_K
) -> torch.Tensor:
    """D = A @ B.T, or C + A @ B.T, as plain FP32 code gives it, to bound a kernel's error.

    Two-level accumulation: each block of 128 along k is multiplied in FP32, scaled by sfa * sfb and
    added to an FP32 sum, to which C is added last; that is rounded to BF16 once. It bounds FP32
    results too: what a tensor core cuts off of each product is of the size of a BF16's rounding.

    Args:
        a: data [m, k] and sf [m, ceil(k / 128)].
        b: data [n, k] and sf [ceil(n / gran_n), ceil(k / 128)].
        c: [m, n], any real dtype.
        gran_n: rows of B per scale factor: 128 for 1D2D, 1 for 1D1D.

    Returns:
        [m, n] BF16.

    Raises:
        ArgumentError: the operands' k differ.
    """
    _check_k(a, b)
    (a_data, sfa), (b_data, sfb) = a, b
    m, n = a_data.shape[0], b_data.shape[0]
    sfb = sfb.repeat_interleave(gran_n, dim=0)[:n]
    total = torch.zeros(m, n, dtype=torch.float32, device=a_data.device)
    for k_block_idx in range(sfa.shape[1]):
        columns = slice(k_block_idx * GRAN_K, (k_block_idx + 1) * GRAN_K)
        partial = a_data[:, columns].float() @ b_data[:, columns].float().T
        total += partial * (sfa[:, k_block_idx, None] * sfb[None, :, k_block_idx])
    return (total if c is None else total + c).bfloat16()


def _check_k(a: Operand, b: Operand) -> None:
    if a[0].shape[1] != b[0].shape[1]:
        raise ArgumentError(
            f"b: must have the k of a, got {tuple(a[0].shape)} and {tuple(b[0].shape)}"
        )
