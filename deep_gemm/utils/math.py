"""Integer rounding, rounding and packing of scale factors, and the casts under their old names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from deep_gemm.errors import ArgumentError

if TYPE_CHECKING:
    from deep_gemm.fp4 import (
        cast_back_from_fp4,
        per_token_cast_to_fp4,
        transpose_packed_fp4,
    )
    from deep_gemm.quantize import (
        per_block_cast_to_fp8,
        per_channel_cast_to_fp8,
        per_custom_dims_cast_to_fp8,
        per_token_cast_to_fp8,
    )

__all__ = [
    "align",
    "cast_back_from_fp4",
    "ceil_div",
    "ceil_to_ue8m0",
    "pack_ue8m0_to_int",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_custom_dims_cast_to_fp8",
    "per_token_cast_to_fp4",
    "per_token_cast_to_fp8",
    "transpose_packed_fp4",
    "unpack_ue8m0_from_int",
]


def ceil_div(x: int, y: int) -> int:
    """The quotient of x >= 0 and y > 0, rounded up."""
    return (x + y - 1) // y


def align(x: int, y: int) -> int:
    """The smallest multiple of y > 0 that is not below x >= 0."""
    return ceil_div(x, y) * y


def ceil_to_ue8m0(x: torch.Tensor) -> torch.Tensor:
    """Round every magnitude up to a power of two, the values that a UE8M0 byte can hold.

    Args:
        x: any shape and real dtype; the sign is ignored.

    Returns:
        FP32 of x's shape, each element in 2**-126 ... 2**127: zero and subnormals become 2**-126;
        infinity, NaN and what lies above 2**127 become 2**127.
    """
    bits = x.abs().float().view(torch.int32)
    exponent = (bits >> 23) + ((bits & 0x7FFFFF) != 0).int()
    return (exponent.clamp(1, 254) << 23).view(torch.float32)


def pack_ue8m0_to_int(x: torch.Tensor) -> torch.Tensor:
    """The exponents of powers of two, four side by side in an int32, the first in its low byte.

    Waits for the device: it looks at every number.

    Args:
        x: [.., 4 * k] FP32, powers of two or zeros, none negative; any strides.

    Returns:
        [.., k] int32, contiguous; the exponent of zero is 0.

    Raises:
        ArgumentError: x is of another dtype, its last dimension is not a multiple of 4, or a number
            is not a power of two.
    """
    if x.dtype != torch.float32 or x.dim() == 0 or x.shape[-1] % 4:
        raise ArgumentError(
            f"x: must be FP32 with a multiple of 4 columns, got {x.dtype} {tuple(x.shape)}"
        )
    bits = x.contiguous().view(torch.int32)
    if (bits & ~(0xFF << 23)).any():
        raise ArgumentError("x: must hold powers of two and zeros, got others too")
    return (bits >> 23).to(torch.uint8).view(torch.int32)


def unpack_ue8m0_from_int(packed_sf: torch.Tensor) -> torch.Tensor:
    """The powers of two whose exponents lie in an int32, four side by side.

    Args:
        packed_sf: [.., k] int32, any strides.

    Returns:
        [.., 4 * k] FP32, contiguous; zero for exponent 0.

    Raises:
        ArgumentError: packed_sf is of another dtype.
    """
    if packed_sf.dtype != torch.int32 or packed_sf.dim() == 0:
        raise ArgumentError(
            f"packed_sf: must be int32 with dimensions, got {packed_sf.dtype} "
            f"{tuple(packed_sf.shape)}"
        )
    return (packed_sf.contiguous().view(torch.uint8).int() << 23).view(torch.float32)


def __getattr__(name: str) -> object:
    """The casts, which callers of the reference library import from here.

    They are looked up on use: fp4.py and quantize.py stand on this module, so importing them here
    would be a cycle.
    """
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils.math has no attribute {name!r}")
    from deep_gemm import fp4, quantize

    return getattr(fp4 if name.endswith("fp4") else quantize, name)
