"""K-grouped products of SM100: operands that lie in every way, calls, and their checks.

What belongs to no group is NaN, in data and in scale factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deep_gemm import (
    get_mk_alignment_for_contiguous_layout,
    k_grouped_fp8_gemm_nt_contiguous,
    k_grouped_fp8_gemm_tn_contiguous,
)
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.layout_reference import pack_k_grouped_ue8m0
from deep_gemm.utils.math import align, ceil_div
from tests.grouped_calls import added, finish, mk_alignment, output, with_c

NAN = 0x7F
"""A byte of E4M3."""


@dataclass(frozen=True)
class KCase:
    """A k-grouped product.

    Attributes:
        form: "tn", "nt", or "ends" for TN with gaps between groups.
        ks: of the groups.
        m, n: rows and columns of D.
        gran_k: elements along K per scale factor.
        packed: scale factors are packed by the caller.
        dtype: of D.
        c: "none", "d" or "other".
        alignment: of the places where groups begin, if they have ends.
        sizes_on_host: they are given there too.
    """

    form: str
    ks: tuple[int, ...]
    m: int = 16
    n: int = 48
    gran_k: int = 128
    packed: bool = False
    dtype: torch.dtype = torch.float32
    c: str = "none"
    alignment: int = 128
    sizes_on_host: bool = True

    def __str__(self) -> str:
        ks = ",".join(map(str, self.ks))
        words = [self.form, f"{self.m}x{self.n}x{ks}", f"per{self.gran_k}", f"c={self.c}"]
        words += ["packed"] * self.packed + ["bf16"] * (self.dtype == torch.bfloat16)
        return "-".join(words)


@dataclass(frozen=True)
class KOperand:
    """An operand of all groups, as a caller has it, and what each group's is.

    Attributes:
        data: of the call.
        sf: of the call.
        exact: [rows, k_i] FP64 of each group.
    """

    data: torch.Tensor
    sf: torch.Tensor
    exact: list[torch.Tensor]


def begins_of(case: KCase) -> list[int]:
    """Where groups begin along K."""
    begins, end = [], 0
    for k in case.ks:
        begins.append(align(end, case.alignment) if case.form == "ends" else end)
        end = begins[-1] + k
    return begins


def k_operand(case: KCase, rows: int, device: str, seed: int) -> KOperand:
    """Values and scale factors of which all sums are exact."""
    generator = torch.Generator(device).manual_seed(seed)
    begins, gran = begins_of(case), case.gran_k
    last = begins[-1] + case.ks[-1]
    total = align(last, case.alignment) if case.form == "ends" else last
    raw = torch.full((total, rows), NAN, dtype=torch.uint8, device=device)
    all_sf = torch.full((ceil_div(total, gran), rows), float("nan"), device=device)
    groups, exact, flat = [], [], []
    for begin, k in zip(begins, case.ks, strict=True):
        # No zeros: the sum of a single product would then be -0 here, and +0 there.
        exponents = torch.randint(-2, 2, (k, rows), device=device, generator=generator)
        values = torch.where(exponents < 0, exponents, exponents + 1).float()
        powers = torch.randint(-2, 3, (ceil_div(k, gran), rows), device=device, generator=generator)
        sf = powers.float().exp2()
        data = values.to(torch.float8_e4m3fn)
        raw[begin : begin + k] = data.view(torch.uint8)
        if case.form == "ends":
            all_sf[begin // gran : begin // gran + len(sf)] = sf
        groups.append(sf)
        flat.append(data.view(torch.uint8).T.flatten())
        exact.append((values.double() * sf.double().repeat_interleave(gran, 0)[:k]).T)
    sf = all_sf if case.form == "ends" else torch.cat(groups)
    if case.packed:
        sf = pack_k_grouped_ue8m0(torch.cat(groups), list(case.ks), gran)
    if case.form == "nt":
        raw, sf = torch.cat(flat), sf.T
    return KOperand(raw.view(torch.float8_e4m3fn), sf, exact)


def run_k_case(case: KCase, device: str) -> None:
    """Right to the bit, and nothing beside D has changed."""
    a, b = k_operand(case, case.m, device, 1), k_operand(case, case.n, device, 2)
    out = output(len(case.ks) * case.m, case.n, case.dtype, a.data.device)
    d = out.view.view(len(case.ks), case.m, case.n)
    passed, before = with_c(d, case.c)
    numbers = list(case.ks)
    call = k_grouped_fp8_gemm_nt_contiguous
    if case.form != "nt":
        call = k_grouped_fp8_gemm_tn_contiguous
    if case.form == "ends":
        numbers = [begin + k for begin, k in zip(begins_of(case), case.ks, strict=True)]
    layout = torch.tensor(numbers, dtype=torch.int32, device=device)
    known = list(case.ks) if case.sizes_on_host else None
    with mk_alignment(case.alignment):
        assert get_mk_alignment_for_contiguous_layout() == case.alignment
        call(
            *((a.data, a.sf), (b.data, b.sf), d, known, layout, passed),
            recipe=(1, 1, case.gran_k),
            use_psum_layout=case.form == "ends",
        )
    finish(out)
    check_groups(d, a, b, before)


def check_groups(
    d: torch.Tensor, a: KOperand, b: KOperand, before: torch.Tensor | None = None
) -> None:
    for group, (x, y) in enumerate(zip(a.exact, b.exact, strict=True)):
        c = None if before is None else before[group]
        assert_bitwise_equal(d[group], added(x @ y.T, c, d.dtype), f"group {group}")


def both_operands(case: KCase, device: str) -> Sequence[KOperand]:
    """A and B."""
    return [k_operand(case, rows, device, seed) for seed, rows in ((1, case.m), (2, case.n))]
