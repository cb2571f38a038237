"""What vLLM calls, from its wrappers of 0.33 back to the names of version 1 in 0.9."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from tests.fake_engines.site import ALIGNMENT, Site, engine, resolve
from tests.grouped_calls import finish, output
from tests.grouped_operands import Operand, row_ids

MASKED = "m_grouped_fp8_gemm_nt_masked", "fp8_m_grouped_gemm_nt_masked"


def processed(site: Site, weight: Operand) -> Operand:
    """Weights after loading: a matrix is taken for a batch of one. SM90's scale factors stay what
    they are; SM100's are packed."""
    data, sf = weight
    batch = (data, sf) if data.dim() == 3 else (data.unsqueeze(0), sf.unsqueeze(0))
    required = deep_gemm.transform_sf_into_required_layout(
        sf=batch[1],
        mn=batch[0].size(1),
        k=batch[0].size(2),
        recipe=(1, 128, 128),
        num_groups=batch[0].size(0),
        is_sfa=False,
        disable_ue8m0_cast=site.keeps_fp32,
    )
    assert (required is batch[1]) is site.keeps_fp32
    return data, required if data.dim() == 3 else required.squeeze(0)


@contextmanager
def alignment_scope(expected_m: int, num_groups: int) -> Iterator[int]:
    """The alignment that suits so many rows, if it is not above the present one."""
    present = deep_gemm.get_mk_alignment_for_contiguous_layout()
    try:
        wanted = deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(
            expected_m, num_groups
        )
    except TypeError:
        wanted = deep_gemm.get_theoretical_mk_alignment_for_contiguous_layout(
            -(-expected_m // num_groups)
        )
    deep_gemm.set_mk_alignment_for_contiguous_layout(min(wanted, present))
    try:
        yield min(wanted, present)
    finally:
        deep_gemm.set_mk_alignment_for_contiguous_layout(present)


@contextmanager
def programmatic_launch() -> Iterator[None]:
    """Turned on once after import, where there is such a thing; whatever it raises is ignored."""
    set_pdl = getattr(deep_gemm, "set_pdl", None)
    if set_pdl is not None:
        with suppress(Exception):
            set_pdl(True)
    try:
        yield
    finally:
        if set_pdl is not None:
            set_pdl(False)


@engine("vLLM 0.33")
def linear_layer(site: Site) -> None:
    fp8_gemm_nt = resolve("fp8_gemm_nt")
    for disable in {site.keeps_fp32, False}:
        with programmatic_launch():
            site.check_linear(
                lambda a, b, out, disable=disable: fp8_gemm_nt(
                    a, processed(site, b), out, disable_ue8m0_cast=disable
                )
            )


@engine("vLLM 0.33")
def weights_that_it_quantizes(site: Site) -> None:
    use_ue8m0 = not site.keeps_fp32
    b = deep_gemm.per_block_cast_to_fp8(site.normal(site.n, 1), use_ue8m0)
    a = deep_gemm.per_token_cast_to_fp8(site.normal(site.tokens, 0), use_ue8m0)
    site.check_quantized(
        lambda a, b, out: resolve("fp8_gemm_nt")(
            a, processed(site, b), out, disable_ue8m0_cast=site.keeps_fp32
        ),
        *(a, b),
    )


@engine("vLLM 0.33")
def warm_up_of_a_linear_layer(site: Site) -> None:
    """Every M by slices of buffers for the largest one, with row-major scale factors."""
    (x, sfa), b = site.activations, site.weight
    for m in (1, site.tokens - 1, site.tokens):
        out = output(site.tokens, site.n, torch.bfloat16, x.device)
        before = out.view.clone()
        resolve("fp8_gemm_nt")((x[:m], sfa[:m]), b, out.view[:m], disable_ue8m0_cast=False)
        finish(out)
        site.check_dense(out.view[:m], (x[:m], sfa[:m]), b)
        assert_bitwise_equal(out.view[m:], before[m:], "rows of the buffer behind the slice")


def moe(
    site: Site, a: Operand, b: Operand, out: torch.Tensor, layout: torch.Tensor, psum: bool
) -> None:
    resolve("m_grouped_fp8_gemm_nt_contiguous")(
        a,
        processed(site, b),
        out,
        layout,
        disable_ue8m0_cast=False,
        use_psum_layout=psum,
        recipe_a=None,
        recipe_b=None,
    )


@engine("vLLM 0.33")
def experts_by_ends(site: Site) -> None:
    """Both GEMMs: the first one's scale factors are row-major and zero in padding, where A is
    whatever the workspace holds; there is more room than the groups take."""
    layout = site.by_ends()
    a = site.unpermuted(layout)
    a[1][(layout.row_groups < 0).to(a[1].device)] = 0
    for sf_layout in ("row-major", "MN-major aligned"):
        site.check_experts(lambda *args: moe(site, *args, psum=True), layout, sf_layout, a)


@engine("vLLM 0.33")
def experts_by_ids(site: Site) -> None:
    site.check_experts(lambda *args: moe(site, *args, psum=False), site.by_ids())


@engine("vLLM 0.33")
def experts_in_a_scope_of_their_alignment(site: Site) -> None:
    for psum in (True, False):
        with alignment_scope(sum(site.rows), len(site.rows)) as alignment:
            assert deep_gemm.get_mk_alignment_for_contiguous_layout() == alignment
            layout = site.by_ends(alignment) if psum else site.by_ids(alignment)
            site.check_experts(lambda *args, psum=psum: moe(site, *args, psum=psum), layout)
    assert deep_gemm.get_mk_alignment_for_contiguous_layout() == ALIGNMENT


@engine("vLLM 0.33")
def warm_up_of_experts(site: Site) -> None:
    """Whole blocks of any expert, in slices of buffers for all of them."""
    layout = row_ids([(1, ALIGNMENT), (0, ALIGNMENT)], ALIGNMENT, len(site.rows))
    x, sfa = site.operand((3 * ALIGNMENT, site.k))
    a = x[: 2 * ALIGNMENT], sfa[: 2 * ALIGNMENT]
    site.check_experts(lambda *args: moe(site, *args, psum=False), layout, "row-major", a)


@engine("vLLM 0.33")
def batched_experts(site: Site) -> None:
    """The second GEMM's scale factors are MN-major without the padding that TMA wants."""
    for sf_layout, m_max in (("MN-major aligned", site.m_max), ("MN-major", max(site.rows) | 1)):
        site.check_batched(
            lambda *args: resolve(*MASKED)(*args, disable_ue8m0_cast=False), sf_layout, m_max
        )


@engine("vLLM 0.20")
def linear_layer_and_experts(site: Site) -> None:
    site.check_linear(
        lambda *args: resolve("fp8_gemm_nt")(*args, disable_ue8m0_cast=site.keeps_fp32)
    )
    contiguous = resolve("m_grouped_fp8_gemm_nt_contiguous")
    site.check_experts(
        lambda *args: contiguous(*args, disable_ue8m0_cast=site.keeps_fp32), site.by_ids()
    )


@engine("vLLM 0.14")
def batched_experts_by_their_old_name(site: Site) -> None:
    masked = resolve("fp8_m_grouped_gemm_nt_masked")
    site.check_batched(lambda *args: masked(*args, disable_ue8m0_cast=site.keeps_fp32))


@engine("vLLM 0.10")
def whichever_name_there_is(site: Site) -> None:
    """Old names are looked for where there are no new ones, and get the new ones' keyword."""
    pairs = (
        ("fp8_gemm_nt", "gemm_fp8_fp8_bf16_nt"),
        ("m_grouped_fp8_gemm_nt_contiguous", "m_grouped_gemm_fp8_fp8_bf16_nt_contiguous"),
        ("fp8_m_grouped_gemm_nt_masked", "m_grouped_gemm_fp8_fp8_bf16_nt_masked"),
    )
    for generation in (0, 1):
        dense, contiguous, masked = (resolve(pair[generation]) for pair in pairs)
        for disable in {site.keeps_fp32, False}:
            site.check_linear(lambda *args: dense(*args, disable_ue8m0_cast=disable))  # noqa: B023
        site.check_experts(
            lambda *args: contiguous(*args, disable_ue8m0_cast=site.keeps_fp32),  # noqa: B023
            site.by_ids(),
        )
        site.check_batched(lambda *args: masked(*args, disable_ue8m0_cast=site.keeps_fp32))  # noqa: B023


@engine("vLLM 0.9")
def names_of_version_1(site: Site) -> None:
    """Weights' scale factors went through the old transform and were made contiguous again."""

    def loaded(b: Operand) -> Operand:
        return b[0], deep_gemm.get_col_major_tma_aligned_tensor(b[1]).contiguous()

    site.check_linear(lambda a, b, out: deep_gemm.gemm_fp8_fp8_bf16_nt(a, loaded(b), out))
    site.check_experts(
        lambda a, b, out, ids: deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_contiguous(
            a, loaded(b), out, ids
        ),
        site.by_ids(),
    )
    site.check_batched(
        lambda a, b, out, sizes, expected_m: deep_gemm.m_grouped_gemm_fp8_fp8_bf16_nt_masked(
            a, loaded(b), out=out, masked_m=sizes, expected_m=expected_m
        )
    )


@engine("verl")
def weights_by_way_of_vllm(site: Site) -> None:
    """Its weights' scale factors come from get_col_major_tma_aligned_tensor as it makes them."""
    site.check_linear(
        lambda a, b, out: deep_gemm.fp8_gemm_nt(
            a, (b[0], deep_gemm.get_col_major_tma_aligned_tensor(b[1])), out
        )
    )
