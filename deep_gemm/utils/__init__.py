"""Small helpers under the names of the reference library."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from deep_gemm.utils import dist, math
from deep_gemm.utils.dist import init_dist, uneven_all_gather
from deep_gemm.utils.math import (
    align,
    ceil_div,
    ceil_to_ue8m0,
    pack_ue8m0_to_int,
    unpack_ue8m0_from_int,
)

if TYPE_CHECKING:
    from deep_gemm.utils import layout
    from deep_gemm.utils.layout import (
        get_col_major_tma_aligned_tensor,
        get_k_alignment_for_contiguous_layout,
        get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
        get_m_alignment_for_contiguous_layout,
        get_mk_alignment_for_contiguous_layout,
        get_mn_major_tma_aligned_packed_ue8m0_tensor,
        get_mn_major_tma_aligned_tensor,
        get_theoretical_mk_alignment_for_contiguous_layout,
        get_tma_aligned_size,
        set_mk_alignment_for_contiguous_layout,
        transform_sf_into_required_layout,
    )
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
    "unpack_ue8m0_from_int",
    "transpose_packed_fp4",
    "per_token_cast_to_fp4",
    "per_custom_dims_cast_to_fp8",
    "pack_ue8m0_to_int",
    "cast_back_from_fp4",
    "align",
    "ceil_div",
    "ceil_to_ue8m0",
    "dist",
    "get_col_major_tma_aligned_tensor",
    "get_k_alignment_for_contiguous_layout",
    "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_m_alignment_for_contiguous_layout",
    "get_mk_alignment_for_contiguous_layout",
    "get_mn_major_tma_aligned_packed_ue8m0_tensor",
    "get_mn_major_tma_aligned_tensor",
    "get_theoretical_mk_alignment_for_contiguous_layout",
    "get_tma_aligned_size",
    "init_dist",
    "layout",
    "math",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_token_cast_to_fp8",
    "set_mk_alignment_for_contiguous_layout",
    "transform_sf_into_required_layout",
    "uneven_all_gather",
]


def __getattr__(name: str) -> object:
    """The casts and the layouts, looked up on use: they stand on modules that stand on this one."""
    if name not in __all__:
        raise AttributeError(f"deep_gemm.utils has no attribute {name!r}")
    layout = importlib.import_module("deep_gemm.utils.layout")
    if name == "layout":
        return layout
    return getattr(layout if name in layout.__all__ else math, name)
