"""What SGLang calls, by its wrappers of 0.5.23 and before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.utils.layout import get_mn_major_tma_aligned_tensor
from tests.fake_engines.site import ALIGNMENT, Site, engine
from tests.grouped_calls import check_contiguous, finish, output
from tests.grouped_operands import Layout, poison


@contextmanager
def num_sms(count: int) -> Iterator[None]:
    before = deep_gemm.get_num_sms()
    deep_gemm.set_num_sms(count)
    try:
        yield
    finally:
        deep_gemm.set_num_sms(before)


@engine("SGLang 0.5.23")
def linear_layer(site: Site) -> None:
    site.check_linear(lambda lhs, rhs, out: deep_gemm.fp8_gemm_nt(lhs, rhs, out))
    with num_sms(max(1, deep_gemm.get_num_sms() - 1)):
        site.check_linear(lambda lhs, rhs, out: deep_gemm.fp8_fp4_gemm_nt(lhs, rhs, out))


@engine("SGLang 0.5.23")
def transformed_activations(site: Site) -> None:
    def call(a: tuple[torch.Tensor, torch.Tensor], b: object, out: torch.Tensor) -> None:
        x, sfa = a
        sfa = deep_gemm.transform_sf_into_required_layout(
            sfa, num_groups=None, mn=x.shape[0], k=x.shape[1], recipe=(1, 128, 128), is_sfa=True
        )
        deep_gemm.fp8_gemm_nt((x, sfa), b, out)

    site.check_linear(call, "row-major")


@engine("SGLang 0.5.23")
def warm_up_of_a_linear_layer(site: Site) -> None:
    block = 128
    (x, sfa), b = site.activations, site.weight
    out = output(site.tokens, site.n, torch.bfloat16, x.device)
    for m in range(1, site.tokens, max(1, site.tokens // 3)):
        recipe = (1, block, block)
        deep_gemm.fp8_gemm_nt((x[:m], sfa[:m]), b, out.view[:m], recipe=recipe)
        site.check_dense(out.view[:m], (x[:m], sfa[:m]), b)
    finish(out)


@engine("SGLang 0.5.23")
def experts(site: Site) -> None:
    site.check_experts(
        lambda lhs, rhs, out, m_indices: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            lhs, rhs, out, m_indices
        ),
        site.by_ids(),
    )


@engine("SGLang 0.5.23")
def experts_with_padding_that_carries_an_id(site: Site) -> None:
    """DeepEP counts padding as rows of the expert; what comes out there is for nobody."""
    layout = site.by_ids()
    ids = layout.row_groups.view(-1, ALIGNMENT)[:, :1].expand(-1, ALIGNMENT).reshape(-1)
    a, b = site.unpermuted(layout), site.experts
    out = output(len(ids), site.n, torch.bfloat16, a[0].device)
    deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, b, out.view, ids.contiguous().to(a[0].device))
    finish(out)
    check_contiguous(out.view, a, b, layout, site.exact)


@engine("SGLang 0.5.23")
def experts_in_a_scope_of_their_alignment(site: Site) -> None:
    present = deep_gemm.get_mk_alignment_for_contiguous_layout()
    wanted = deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(
        expected_m=sum(site.rows), num_groups=len(site.rows)
    )
    assert 0 < wanted <= present
    deep_gemm.set_mk_alignment_for_contiguous_layout(wanted)
    try:
        site.check_experts(deep_gemm.m_grouped_fp8_gemm_nt_contiguous, site.by_ids(wanted))
    finally:
        deep_gemm.set_mk_alignment_for_contiguous_layout(present)


@engine("SGLang 0.5.23")
def batched_experts(site: Site) -> None:
    def call(lhs: object, rhs: object, out: object, masked_m: object, expected_m: int) -> None:
        deep_gemm.fp8_m_grouped_gemm_nt_masked(lhs, rhs, out, masked_m, expected_m)

    site.check_batched(call)
    # It transforms scale factors of row-major groups by the layout helper.
    site.check_batched(
        lambda lhs, *args: call((lhs[0], get_mn_major_tma_aligned_tensor(lhs[1])), *args),
        "row-major",
    )


@engine("SGLang 0.5.23")
def warm_up_of_batched_experts(site: Site) -> None:
    """No expert has a row: a legal call that writes nothing."""
    a, b = poison_all(site), site.experts
    out = output(len(site.rows) * site.m_max, site.n, torch.bfloat16, a[0].device)
    before = out.view.clone()
    deep_gemm.fp8_m_grouped_gemm_nt_masked(
        a,
        b,
        out.view.view(len(site.rows), site.m_max, site.n),
        masked_m=torch.zeros(len(site.rows), dtype=torch.int32, device=a[0].device),
        expected_m=site.m_max,
    )
    finish(out)
    assert_bitwise_equal(out.view, before, "rows of no expert")


def poison_all(site: Site) -> tuple[torch.Tensor, torch.Tensor]:
    a = site.operand((len(site.rows), site.m_max, site.k))
    return poison(a, torch.ones(a[1].shape[:-1], dtype=torch.bool))


@engine("SGLang 0.5.23")
def overlap_is_refused(site: Site) -> None:
    """Its kernels signal blocks of D as they are done; ours do not, and say so."""
    a, b = site.batched(site.m_max), site.experts
    d = torch.empty(len(site.rows), site.m_max, site.n, dtype=torch.bfloat16, device=site.device)
    sizes = torch.tensor(site.rows, dtype=torch.int32, device=site.device)
    with pytest.raises(RuntimeError, match="enable_overlap: must be False"):
        deep_gemm.fp8_m_grouped_gemm_nt_masked(
            a, b, d, sizes, 4, enable_overlap=True, max_block_n=256, signal=sizes
        )


@engine("SGLang 0.5.23")
def mx_fp8_and_fp4(site: Site) -> None:
    """SM90 refuses both; MX FP8 is for SM100."""
    (x, sfa), (y, sfb) = site.activations, site.weight
    d = torch.empty(site.tokens, site.n, dtype=torch.bfloat16, device=site.device)
    ones = torch.ones(site.tokens, site.k // 32, device=site.device)
    a, b = (x, ones), (y, ones[:1].expand(site.n // 32, -1).contiguous())
    if site.keeps_fp32:
        with pytest.raises(RuntimeError, match=r"recipe: must be \(1, 128, 128\)"):
            deep_gemm.fp8_gemm_nt(a, b, d, recipe=(1, 32, 32))
    else:
        deep_gemm.fp8_gemm_nt(a, b, d, recipe=(1, 32, 32))
        assert_bitwise_equal(d, (x.double() @ y.double().T).bfloat16())
    packed = y.view(torch.int8)[:, : site.k // 2]
    with pytest.raises(RuntimeError, match=r"b\[0\]: .*packed FP4 operands are for SM100"):
        deep_gemm.fp8_fp4_gemm_nt(
            *((x, sfa), (packed, sfb), d),
            recipe_a=(1, 32),
            recipe_b=(1, 32),
            disable_ue8m0_cast=site.keeps_fp32,
        )


@engine("SGLang 0.5.3")
def linear_layer_and_experts(site: Site) -> None:
    site.check_linear(deep_gemm.fp8_gemm_nt)
    site.check_experts(deep_gemm.m_grouped_fp8_gemm_nt_contiguous, site.by_ids())
    site.check_batched(deep_gemm.fp8_m_grouped_gemm_nt_masked)


@engine("SGLang 0.4.9")
def names_of_version_1(site: Site) -> None:
    layout: Layout = site.by_ids()
    site.check_linear(deep_gemm.gemm_fp8_fp8_bf16_nt)
    site.check_experts(deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous, layout)
    site.check_batched(deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked)
