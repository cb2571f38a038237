"""Small helpers under the names of the reference library.

A name brings its module when it is first used: casts and layouts stand on modules that stand on
this package's. `__init__.pyi` has the names for type checkers.
"""

from deep_gemm.lazy import late_names

_NAMES = {
    "dist": ("init_dist", "uneven_all_gather"),
    "layout": (
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
    ),
    "math": (
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
    ),
}

__all__ = [*_NAMES]
__all__ += [name for names in _NAMES.values() for name in names]

__getattr__, __dir__ = late_names(__name__, _NAMES, [*_NAMES])
