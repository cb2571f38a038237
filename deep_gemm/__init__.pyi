"""The names of `__init__.py`, for type checkers."""

from __future__ import annotations

from deep_gemm import (
    jit_kernels as jit_kernels,
    legacy as legacy,
    operators as operators,
    testing as testing,
    utils as utils,
)
from deep_gemm._version import __version__ as __version__
from deep_gemm.errors import (
    ArgumentError as ArgumentError,
    CompilationError as CompilationError,
    CudaError as CudaError,
    DeepGemmError as DeepGemmError,
    MissingDependencyError as MissingDependencyError,
    ScaleFactorError as ScaleFactorError,
    UnsupportedArchitectureError as UnsupportedArchitectureError,
)
from deep_gemm.fp4 import (
    cast_back_from_fp4 as cast_back_from_fp4,
    per_token_cast_to_fp4 as per_token_cast_to_fp4,
    transpose_packed_fp4 as transpose_packed_fp4,
)
from deep_gemm.gemm import (
    fp8_fp4_gemm_nn as fp8_fp4_gemm_nn,
    fp8_fp4_gemm_nt as fp8_fp4_gemm_nt,
    fp8_fp4_gemm_tn as fp8_fp4_gemm_tn,
    fp8_fp4_gemm_tt as fp8_fp4_gemm_tt,
    fp8_gemm_nn as fp8_gemm_nn,
    fp8_gemm_nt as fp8_gemm_nt,
    fp8_gemm_tn as fp8_gemm_tn,
    fp8_gemm_tt as fp8_gemm_tt,
)
from deep_gemm.grouped_gemm import (
    fp8_m_grouped_gemm_nt_masked as fp8_m_grouped_gemm_nt_masked,
    m_grouped_fp8_fp4_gemm_nn_contiguous as m_grouped_fp8_fp4_gemm_nn_contiguous,
    m_grouped_fp8_fp4_gemm_nt_contiguous as m_grouped_fp8_fp4_gemm_nt_contiguous,
    m_grouped_fp8_fp4_gemm_nt_masked as m_grouped_fp8_fp4_gemm_nt_masked,
    m_grouped_fp8_gemm_nn_contiguous as m_grouped_fp8_gemm_nn_contiguous,
    m_grouped_fp8_gemm_nt_contiguous as m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked as m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.head_gemm import fp8_gemm_nt_skip_head_mid as fp8_gemm_nt_skip_head_mid
from deep_gemm.k_grouped_gemm import (
    k_grouped_fp8_gemm_nt_contiguous as k_grouped_fp8_gemm_nt_contiguous,
)
from deep_gemm.k_grouped_gemm_tn import (
    k_grouped_fp8_gemm_tn_contiguous as k_grouped_fp8_gemm_tn_contiguous,
)
from deep_gemm.layout import (
    get_col_major_tma_aligned_tensor as get_col_major_tma_aligned_tensor,
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor as get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor as get_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_tensor as get_mn_major_tma_aligned_tensor,
    get_tma_aligned_size as get_tma_aligned_size,
)
from deep_gemm.legacy import (
    gemm_fp8_fp8_bf16_nt as gemm_fp8_fp8_bf16_nt,
    k_grouped_wgrad_gemm_fp8_fp8_fp32_nt as k_grouped_wgrad_gemm_fp8_fp8_fp32_nt,
    m_grouped_gemm_fp8_fp8_bf16_nt_contiguous as m_grouped_gemm_fp8_fp8_bf16_nt_contiguous,
    m_grouped_gemm_fp8_fp8_bf16_nt_masked as m_grouped_gemm_fp8_fp8_bf16_nt_masked,
    wgrad_gemm_fp8_fp8_fp32_nt as wgrad_gemm_fp8_fp8_fp32_nt,
)
from deep_gemm.mqa_logits import (
    fp8_fp4_mqa_logits as fp8_fp4_mqa_logits,
    fp8_fp4_paged_mqa_logits as fp8_fp4_paged_mqa_logits,
    fp8_mqa_logits as fp8_mqa_logits,
    fp8_paged_mqa_logits as fp8_paged_mqa_logits,
    get_paged_mqa_logits_metadata as get_paged_mqa_logits_metadata,
)
from deep_gemm.quantize import (
    per_block_cast_to_fp8 as per_block_cast_to_fp8,
    per_channel_cast_to_fp8 as per_channel_cast_to_fp8,
    per_custom_dims_cast_to_fp8 as per_custom_dims_cast_to_fp8,
    per_token_cast_to_fp8 as per_token_cast_to_fp8,
    quantize_per_block as quantize_per_block,
    quantize_per_channel as quantize_per_channel,
    quantize_per_token as quantize_per_token,
    quantize_silu_mul as quantize_silu_mul,
    quantize_swiglu as quantize_swiglu,
)
from deep_gemm.requantize import requantize_to_ue8m0 as requantize_to_ue8m0
from deep_gemm.required_layout import (
    transform_sf_into_required_layout as transform_sf_into_required_layout,
)
from deep_gemm.settings import (
    get_batch_invariant as get_batch_invariant,
    get_deterministic_algorithms as get_deterministic_algorithms,
    get_k_alignment_for_contiguous_layout as get_k_alignment_for_contiguous_layout,
    get_m_alignment_for_contiguous_layout as get_m_alignment_for_contiguous_layout,
    get_mk_alignment_for_contiguous_layout as get_mk_alignment_for_contiguous_layout,
    get_num_sms as get_num_sms,
    get_pdl as get_pdl,
    get_tc_util as get_tc_util,
    get_theoretical_mk_alignment_for_contiguous_layout as get_theoretical_mk_alignment_for_contiguous_layout,
    override as override,
    set_batch_invariant as set_batch_invariant,
    set_block_size_multiple_of as set_block_size_multiple_of,
    set_ignore_compile_dims as set_ignore_compile_dims,
    set_mk_alignment_for_contiguous_layout as set_mk_alignment_for_contiguous_layout,
    set_num_sms as set_num_sms,
    set_pdl as set_pdl,
    set_tc_util as set_tc_util,
    use_deterministic_algorithms as use_deterministic_algorithms,
)
from deep_gemm.testing import bench as bench, bench_kineto as bench_kineto, calc_diff as calc_diff
from deep_gemm.utils import (
    align as align,
    ceil_div as ceil_div,
    ceil_to_ue8m0 as ceil_to_ue8m0,
    init_dist as init_dist,
    pack_ue8m0_to_int as pack_ue8m0_to_int,
    uneven_all_gather as uneven_all_gather,
    unpack_ue8m0_from_int as unpack_ue8m0_from_int,
)
from deep_gemm.warm_up import (
    MqaProblem as MqaProblem,
    Precompiled as Precompiled,
    ProblemRange as ProblemRange,
    precompile as precompile,
    problems_of_model as problems_of_model,
    read_problems as read_problems,
)
