"""Small helpers under the names of the reference library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deep_gemm.utils import math
from deep_gemm.utils.math import (
    align,
    ceil_div,
    ceil_to_ue8m0,
    pack_ue8m0_to_int,
    unpack_ue8m0_from_int,
)

if TYPE_CHECKING:
    from deep_gemm.utils.math import (
        cast_back_from_fp4,
        per_block_cast_to_fp8,
        per_channel_cast_to_fp8,
        per_custom_dims_cast_to_fp8,
        per_token_cast_to_fp4,
        per_token_cast_to_fp8,
        transpose_packed_fp4,
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


def __getattr__(name: str) -> object:
    """The casts, looked up on use for the reason that math.py gives."""
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils has no attribute {name!r}")
    return getattr(math, name)
