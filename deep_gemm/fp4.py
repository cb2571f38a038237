"""Casts to and from packed FP4 (E2M1), in plain PyTorch: SM90 has no instructions for it.

Two numbers lie in an int8, the first in its low four bits: a sign, two bits of exponent and one of
mantissa. Their magnitudes are 0, 0.5, 1, 1.5, 2, 3, 4 and 6.
"""

from __future__ import annotations

import torch

from deep_gemm.checks import check_is_tensor, refuse
from deep_gemm.utils import math
from deep_gemm.utils.math import ceil_div, ceil_to_ue8m0, unpack_ue8m0_from_int

FP4_MAX = 6.0
MIN_AMAX = 1e-4
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def per_token_cast_to_fp4(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128, use_packed_ue8m0: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per row and gran_k columns.

    Args:
        x: [m, n] of a real dtype, any strides and device; n is even.
        use_ue8m0: round the scale factors up to powers of two.
        gran_k: columns that share a scale factor.
        use_packed_ue8m0: return the scale factors' exponents only, four in an int32; with
            use_ue8m0.

    Returns:
        packed: [m, n / 2] int8, contiguous: x * (1 / sf), rounded to nearest even, at most 6.
        sf: [m, ceil(n / gran_k)] FP32, contiguous: max(amax, 1e-4) / 6 of each block. Packed:
            [m, ceil(n / (4 * gran_k))] int32, the first of four blocks in the low byte, 1.0 for
            blocks behind the last.

    Raises:
        ArgumentError: x is not such a matrix, gran_k is not positive, or packed scale factors are
            not to be powers of two.
    """
    check_is_tensor("x", x)
    if x.dim() != 2 or not x.is_floating_point() or x.shape[1] % 2:
        got = f"{x.dtype} of shape {tuple(x.shape)}"
        refuse("x", "must be a real matrix with an even number of columns", got)
    if gran_k < 1:
        refuse("gran_k", "must be positive", gran_k)
    if use_packed_ue8m0 and not use_ue8m0:
        refuse("use_packed_ue8m0", "needs use_ue8m0=True", "use_ue8m0=False")
    m, n = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, -n % gran_k))
    blocks = padded.reshape(m, ceil_div(n, gran_k), gran_k)
    amax = blocks.abs().amax(dim=2).clamp(min=MIN_AMAX)
    sf = amax / torch.full((), FP4_MAX, device=amax.device)
    if use_ue8m0:
        sf = ceil_to_ue8m0(sf)
    codes = _codes_of(blocks * (1.0 / sf)[..., None]).reshape(padded.shape)[:, :n]
    if use_packed_ue8m0:
        sf = torch.nn.functional.pad(sf, (0, -sf.shape[1] % 4), value=1.0)
        # Looked up in its module: SGLang puts one of its own there.
        sf = math.pack_ue8m0_to_int(sf)
    return _pack(codes), sf


def cast_back_from_fp4(
    packed: torch.Tensor, sf: torch.Tensor, gran_k: int = 128, use_packed_ue8m0: bool = False
) -> torch.Tensor:
    """The numbers that packed FP4 and its scale factors stand for.

    Args:
        packed: [m, n / 2] int8, any strides.
        sf: [m, at least ceil(n / gran_k)] FP32; or int32, a quarter as many.
        gran_k: columns that share a scale factor.
        use_packed_ue8m0: sf is int32, four exponents each.

    Returns:
        [m, n] FP32, contiguous.

    Raises:
        ArgumentError: packed is no such matrix, or sf does not fit it.
    """
    codes = _unpack(packed)
    m, n = codes.shape
    if use_packed_ue8m0:
        sf = unpack_ue8m0_from_int(sf)
    blocks = ceil_div(n, gran_k)
    if sf.dim() != 2 or sf.shape[0] != m or sf.shape[1] < blocks:
        rule = f"must have m = {m} rows and at least ceil(n / gran_k) = {blocks} columns"
        refuse("sf", rule, f"shape {tuple(sf.shape)}")
    table = torch.tensor(MAGNITUDES, device=packed.device)
    magnitudes = table[(codes & 7).long()]
    values = torch.where(codes >= 8, -magnitudes, magnitudes)
    return values * sf.float().repeat_interleave(gran_k, dim=1)[:, :n]


def transpose_packed_fp4(a: torch.Tensor) -> torch.Tensor:
    """The transposed matrix of packed FP4.

    Args:
        a: [m, n / 2] int8, any strides; m is even.

    Returns:
        [n, m / 2] int8, contiguous.

    Raises:
        ArgumentError: a is no such matrix.
    """
    codes = _unpack(a)
    if codes.shape[0] % 2:
        refuse("a", "must have an even number of rows", f"shape {tuple(a.shape)}")
    return _pack(codes.T)


def _codes_of(x: torch.Tensor) -> torch.Tensor:
    """Numbers rounded to nearest even, as codes of four bits; NaN becomes 6."""
    magnitude = x.abs()
    # The middle between two neighbours goes to the even code: down from code i if that is even.
    code = torch.zeros_like(x, dtype=torch.uint8)
    for i, (low, high) in enumerate(zip(MAGNITUDES, MAGNITUDES[1:], strict=False)):
        middle = (low + high) / 2
        code += (~(magnitude < middle if i % 2 else magnitude <= middle)).to(torch.uint8)
    return code | (torch.signbit(x).to(torch.uint8) << 3)


def _pack(codes: torch.Tensor) -> torch.Tensor:
    return (codes[:, ::2] | codes[:, 1::2] << 4).contiguous().view(torch.int8)


def _unpack(packed: torch.Tensor) -> torch.Tensor:
    check_is_tensor("packed", packed)
    if packed.dim() != 2 or packed.dtype != torch.int8:
        got = f"{packed.dtype} of shape {tuple(packed.shape)}"
        refuse("packed", "must be an int8 matrix", got)
    pairs = packed.contiguous().view(torch.uint8)
    return torch.stack((pairs & 15, pairs >> 4), dim=2).flatten(1)
