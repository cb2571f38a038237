"""Integer rounding, rounding of scale factors, and the casts under their old names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from deep_gemm.quantize import (
        per_block_cast_to_fp8,
        per_channel_cast_to_fp8,
        per_token_cast_to_fp8,
    )

__all__ = [
    "align",
    "ceil_div",
    "ceil_to_ue8m0",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_token_cast_to_fp8",
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


def __getattr__(name: str) -> object:
    """The casts, which callers of the reference library import from here.

    They are looked up on use: quantize.py stands on this module, so importing it here would be a
    cycle.
    """
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils.math has no attribute {name!r}")
    from deep_gemm import quantize

    return getattr(quantize, name)
