"""Casts to FP8: the classic names, and those that also say where scale factors go, which rows are
cast, and what is done before.

docs/quantisers.md has definitions, layouts and numerics.
"""

from __future__ import annotations

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm.casting import Scaling, cast_blocks, cast_per_token
from deep_gemm.errors import ArgumentError
from deep_gemm.kernels.block_cast import TILE
from deep_gemm.kernels.per_token_cast import GRANULARITIES
from deep_gemm.quantizers import (
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_silu_mul,
    quantize_swiglu,
)
from deep_gemm.runtime.device import has_kernels
from deep_gemm.testing.quantize_reference import (
    cast_blocks_reference,
    scale_factors_reference,
    scaled_reference,
)
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils import math

__all__ = [
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_custom_dims_cast_to_fp8",
    "per_token_cast_to_fp8",
    "quantize_per_block",
    "quantize_per_channel",
    "quantize_per_token",
    "quantize_silu_mul",
    "quantize_swiglu",
]


def per_token_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128, use_packed_ue8m0: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per row and gran_k columns, as activations (A) need it.

    On an SM90 GPU a kernel does it for gran_k 32, 64 and 128, else plain PyTorch; the bits are
    the same.

    Args:
        x: [m, n] BF16, FP16 or FP32, any strides and device; n need not be a multiple of gran_k.
        use_ue8m0: round the scale factors up to powers of two.
        gran_k: columns that share a scale factor.
        use_packed_ue8m0: return the scale factors' exponents only, four in an int32; with
            use_ue8m0.

    Returns:
        data: [m, n] float8_e4m3fn, contiguous: x * (1 / sf), rounded to nearest even.
        sf: [m, ceil(n / gran_k)] FP32, contiguous: max(amax, 1e-4) / 448 of each block. Packed:
            [m, ceil(n / (4 * gran_k))] int32, the first of four blocks in the low byte, zero for
            blocks behind the last.

    Raises:
        ArgumentError: x is not such a matrix, gran_k is not positive, or packed scale factors are
            not to be powers of two.
    """
    _check(x, gran_k)
    if is_dynamo_compiling() or has_no_memory(x):
        return _recorded("per_token_cast_to_fp8", x, use_ue8m0, gran_k, use_packed_ue8m0)
    scaling = Scaling(use_ue8m0, use_packed_ue8m0, gran_k)
    if has_kernels(x.device) and gran_k in GRANULARITIES:
        return cast_per_token(_with_contiguous_columns(x), scaling)
    scaling.check()
    data, sf = cast_blocks_reference(x, 1, gran_k, use_ue8m0)
    if use_packed_ue8m0:
        # Looked up in its module: SGLang puts one of its own there.
        sf = math.pack_ue8m0_to_int(torch.nn.functional.pad(sf, (0, -sf.shape[1] % 4)))
    return data, sf


def per_channel_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per gran_k rows and column, as weight gradients need it.

    On an SM90 GPU a kernel does it for gran_k 128, else plain PyTorch; the bits are the same.

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
    if is_dynamo_compiling() or has_no_memory(x):
        return _recorded("per_channel_cast_to_fp8", x, use_ue8m0, gran_k)
    if has_kernels(x.device) and gran_k == TILE:
        return cast_blocks(_with_contiguous_columns(x), use_ue8m0, per_channel=True)
    return cast_blocks_reference(x, gran_k, 1, use_ue8m0)


def per_block_cast_to_fp8(
    x: torch.Tensor, use_ue8m0: bool, gran_k: int = 128
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor per gran_k x gran_k block, as weights (B) need it.

    On an SM90 GPU a kernel does it for gran_k 128, else plain PyTorch; the bits are the same.

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
    if is_dynamo_compiling() or has_no_memory(x):
        return _recorded("per_block_cast_to_fp8", x, use_ue8m0, gran_k)
    if has_kernels(x.device) and gran_k == TILE:
        return cast_blocks(_with_contiguous_columns(x), use_ue8m0, per_channel=False)
    return cast_blocks_reference(x, gran_k, gran_k, use_ue8m0)


def per_custom_dims_cast_to_fp8(
    x: torch.Tensor, dims: tuple[int, ...], use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cast with one scale factor for each index of some dimensions, as keys of an indexer need it.

    On an SM90 GPU a kernel does it if `dims` are the first ones and the others hold 128 elements
    at most, else plain PyTorch; the bits are the same.

    Args:
        x: BF16, FP16 or FP32, not empty; any shape, strides and device.
        dims: the dimensions whose every index has a scale factor of its own.
        use_ue8m0: round the scale factors up to powers of two.

    Returns:
        data: float8_e4m3fn of x's shape, contiguous: x * (1 / sf), rounded to nearest even.
        sf: FP32 of the sizes of `dims` in their order in x, those of 1 left out:
            max(amax, 1e-4) / 448 of what lies at each of their indices.

    Raises:
        ArgumentError: x is of another dtype or empty, or `dims` are not dimensions of x.
    """
    _check_dtype(x)
    if x.numel() == 0:
        raise ArgumentError(f"x: must not be empty, got shape {tuple(x.shape)}")
    if any(not -x.dim() <= dim < x.dim() for dim in dims):
        raise ArgumentError(f"dims: must be dimensions of x {tuple(x.shape)}, got {dims}")
    if is_dynamo_compiling() or has_no_memory(x):
        return _recorded("per_custom_dims_cast_to_fp8", x, dims, use_ue8m0)
    kept = {dim % x.dim() for dim in dims}
    inner = x.shape[len(kept) :]
    if (
        has_kernels(x.device)
        and kept == set(range(len(kept)))
        and inner.numel() <= GRANULARITIES[-1]
    ):
        matrix = x.reshape(-1, inner.numel())
        data, sf = cast_per_token(_with_contiguous_columns(matrix), Scaling(use_ue8m0))
        return data.view(x.shape), sf.view(x.shape[: len(kept)]).squeeze()
    others = tuple(dim for dim in range(x.dim()) if dim not in kept)
    magnitudes = x.float().abs()
    amax = magnitudes.amax(dim=others, keepdim=True) if others else magnitudes
    sf = scale_factors_reference(amax, use_ue8m0)
    return scaled_reference(x.float(), sf).contiguous(), sf.squeeze()


def _recorded(operator: str, *arguments: object) -> tuple[torch.Tensor, torch.Tensor]:
    """A cast that is traced: which way it goes depends on the device that it will run on."""
    data, sf = getattr(torch.ops.deep_gemm, operator)(*arguments)
    return data, sf


def _check(x: torch.Tensor, gran_k: int) -> None:
    _check_dtype(x)
    if x.dim() != 2:
        raise ArgumentError(f"x: must be a matrix, got {x.dtype} of shape {tuple(x.shape)}")
    if gran_k < 1:
        raise ArgumentError(f"gran_k: must be positive, got {gran_k}")


def _check_dtype(x: torch.Tensor) -> None:
    if x.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        raise ArgumentError(
            f"x: must be BF16, FP16 or FP32, got {x.dtype} of shape {tuple(x.shape)}"
        )


def _with_contiguous_columns(x: torch.Tensor) -> torch.Tensor:
    return x if x.shape[1] <= 1 or x.stride(1) == 1 else x.contiguous()
