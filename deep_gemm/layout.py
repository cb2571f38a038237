"""Layouts of scale factors: MN-major in FP32, or packed into UE8M0. docs/scale_factors.md has
pictures of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch

from deep_gemm.checks import (
    TMA_ALIGNMENT,
    check_device_type,
    check_is_tensor,
    check_positive,
    refuse,
)
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.pack_ue8m0 import (
    GroupRows,
    k_grouped_pack_fp32_into_ue8m0,
    pack_fp32_into_ue8m0,
)
from deep_gemm.kernels.transpose import mn_major, mn_major_strides
from deep_gemm.reports import reports_of
from deep_gemm.settings import get_mk_alignment_for_contiguous_layout
from deep_gemm.utils.math import align, ceil_div

T = TypeVar("T")

SFS_OF_WORD = 4
"""Packed scale factors along K."""

SM100_GRAN_K = (32, 128)
"""Elements along K that share a scale factor of SM100."""


def get_tma_aligned_size(mn: int, element_size: int) -> int:
    """The length of a column that makes the next one begin at a multiple of 16 bytes.

    Args:
        mn: elements of the column.
        element_size: bytes of an element: 1, 2, 4, 8 or 16.

    Returns:
        `mn`, rounded up to a multiple of 16 / element_size.

    Raises:
        ArgumentError: `mn` is negative or not an int, or 16 bytes are not whole elements.
    """
    if isinstance(mn, bool) or not isinstance(mn, int) or mn < 0:
        refuse("mn", "must be an int of at least 0", repr(mn))
    check_positive("element_size", element_size)
    if TMA_ALIGNMENT % element_size:
        refuse("element_size", f"must divide {TMA_ALIGNMENT}", element_size)
    return align(mn, TMA_ALIGNMENT // element_size)


def get_mn_major_tma_aligned_tensor(sf: torch.Tensor) -> torch.Tensor:
    """FP32 scale factors, MN-major with columns that TMA can read: `sf` itself, or a view of it, if
    it lies so, else a copy by one kernel on the current stream.

    Args:
        sf: [mn, k] or [groups, mn, k] FP32, any strides.

    Returns:
        A tensor of sf's shape and values with strides (k * align(mn, 4), 1, align(mn, 4)). What
        lies between the end of a column and the next one is undefined.

    Raises:
        ArgumentError: another dtype, number of dimensions or kind of device.
    """
    return mn_major(check_is_tensor("sf", sf))


get_col_major_tma_aligned_tensor = get_mn_major_tma_aligned_tensor
"""Its name in version 1."""


def get_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor, psum_layout: torch.Tensor | None = None
) -> torch.Tensor:
    """FP32 scale factors that are powers of two, packed into UE8M0 for SM100, MN-major with columns
    that TMA can read, by one kernel on the current stream. Runs on any GPU.

    Zero becomes 2**-127, UE8M0's smallest value. What UE8M0 does not have (negative numbers, those
    between powers of two, infinity, NaN) becomes its NaN, so that a product with it is NaN: no
    value is rounded in silence, and none stops the device. Once the kernel has run, the next call
    on the device raises an error; with DG_CHECK_SCALE_FACTORS=1 this one does.

    Args:
        sf: [mn, k] or [groups, mn, k] FP32, any strides; fast with contiguous k or mn.
        psum_layout: int32 [groups], the row behind each group's last in the contiguous layout;
            groups begin at multiples of `get_mk_alignment_for_contiguous_layout()`. Rows between
            groups and behind the last may then hold anything, and become anything.

    Returns:
        int32 [.., mn, ceil(k / 4)] with strides (.., 1, align(mn, 4)): k % 4 == 0 in the low byte,
        zero bytes behind the end of K.

    Raises:
        ArgumentError: another dtype, number of dimensions or device, or a psum_layout for groups
            that have a matrix each.
        ScaleFactorError: an earlier call's scale factors were not powers of two.
    """
    check_fp32(sf)
    reports = reports_of(sf.device)
    reports.check()
    packed = packed_ue8m0(sf, sf.shape[-2], 1, psum_layout, reports.place_of("sf"))
    reports.settle()
    return packed


def get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(
    sf: torch.Tensor,
    grouped_layout: torch.Tensor | None = None,
    ks_cpu: Sequence[int] | None = None,
    gran_k: int = 128,
    k_alignment: int | None = None,
    use_psum_layout: bool = False,
    *,
    ks: Sequence[int] | None = None,
    ks_tensor: torch.Tensor | None = None,
) -> torch.Tensor:
    """The scale factors of a k-grouped product, packed into UE8M0 for SM100, by one kernel on the
    current stream that reads the groups' sizes on the device. Runs on any GPU.

    Values become what `get_mn_major_tma_aligned_packed_ue8m0_tensor` makes of them.

    Args:
        sf: [sum(ceil(k_i / gran_k)), mn] FP32, mn a multiple of 4; fast with contiguous rows.
        grouped_layout: int32 [groups], contiguous, on sf's device: k_i of every group, or with
            `use_psum_layout` where each ends along K. What counts if it differs from `ks_cpu`.
        ks_cpu: k_i of every group as the host knows them; None or empty if it does not, which only
            the psum layout allows.
        gran_k: 32 or 128, elements along K that share a scale factor.
        k_alignment: of the places along K where groups begin in the psum layout, a multiple of
            gran_k; None for `get_mk_alignment_for_contiguous_layout()`.
        use_psum_layout: grouped_layout holds ends. Rows of sf between groups are skipped.
        ks: an older name of `ks_cpu`.
        ks_tensor: an older name of `grouped_layout`.

    Returns:
        int32 [sum(ceil(k_i / gran_k / 4)), mn], contiguous; without sizes on the host so many rows
        as there can be at most. Each group begins with a new row; rows behind the last group are
        zero.

    Raises:
        ArgumentError: an argument breaks a rule.
        ScaleFactorError: an earlier call's scale factors were not powers of two.
    """
    check_fp32(sf, dims=(2,))
    layout = _either("grouped_layout", grouped_layout, "ks_tensor", ks_tensor)
    if layout is None:
        refuse("grouped_layout", "must be given", None)
    _check_layout("grouped_layout", layout, sf)
    sizes = _either("ks_cpu", ks_cpu, "ks", ks)
    if gran_k not in SM100_GRAN_K:
        refuse("gran_k", "must be 32 or 128", gran_k)
    alignment = _k_alignment(k_alignment, gran_k) if use_psum_layout else None
    num_rows, mn = sf.shape
    if mn % SFS_OF_WORD:
        refuse("sf", "columns must be a multiple of 4, for rows of whole 16 bytes", mn)
    if sizes:
        num_words = _words_of_groups(sizes, layout.numel(), gran_k, None if alignment else num_rows)
    elif use_psum_layout:
        num_words = (num_rows + 3 * min(layout.numel(), num_rows)) // SFS_OF_WORD
    else:
        refuse("ks_cpu", "must be given without use_psum_layout", sizes)
    out = sf.new_empty((num_words, mn), dtype=torch.int32)
    reports = reports_of(sf.device)
    reports.check()
    k_grouped_pack_fp32_into_ue8m0(sf, out, layout, gran_k, alignment, reports.place_of("sf"))
    reports.settle()
    return out


def packed_ue8m0(
    sf: torch.Tensor, mn: int, gran_mn: int, psum_layout: torch.Tensor | None, report: int
) -> torch.Tensor:
    """FP32 scale factors of `gran_mn` rows each, packed into UE8M0 for each of `mn` rows; `report`
    is the address for a wrong value."""
    rows = None
    if psum_layout is not None:
        if sf.dim() != 2:
            refuse("psum_layout", "goes with scale factors of one matrix", tuple(sf.shape))
        _check_layout("psum_layout", psum_layout, sf)
        alignment = get_mk_alignment_for_contiguous_layout()
        ends = GroupedLayout.ROW_ENDS
        rows = GroupRows(ends, psum_layout, psum_layout.numel(), alignment)
    out = empty_packed(sf, mn)
    pack_fp32_into_ue8m0(sf, out, gran_mn, rows, report)
    return out


def empty_packed(sf: torch.Tensor, mn: int) -> torch.Tensor:
    """Where FP32 scale factors [.., k blocks] of `mn` rows go when they are packed."""
    shape = (*sf.shape[:-2], mn, ceil_div(sf.shape[-1], SFS_OF_WORD))
    strides = mn_major_strides(shape)
    return torch.empty_strided(shape, strides, dtype=torch.int32, device=sf.device)


def check_fp32(sf: torch.Tensor, dims: tuple[int, ...] = (2, 3)) -> None:
    """FP32 scale factors of so many dimensions."""
    check_is_tensor("sf", sf)
    if sf.dtype != torch.float32:
        refuse("sf", "must have dtype torch.float32", sf.dtype)
    if sf.dim() not in dims:
        rule = f"must have {' or '.join(map(str, dims))} dimensions"
        refuse("sf", rule, f"shape {tuple(sf.shape)}")
    check_device_type("sf", sf.device)


def _check_layout(argument: str, layout: torch.Tensor, sf: torch.Tensor) -> None:
    """Sizes or ends of groups, beside sf on its device."""
    check_is_tensor(argument, layout)
    if layout.dtype != torch.int32:
        refuse(argument, "must have dtype torch.int32", layout.dtype)
    if layout.device != sf.device:
        refuse(argument, f"must be on {sf.device}, the device of sf", layout.device)
    if not layout.is_contiguous() or layout.numel() == 0:
        rule = "must be contiguous, one number a group"
        refuse(argument, rule, f"shape {tuple(layout.shape)}, strides {tuple(layout.stride())}")


def _either(name: str, value: T | None, older_name: str, older: T | None) -> T | None:
    """The value of an argument that has two names."""
    if value is not None and older is not None:
        refuse(name, f"must be given, or {older_name} instead", "both")
    return older if value is None else value


def _k_alignment(k_alignment: int | None, gran_k: int) -> int:
    alignment = get_mk_alignment_for_contiguous_layout() if k_alignment is None else k_alignment
    check_positive("k_alignment", alignment)
    if alignment % gran_k:
        refuse("k_alignment", f"must be a multiple of gran_k = {gran_k}", alignment)
    return alignment


def _words_of_groups(
    sizes: Sequence[int], num_groups: int, gran_k: int, num_rows: int | None
) -> int:
    """Rows of packed scale factors; `num_rows` are those of the others, where these must agree."""
    if len(sizes) != num_groups or min(sizes) < 0:
        rule = f"must be {num_groups} sizes of at least 0, as grouped_layout has"
        refuse("ks_cpu", rule, list(sizes))
    # Without ceil_div: there may be hundreds of groups, and a call of it takes 0.1 us.
    rows = [-(-size // gran_k) for size in sizes]
    if num_rows is not None and sum(rows) != num_rows:
        refuse("sf", f"must have sum(ceil(ks_cpu / {gran_k})) = {sum(rows)} rows", num_rows)
    return sum([-(-count // SFS_OF_WORD) for count in rows])
