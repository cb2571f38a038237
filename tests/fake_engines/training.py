"""What trainers call: torchao and prime-rl. The others use BF16 alone."""

from __future__ import annotations

from collections.abc import Callable

import torch

import deep_gemm
from deep_gemm.testing import by_k_group
from tests.fake_engines.site import Site, engine
from tests.grouped_calls import check_values, finish, output
from tests.grouped_operands import Operand, flat_operand, sf_layouts

FP32 = torch.float32


def groups_along_k(site: Site) -> list[int]:
    """Tokens of each expert, padded to whole blocks: first, last and in between there are none."""
    return [0, *(-(-rows // 128) * 128 for rows in site.rows), 0]


def check_weight_gradients(
    site: Site, call: Callable[..., object], sf_layout: str, in_place: bool
) -> None:
    """`call(a, b, d, ks, sizes, c)` adds every expert's gradient to C, or writes zero plus it.

    Without `in_place`, D is full of NaN and C is zero.
    """
    ks = groups_along_k(site)
    m, n = 128, site.n
    a, b = flat_operand(m, ks, site.device), flat_operand(n, ks, site.device, 2)
    laid_out = [(data, sf_layouts(sf)[sf_layout]) for data, sf in (a, b)]
    out = output(len(ks) * m, n, FP32, a[0].device)
    d = out.view.view(len(ks), m, n)
    c = d.fill_(3) if in_place else torch.zeros_like(d)
    before = c.clone()
    sizes = torch.tensor(ks, dtype=torch.int32, device=a[0].device)
    call(*laid_out, d, ks, sizes, c)
    finish(out)
    check_values(
        d,
        lambda gemm: by_k_group(lambda x, y, c, **more: c + gemm(x, y, **more), a, b, ks, before),
        exact=True,
    )


# torchao


@engine("torchao")
def experts_forwards(site: Site) -> None:
    site.check_experts(
        lambda a, b, out, layout: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            *(a, b, out, layout),
            recipe_a=(1, 128),
            recipe_b=(128, 128),
            disable_ue8m0_cast=site.keeps_fp32,
        ),
        site.by_ids(),
        "row-major",
    )


@engine("torchao")
def experts_weight_gradients(site: Site) -> None:
    """C is zero and another tensor than D, which nobody initialised; scale factors are slices."""
    check_weight_gradients(
        site,
        lambda a, b, d, ks, sizes, c: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
            a, b, d, ks, sizes, c, recipe=(1, 1, 128)
        ),
        "sliced",
        in_place=False,
    )


# prime-rl


@engine("prime-rl")
def linear_layer(site: Site) -> None:
    site.check_linear(lambda x, w, out: deep_gemm.fp8_gemm_nt(x, w, out), "row-major")
    assert isinstance(deep_gemm.__version__, str)


@engine("prime-rl")
def linear_layers_weight_gradient(site: Site) -> None:
    def operand(rows: int, seed: int) -> Operand:
        return site.operand((rows, site.k), 1, seed)

    a, b = operand(site.n, 0), operand(128, 1)

    def call(out: torch.Tensor) -> None:
        out.zero_()
        deep_gemm.fp8_gemm_nt(a, b, out, c=out, recipe=(1, 1, 128))

    site.check_dense(site.run_dense(call, site.n, 128, FP32), a, b, gran_n=1)


@engine("prime-rl")
def experts_forwards_and_backwards(site: Site) -> None:
    site.check_experts(
        lambda a, b, out, layout: deep_gemm.m_grouped_fp8_gemm_nt_contiguous(
            a, b, out, layout, use_psum_layout=False
        ),
        site.by_ids(),
        "row-major",
    )
    check_weight_gradients(
        site,
        lambda x, dy, dw, aligned_ms, sizes, c: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
            x, dy, dw, aligned_ms, sizes, c
        ),
        "MN-major aligned",
        in_place=True,
    )


@engine("any trainer of 2.0 to 2.5")
def sizes_by_their_old_names(site: Site) -> None:
    """Lists or tuples of sizes, and their names before 2.6 and in SGLang's fork."""
    check_weight_gradients(
        site,
        lambda a, b, d, ks, sizes, c: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
            a, b, d, ks=tuple(ks), ks_tensor=sizes, c=c
        ),
        "row-major",
        in_place=True,
    )
    check_weight_gradients(
        site,
        lambda a, b, d, ks, sizes, c: deep_gemm.k_grouped_fp8_gemm_nt_contiguous(
            a, b, d, ks=ks, grouped_layout=sizes, c=c, use_padded_sf_layout=False
        ),
        "row-major",
        in_place=True,
    )
