"""Small helpers under the names of the reference library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deep_gemm.utils import dist, math
from deep_gemm.utils.dist import init_dist, uneven_all_gather
from deep_gemm.utils.math import align, ceil_div, ceil_to_ue8m0

if TYPE_CHECKING:
    from deep_gemm.utils.math import (
        per_block_cast_to_fp8,
        per_channel_cast_to_fp8,
        per_token_cast_to_fp8,
    )

__all__ = [
    "align",
    "ceil_div",
    "ceil_to_ue8m0",
    "dist",
    "init_dist",
    "math",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_token_cast_to_fp8",
    "uneven_all_gather",
]


def __getattr__(name: str) -> object:
    """The casts, looked up on use for the reason that math.py gives."""
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils has no attribute {name!r}")
    return getattr(math, name)
