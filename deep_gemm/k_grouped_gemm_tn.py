"""Weight gradients of a mixture's experts from operands that lie as they were computed."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm.calls import Operand
from deep_gemm.checks import check_newer
from deep_gemm.k_grouped_gemm import groups_of_call, run_k_grouped


def k_grouped_fp8_gemm_tn_contiguous(
    a: Operand,
    b: Operand,
    d: torch.Tensor,
    ks_cpu: Sequence[int] | None = None,
    grouped_layout: torch.Tensor | None = None,
    c: torch.Tensor | None = None,
    recipe: tuple[int, int, int] = (1, 1, 128),
    compiled_dims: str = "mn",
    use_psum_layout: bool = False,
    epilogue: object = None,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
) -> None:
    """Computes D[g] = A_g.T @ B_g, or D[g] = C[g] + A_g.T @ B_g, for every group g, on the current
    stream: A_g and B_g are the group's rows of A and B. SM100 only. The groups' sizes are read on
    the device, without a synchronisation.

    Args:
        a: (data, sfa): [k, m] float8_e4m3fn with contiguous rows, the rows of all groups below each
            other; and FP32 [sum(ceil(k_g / gran_k)), m], any strides, or packed as by
            `get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor`.
        b: (data, sfb): the same with n columns.
        d: [groups, m, n] float32 or bfloat16 with contiguous rows, overwritten.
        ks_cpu: k_g of every group, as the host knows them, for checks; None if it does not.
        grouped_layout: int32 [groups], contiguous, on the device: k_g of every group, any number,
            or with `use_psum_layout` where each ends. What counts if they differ from `ks_cpu`.
            Groups that reach beyond the operands' end are cut off there.
        c: of d's shape and dtype, or None; `d` itself accumulates in place. Groups with k_g = 0
            leave D = C, or zero without C.
        recipe: (gran_m, gran_n, gran_k) of the scale factors: (1, 1, 128) or (1, 1, 32).
        compiled_dims: accepted for compatibility; sizes are run-time values here.
        use_psum_layout: groups begin at multiples of `get_mk_alignment_for_contiguous_layout()`, a
            multiple of gran_k, and the numbers are their ends. What lies between groups is never
            looked at; FP32 scale factors are those of all rows, [ceil(k / gran_k), m].
        epilogue: what else would be done with D; no kernel here has one: None.
        ks: an older name of `ks_cpu`.
        ks_tensor: an older name of `grouped_layout`.

    Raises:
        ArgumentError: an argument breaks a rule. Nothing was written.
        UnsupportedArchitectureError: the device is not SM100.
        CompilationError: a kernel could not be compiled.
        ScaleFactorError: an earlier call's scale factors were not powers of two.
    """
    check_newer(epilogue=epilogue)
    known, sizes = groups_of_call(ks_cpu, ks, grouped_layout, ks_tensor)
    run_k_grouped(a, b, d, sizes, known, c, (recipe, None, None), True, use_psum_layout)
