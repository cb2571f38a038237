"""Casts to FP8 with one FP32 scale factor per block: the definition, in plain PyTorch."""

from __future__ import annotations

import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.utils.math import ceil_div, ceil_to_ue8m0

FP8_MAX = 448.0
# A block of zeros still needs a scale factor that can be divided by.
MIN_AMAX = 1e-4


def per_token_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per row and gran_k columns, as activations (A) need it.

    Args:
        x: [m, n] BF16, FP16 or FP32, any strides and device; n need not be a multiple of gran_k.
        use_ue8m0: round the scale factors up to powers of two.
        gran_k: columns that share a scale factor.

    Returns:
        data: [m, n] float8_e4m3fn, contiguous: x * (1 / sf), rounded to nearest even.
        sf: [m, ceil(n / gran_k)] FP32, contiguous: max(amax, 1e-4) / 448 of each block.

    Raises:
        ArgumentError: x is not such a matrix, or gran_k is not positive.
    """
    _check(x, gran_k)
    return _cast_blocks(x, 1, gran_k, use_ue8m0)


def per_channel_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per gran_k rows and column, as weight gradients need it.

    Args:
        x: [m, n] BF16, FP16 or FP32, any strides and device; m is a multiple of gran_k.
        use_ue8m0: round the scale factors up to powers of two.
        gran_k: rows that share a scale factor.

    Returns:
        data: [m, n] float8_e4m3fn, contiguous: x * (1 / sf), rounded to nearest even.
        sf: [m / gran_k, n] FP32, contiguous: max(amax, 1e-4) / 448 of each block.

    Raises:
        ArgumentError: x is not such a matrix, gran_k is not positive, or m is not a
            multiple of it.
    """
    _check(x, gran_k)
    if x.shape[0] % gran_k != 0:
        raise ArgumentError(f"x: rows must be a multiple of gran_k={gran_k}, got {x.shape[0]}")
    return _cast_blocks(x, gran_k, 1, use_ue8m0)


def per_block_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per gran_k x gran_k block, as weights (B) need it.

    Args:
        x: [m, n] BF16, FP16 or FP32, any strides and device; the last blocks may be partial.
        use_ue8m0: round the scale factors up to powers of two.
        gran_k: rows, and columns, that share a scale factor.

    Returns:
        data: [m, n] float8_e4m3fn, contiguous: x * (1 / sf), rounded to nearest even.
        sf: [ceil(m / gran_k), ceil(n / gran_k)] FP32, contiguous: max(amax, 1e-4) / 448 of each
            block.

    Raises:
        ArgumentError: x is not such a matrix, or gran_k is not positive.
    """
    _check(x, gran_k)
    return _cast_blocks(x, gran_k, gran_k, use_ue8m0)


def _check(x: torch.Tensor, gran_k: int) -> None:
    if x.dim() != 2 or x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ArgumentError(
            f"x: must be a BF16, FP16 or FP32 matrix, got {x.dtype} of shape {tuple(x.shape)}"
        )
    if gran_k < 1:
        raise ArgumentError(f"gran_k: must be positive, got {gran_k}")


def _cast_blocks(
    x: torch.Tensor, rows: int, cols: int, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast x [m, n] with one scale factor per block of rows x cols, padding with zeros."""
    m, n = x.shape
    padded = torch.nn.functional.pad(x.float(), (0, -n % cols, 0, -m % rows))
    blocks = padded.reshape(ceil_div(m, rows), rows, ceil_div(n, cols), cols)
    sf = _scale_factors(blocks.abs().amax(dim=(1, 3)), use_ue8m0)
    data = (blocks * (1.0 / sf)[:, None, :, None]).to(torch.float8_e4m3fn)
    return data.reshape(padded.shape)[:m, :n].contiguous(), sf


def _scale_factors(amax: torch.Tensor, use_ue8m0: bool) -> torch.Tensor:
    """The scale factor that maps each block's largest magnitude to the largest FP8 value."""
    # PyTorch turns a division by a number into a product on a GPU, which may be one ulp off; a
    # division by a tensor is one, so that every device returns the same bits.
    sf = amax.clamp(min=MIN_AMAX) / torch.full((), FP8_MAX, device=amax.device)
    return ceil_to_ue8m0(sf) if use_ue8m0 else sf
