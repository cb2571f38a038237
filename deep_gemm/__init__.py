"""FP8 GEMM kernels with fine-grained scale factors, compiled at run time.

Importing this package touches neither CUDA nor a compiler.
"""

from deep_gemm._version import __version__
from deep_gemm.errors import (
    ArgumentError,
    CompilationError,
    CudaError,
    DeepGemmError,
    MissingDependencyError,
    UnsupportedArchitectureError,
)
from deep_gemm.fp4 import cast_back_from_fp4, per_token_cast_to_fp4, transpose_packed_fp4
from deep_gemm.gemm import fp8_gemm_nn, fp8_gemm_nt, fp8_gemm_tn, fp8_gemm_tt
from deep_gemm.grouped_gemm import (
    fp8_m_grouped_gemm_nt_masked,
    m_grouped_fp8_gemm_nn_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.k_grouped_gemm import k_grouped_fp8_gemm_nt_contiguous
from deep_gemm.quantize import (
    per_block_cast_to_fp8,
    per_channel_cast_to_fp8,
    per_custom_dims_cast_to_fp8,
    per_token_cast_to_fp8,
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_silu_mul,
    quantize_swiglu,
)
from deep_gemm.settings import (
    get_mk_alignment_for_contiguous_layout,
    get_num_sms,
    get_theoretical_mk_alignment_for_contiguous_layout,
    set_mk_alignment_for_contiguous_layout,
    set_num_sms,
)
from deep_gemm.utils import (
    align,
    ceil_div,
    ceil_to_ue8m0,
    pack_ue8m0_to_int,
    unpack_ue8m0_from_int,
)

__all__ = [
    "ArgumentError",
    "CompilationError",
    "CudaError",
    "DeepGemmError",
    "MissingDependencyError",
    "UnsupportedArchitectureError",
    "__version__",
    "align",
    "cast_back_from_fp4",
    "ceil_div",
    "ceil_to_ue8m0",
    "fp8_gemm_nn",
    "fp8_gemm_nt",
    "fp8_gemm_tn",
    "fp8_gemm_tt",
    "fp8_m_grouped_gemm_nt_masked",
    "get_mk_alignment_for_contiguous_layout",
    "get_num_sms",
    "get_theoretical_mk_alignment_for_contiguous_layout",
    "k_grouped_fp8_gemm_nt_contiguous",
    "m_grouped_fp8_gemm_nn_contiguous",
    "m_grouped_fp8_gemm_nt_contiguous",
    "m_grouped_fp8_gemm_nt_masked",
    "pack_ue8m0_to_int",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_custom_dims_cast_to_fp8",
    "per_token_cast_to_fp4",
    "per_token_cast_to_fp8",
    "quantize_per_block",
    "quantize_per_channel",
    "quantize_per_token",
    "quantize_silu_mul",
    "quantize_swiglu",
    "set_mk_alignment_for_contiguous_layout",
    "set_num_sms",
    "transpose_packed_fp4",
    "unpack_ue8m0_from_int",
]
