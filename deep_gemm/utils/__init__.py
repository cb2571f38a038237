"""Small helpers under the names of the reference library."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from deep_gemm.utils import math
from deep_gemm.utils.math import align, ceil_div, ceil_to_ue8m0

if TYPE_CHECKING:
    from deep_gemm.utils.math import (
        per_block_cast_to_fp8,
        per_channel_cast_to_fp8,
        per_token_cast_to_fp8,
    )

_LAYOUTS = (
    "get_col_major_tma_aligned_tensor",
    "get_k_alignment_for_contiguous_layout",
    "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_mk_alignment_for_contiguous_layout",
    "get_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_mn_major_tma_aligned_tensor",
    "get_theoretical_mk_alignment_for_contiguous_layout",
    "get_tma_aligned_size",
    "set_mk_alignment_for_contiguous_layout",
    "transform_sf_into_required_layout",
)
"""Names of layout.py."""

__all__ = [
    *_LAYOUTS,
    "align",
    "ceil_div",
    "ceil_to_ue8m0",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_token_cast_to_fp8",
]


def __getattr__(name: str) -> object:
    """The casts and the layouts, looked up on use for the reason that math.py gives."""
    if name in _LAYOUTS:
        return getattr(import_module("deep_gemm.utils.layout"), name)
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils has no attribute {name!r}")
    return getattr(math, name)
