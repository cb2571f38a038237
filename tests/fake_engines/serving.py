"""What TensorRT-LLM, lmdeploy, rtp-llm, lightllm and transformers call."""

from __future__ import annotations

import pytest
import torch

import deep_gemm
from deep_gemm.jit_kernels.utils import get_tma_aligned_size, set_num_sms
from tests.fake_engines.site import ALIGNMENT, Site, engine
from tests.grouped_operands import Operand, transposed

# TensorRT-LLM


@engine("TensorRT-LLM")
def packed_scale_factors(site: Site) -> None:
    """Its present versions have them for SM100 alone; SM90 refuses them."""
    if not site.keeps_fp32:
        pack = deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor
        site.check_linear(
            lambda a, b, out: deep_gemm.fp8_gemm_nt(
                (a[0], pack(a[1])), b, out, disable_ue8m0_cast=False
            )
        )
        return
    (x, sfa), b = site.activations, site.weight
    d = torch.empty(site.tokens, site.n, dtype=torch.bfloat16, device=site.device)
    packed = deep_gemm.get_mn_major_tma_aligned_packed_ue8m0_tensor(sfa.log2().ceil().exp2())
    with pytest.raises(RuntimeError, match=r"a\[1\]: must be FP32 on SM90"):
        deep_gemm.fp8_gemm_nt((x, packed), b, d, disable_ue8m0_cast=True)
    x, sfa = site.batched(site.m_max)
    sizes = torch.tensor(site.rows, dtype=torch.int32, device=site.device)
    d = torch.empty(len(site.rows), site.m_max, site.n, dtype=torch.bfloat16, device=site.device)
    with pytest.raises(RuntimeError, match=r"a\[1\]: must be FP32 on SM90"):
        deep_gemm.fp8_m_grouped_gemm_nt_masked(
            (x, sfa.view(torch.int32)), site.experts, d, sizes, 4, disable_ue8m0_cast=True
        )


@engine("TensorRT-LLM, early")
def batched_experts_with_row_major_scale_factors(site: Site) -> None:
    """Rows that nobody wrote are what torch.empty gave."""
    site.check_batched(
        lambda a, b, d, sizes, expected_m: deep_gemm.fp8_m_grouped_gemm_nt_masked(
            a, b, d, sizes, expected_m, disable_ue8m0_cast=site.keeps_fp32
        ),
        "row-major",
        expected_m=-(-sum(site.rows) * 2 // len(site.rows)),
    )


# lmdeploy


@engine("lmdeploy")
def linear_layer(site: Site) -> None:
    site.check_linear(lambda a, b, out: deep_gemm.fp8_gemm_nt(a, b, out, None))


@engine("lmdeploy")
def experts_and_operands_as_lists(site: Site) -> None:
    alignment = deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout()
    deep_gemm.set_mk_alignment_for_contiguous_layout(alignment)
    assert deep_gemm.get_m_alignment_for_contiguous_layout() == ALIGNMENT
    site.check_experts(
        lambda a, b, out, ids: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(list(a), b, out, ids),
        site.by_ids(),
    )

    def masked(a: Operand, *args: object) -> None:
        x, sfa = a
        aligned = deep_gemm.get_mn_major_tma_aligned_tensor(sfa)
        deep_gemm.m_grouped_fp8_gemm_nt_masked([x, aligned], *args)

    site.check_batched(masked, "row-major")


@engine("lmdeploy")
def fp4_is_refused(site: Site) -> None:
    layout = site.by_ids()
    a, (y, sfb) = site.unpermuted(layout), site.experts
    d = torch.empty(len(layout.row_groups), site.n, dtype=torch.bfloat16, device=site.device)
    with pytest.raises(RuntimeError, match=r"b\[0\]: .*packed FP4 operands are for SM100"):
        deep_gemm.m_grouped_fp8_fp4_gemm_nt_contiguous(
            a,
            (y.view(torch.int8)[..., : site.k // 2], sfb),
            d,
            layout.grouped_layout.to(site.device),
            recipe=(1, 1, 32),
            disable_ue8m0_cast=site.keeps_fp32,
        )


# rtp-llm


@engine("rtp-llm")
def every_argument_by_keyword(site: Site) -> None:
    site.check_linear(
        lambda a, b, out: deep_gemm.fp8_gemm_nt(
            a=a,
            b=b,
            d=out,
            c=None,
            recipe=None,
            compiled_dims="nk",
            disable_ue8m0_cast=site.keeps_fp32,
        )
    )
    site.check_experts(
        lambda a, b, out, ids: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            a=a,
            b=b,
            d=out,
            grouped_layout=ids,
            recipe=None,
            compiled_dims="nk",
            disable_ue8m0_cast=site.keeps_fp32,
        ),
        site.by_ids(),
    )
    site.check_batched(
        lambda a, b, out, sizes, expected_m: deep_gemm.m_grouped_fp8_gemm_nt_masked(
            a=a,
            b=b,
            d=out,
            masked_m=sizes,
            expected_m=expected_m,
            recipe=None,
            compiled_dims="nk",
            disable_ue8m0_cast=site.keeps_fp32,
        )
    )


# lightllm


@engine("lightllm")
def lists_and_transposed_weights(site: Site) -> None:
    """Weights are kept as [k, n], scale factors as [k / 128, n / 128], and handed in by views; the
    scale factors of activations are aligned by its own kernels."""

    def call(a: Operand, b: Operand, out: torch.Tensor) -> None:
        qweight, weight_scale = b[0].t(), transposed(b)[1]
        deep_gemm.gemm_fp8_fp8_bf16_nt(list(a), [qweight.t(), weight_scale.t()], out)

    site.check_linear(call)
    assert get_tma_aligned_size(site.tokens, 4) >= site.tokens


@engine("lightllm")
def experts_while_communication_has_some_sms(site: Site) -> None:
    before = deep_gemm.get_num_sms()
    set_num_sms(max(1, before - 1))
    try:
        site.check_experts(
            deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous, site.by_ids(), "row-major"
        )
        site.check_batched(deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked)
    finally:
        set_num_sms(before)


# transformers


@engine("transformers")
def linear_layer_of_both_recipes(site: Site) -> None:
    site.check_linear(
        lambda a, b, out: deep_gemm.fp8_fp4_gemm_nt(a, b, out, recipe=None), "row-major"
    )
    a, b = site.activations, site.operand((site.n, site.k), 1, seed=1)
    d = site.run_dense(
        lambda out: deep_gemm.fp8_fp4_gemm_nt(a, b, out, recipe=(1, 1, 128)), site.tokens, site.n
    )
    site.check_dense(d, a, b, gran_n=1)


@engine("transformers")
def activations_that_it_quantizes(site: Site) -> None:
    """With scale factors that are powers of two, which are FP32 as any others are."""
    a = deep_gemm.utils.per_token_cast_to_fp8(site.normal(site.tokens, 0), True, gran_k=128)
    b = site.operand((site.n, site.k), 128, seed=1)
    site.check_quantized(deep_gemm.fp8_fp4_gemm_nt, a, b)


@engine("transformers")
def rows_that_do_not_fill_the_last_block(site: Site) -> None:
    rows = len(site.by_ids().row_groups) - ALIGNMENT + 1
    layout = site.by_ids(m=rows)
    site.check_experts(
        lambda a, b, out, ids: deep_gemm.m_grouped_fp8_fp4_gemm_nt_contiguous(
            a, b, out, ids, recipe=None, use_psum_layout=False
        ),
        layout,
        "row-major",
    )
    site.check_experts(
        lambda a, b, out, ids: deep_gemm.m_grouped_fp8_fp4_gemm_nn_contiguous(
            *(a, (b[0].transpose(1, 2), b[1].transpose(1, 2)), out, ids),
            recipe=None,
            use_psum_layout=False,
        ),
        layout,
        "row-major",
    )


@engine("transformers")
def half_precision_outputs_are_refused(site: Site) -> None:
    d = torch.empty(site.tokens, site.n, dtype=torch.float16, device=site.device)
    with pytest.raises(RuntimeError, match=r"d: must have dtype torch.bfloat16 or torch.float32"):
        deep_gemm.fp8_fp4_gemm_nt(site.activations, site.weight, d)
