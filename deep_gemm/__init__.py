"""FP8 GEMM kernels with fine-grained scale factors, compiled at run time.

Importing this package touches neither CUDA nor a compiler, and loads no more than the operators'
schemas: a name brings its module when it is first used. `__init__.pyi` has them for type checkers.
"""

from deep_gemm import operators
from deep_gemm._version import __version__
from deep_gemm.lazy import late_names

_NAMES = {
    "errors": (
        "ArgumentError",
        "CompilationError",
        "CudaError",
        "DeepGemmError",
        "MissingDependencyError",
        "ScaleFactorError",
        "UnsupportedArchitectureError",
    ),
    "fp4": (
        "cast_back_from_fp4",
        "per_token_cast_to_fp4",
        "transpose_packed_fp4",
    ),
    "gemm": (
        "fp8_fp4_gemm_nn",
        "fp8_fp4_gemm_nt",
        "fp8_fp4_gemm_tn",
        "fp8_fp4_gemm_tt",
        "fp8_gemm_nn",
        "fp8_gemm_nt",
        "fp8_gemm_tn",
        "fp8_gemm_tt",
    ),
    "grouped_gemm": (
        "fp8_m_grouped_gemm_nt_masked",
        "m_grouped_fp8_fp4_gemm_nn_contiguous",
        "m_grouped_fp8_fp4_gemm_nt_contiguous",
        "m_grouped_fp8_fp4_gemm_nt_masked",
        "m_grouped_fp8_gemm_nn_contiguous",
        "m_grouped_fp8_gemm_nt_contiguous",
        "m_grouped_fp8_gemm_nt_masked",
    ),
    "head_gemm": ("fp8_gemm_nt_skip_head_mid",),
    "k_grouped_gemm": ("k_grouped_fp8_gemm_nt_contiguous",),
    "k_grouped_gemm_tn": ("k_grouped_fp8_gemm_tn_contiguous",),
    "layout": (
        "get_col_major_tma_aligned_tensor",
        "get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor",
        "get_mn_major_tma_aligned_packed_ue8m0_tensor",
        "get_mn_major_tma_aligned_tensor",
        "get_tma_aligned_size",
    ),
    "legacy": (
        "gemm_fp8_fp8_bf16_nt",
        "k_grouped_wgrad_gemm_fp8_fp8_fp32_nt",
        "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous",
        "m_grouped_gemm_fp8_fp8_bf16_nt_masked",
        "wgrad_gemm_fp8_fp8_fp32_nt",
    ),
    "mqa_logits": (
        "fp8_fp4_mqa_logits",
        "fp8_fp4_paged_mqa_logits",
        "fp8_mqa_logits",
        "fp8_paged_mqa_logits",
        "get_paged_mqa_logits_metadata",
    ),
    "quantize": (
        "per_block_cast_to_fp8",
        "per_channel_cast_to_fp8",
        "per_custom_dims_cast_to_fp8",
        "per_token_cast_to_fp8",
        "quantize_per_block",
        "quantize_per_channel",
        "quantize_per_token",
        "quantize_silu_mul",
        "quantize_swiglu",
    ),
    "requantize": ("requantize_to_ue8m0",),
    "required_layout": ("transform_sf_into_required_layout",),
    "settings": (
        "get_batch_invariant",
        "get_deterministic_algorithms",
        "get_k_alignment_for_contiguous_layout",
        "get_m_alignment_for_contiguous_layout",
        "get_mk_alignment_for_contiguous_layout",
        "get_num_sms",
        "get_pdl",
        "get_tc_util",
        "get_theoretical_mk_alignment_for_contiguous_layout",
        "override",
        "set_batch_invariant",
        "set_block_size_multiple_of",
        "set_ignore_compile_dims",
        "set_mk_alignment_for_contiguous_layout",
        "set_num_sms",
        "set_pdl",
        "set_tc_util",
        "use_deterministic_algorithms",
    ),
    "testing": (
        "bench",
        "bench_kineto",
        "calc_diff",
    ),
    "utils": (
        "align",
        "ceil_div",
        "ceil_to_ue8m0",
        "init_dist",
        "pack_ue8m0_to_int",
        "uneven_all_gather",
        "unpack_ue8m0_from_int",
    ),
    "warm_up": (
        "MqaProblem",
        "Precompiled",
        "ProblemRange",
        "precompile",
        "problems_of_model",
        "read_problems",
    ),
}
_PACKAGES = ("jit_kernels", "legacy", "testing", "utils")

__all__ = ["__version__", "operators", *_PACKAGES]
__all__ += [name for names in _NAMES.values() for name in names]

__getattr__, __dir__ = late_names(__name__, _NAMES, _PACKAGES)
