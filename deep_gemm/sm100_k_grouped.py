"""What k-grouped calls do on SM100: their checks, and their plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from deep_gemm.calls import PlannedCall, check_addresses
from deep_gemm.checks import check_shape, check_tensor, check_tma_rows, refuse
from deep_gemm.config.problem import GemmProblem
from deep_gemm.kernels.fp8_gemm import GemmTensors
from deep_gemm.kernels.pack_ue8m0 import k_grouped_pack_fp32_into_ue8m0
from deep_gemm.kernels.sm100_k_grouped import KGroups, plan_sm100_k_grouped
from deep_gemm.layout import SFS_OF_WORD, SM100_GRAN_K
from deep_gemm.reports import reports_of
from deep_gemm.scaling import ScalingRecipe
from deep_gemm.sm100_calls import chosen
from deep_gemm.utils.math import ceil_div

Tensors = tuple[torch.Tensor, ...]
"""x, y, d, sfa, sfb and the groups' numbers of a launch."""


@dataclass(frozen=True)
class KForm:
    """How the operands and the groups of a call lie.

    Attributes:
        is_tn: operands are [k, m] and [k, n]; else flat, a K-major matrix for each group.
        alignment: if the groups' numbers are ends along K, of the places where they begin; else
            None.
    """

    is_tn: bool = False
    alignment: int | None = None


NT = KForm()


def rows_of_k(sf: torch.Tensor, form: KForm) -> torch.Tensor:
    """Scale factors as [k blocks or words, rows]."""
    return sf if form.is_tn else sf.mT


def max_words(num_rows: int, num_groups: int) -> int:
    """The most words that so many scale factors of each row can take, as each group begins with a
    new one."""
    return (num_rows + (SFS_OF_WORD - 1) * min(num_groups, num_rows)) // SFS_OF_WORD


def check_sizes(ks: Sequence[int], tensors: Tensors, form: KForm, gran_k: int) -> None:
    """Checks groups' sizes that the host knows, beyond what SM90 asks of them: operands that are
    [k, rows] and all scale factors have as much along K.

    Raises:
        ArgumentError: they have not.
    """
    for name, data, sf in zip("ab", tensors[:2], tensors[3:5], strict=True):
        is_dense = form.is_tn and form.alignment is None
        if is_dense and data.dim() == 2 and data.shape[0] != sum(ks):
            rule = f"must have sum(ks_cpu) = {sum(ks)} rows"
            refuse(f"{name}[0]", rule, f"shape {tuple(data.shape)}")
        has_gaps = form.alignment is not None and sf.dtype == torch.float32
        if sf.dim() != 2 or has_gaps or gran_k not in SM100_GRAN_K:
            continue
        unit = gran_k * SFS_OF_WORD if sf.dtype == torch.int32 else gran_k
        count = sum(ceil_div(k, unit) for k in ks)
        if rows_of_k(sf, form).shape[0] != count:
            rule = f"must have sum(ceil(ks_cpu / {unit})) = {count} scale factors or words along K"
            refuse(f"{name}[1]", rule, f"shape {tuple(sf.shape)}")


def check_sm100_k_grouped(
    tensors: Tensors, problem: GemmProblem, recipe: ScalingRecipe, form: KForm
) -> GemmProblem:
    """Checks what is different from SM90; gives the problem with its majors and granularity.

    Raises:
        ArgumentError: an argument breaks a rule.
    """
    x, y, d, sfa, sfb, _ = tensors
    got = (recipe.gran_m, recipe.gran_n, recipe.gran_k)
    if got[:2] != (1, 1) or recipe.gran_k not in SM100_GRAN_K:
        rule = "must be (1, 1, 32) or (1, 1, 128) for k-grouped products on SM100"
        refuse("recipe", rule, got)
    if d.numel() and x.numel():
        operands = ("a", x, sfa, problem.m), ("b", y, sfb, problem.n)
        for name, operand, sf, rows in operands:
            if form.is_tn:
                check_tma_rows(f"{name}[0]", operand)
            if sf.dtype not in (torch.float32, torch.int32):
                rule = "must be FP32, or UE8M0 packed into torch.int32, on SM100"
                refuse(f"{name}[1]", rule, sf.dtype)
            check_tensor(f"{name}[1]", sf, 2, sf.dtype, x.device)
            count = rows_of_k(sfa, form).shape[0]
            shape = (count, rows) if form.is_tn else (rows, count)
            meaning = f"[k blocks, {rows}]" if form.is_tn else f"[{rows}, k blocks]"
            check_shape(f"{name}[1]", sf, shape, meaning)
        if sfa.dtype != sfb.dtype:
            refuse("b[1]", f"must have dtype {sfa.dtype}, that of a[1]", sfb.dtype)
        check_tma_rows("d", d)
    majors, gran_k = (form.is_tn, form.is_tn), (recipe.gran_k, recipe.gran_k)
    return replace(problem, gran_n=1, mn_major=majors, gran_k=gran_k)


@dataclass(frozen=True)
class Sm100KGroupedCall(PlannedCall):
    """A planned k-grouped call, which packs FP32 scale factors first.

    Attributes:
        gran_k: elements along K that share one.
        form: how the call's tensors lie.
    """

    gran_k: int = 128
    form: KForm = NT

    def run(self, tensors: Tensors, c: torch.Tensor | None, addresses: tuple[int, ...]) -> None:
        """Looks for reports, packs, and does the rest."""
        reports = reports_of(tensors[2].device)
        reports.check()
        if self.plan is not None and tensors[3].dtype == torch.float32:
            sfa, sfb = (self._packed(i, tensors) for i in (3, 4))
            tensors = *tensors[:3], sfa, sfb, *tensors[5:]
            reports.settle()
            addresses = tuple(tensor.data_ptr() for tensor in tensors)
        super().run(tensors, c, addresses)

    def _packed(self, which: int, tensors: Tensors) -> torch.Tensor:
        argument = "a[1]" if which == 3 else "b[1]"
        sf, numbers = rows_of_k(tensors[which], self.form), tensors[5]
        out = packed_like(sf, numbers.numel())
        report = reports_of(sf.device).place_of(argument)
        k_grouped_pack_fp32_into_ue8m0(sf, out, numbers, self.gran_k, self.form.alignment, report)
        return out


def packed_like(sf: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Where FP32 scale factors [k blocks, rows] go: the sizes of groups count on the device, so
    there is room for any."""
    return sf.new_empty((max_words(sf.shape[0], num_groups), sf.shape[1]), dtype=torch.int32)


def prepare_sm100_k_grouped(
    tensors: Tensors, problem: GemmProblem, form: KForm, total_k: int, c: tuple[bool, bool]
) -> Sm100KGroupedCall:
    """What a call has to do.

    Args:
        tensors: of the call.
        problem: what is computed; D is not empty.
        form: how they lie.
        total_k: along K, of all groups.
        c: whether there is a C, and whether D has to become C first.

    Raises:
        ArgumentError: an address is not aligned, or no kernel has blocks as the settings want them.
    """
    check_addresses(tensors, None)
    accumulates, copies_c = c
    x, y, d, sfa, sfb, numbers = tensors
    sfs = [rows_of_k(sf, form) for sf in (sfa, sfb)]
    if sfa.dtype == torch.float32:
        sfs = [packed_like(sf, numbers.numel()) for sf in sfs]
    words = [sf.mT.unsqueeze(0) for sf in sfs]
    matrices = GemmTensors(x, words[0], y, words[1], d)
    groups = KGroups(numbers, total_k, form.alignment)
    plan = plan_sm100_k_grouped(problem, chosen(problem), matrices, groups, accumulates)
    return Sm100KGroupedCall(plan, None, copies_c, False, problem.gran_k[0], form)
