"""The layout of scale factors that a GEMM requires, by architecture and recipe.

SM90 takes FP32 scale factors. SM100 takes powers of two as UE8M0 bytes, four along K to a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm.checks import (
    check_device_type,
    check_is_tensor,
    check_positive,
    check_shape,
    refuse,
)
from deep_gemm.kernels.transpose import mn_major_strides
from deep_gemm.layout import (
    SFS_OF_WORD,
    SM100_GRAN_K,
    check_fp32,
    get_mn_major_tma_aligned_tensor,
    packed_ue8m0,
)
from deep_gemm.reports import reports_of, wrong_value
from deep_gemm.runtime.device import arch_of, is_capturing
from deep_gemm.scaling import check_scale_factors
from deep_gemm.utils.math import ceil_div

SM90_GRANULARITIES = ((1, 128), (128, 128))
"""Elements along MN and along K that share a scale factor of SM90."""


def transform_sf_into_required_layout(
    sf: torch.Tensor,
    mn: int,
    k: int,
    recipe: tuple[int, int, int] | tuple[int, int],
    num_groups: int | None = None,
    is_sfa: bool | None = None,
    disable_ue8m0_cast: bool = False,
    psum_layout: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scale factors as the GEMMs of the tensor's device take them; `sf` itself where it already is.

    On SM90: FP32 per 1 x 128 MN-major as `get_mn_major_tma_aligned_tensor` makes them, FP32 per
    128 x 128 as they are. On SM100: FP32 packed into UE8M0 for every row, int32 as they are. For
    tensors on the CPU, as on the emulated architecture.

    Args:
        sf: [ceil(mn / gran_mn), ceil(k / gran_k)] FP32, or int32 with four along K to a word;
            [num_groups, ..] if that is given.
        mn: rows of the operand.
        k: columns of the operand.
        recipe: (gran_m, gran_n, gran_k), which needs `is_sfa`, or (gran_mn, gran_k).
        num_groups: operands, if they are many.
        is_sfa: whether a recipe of three means A. Not with a recipe of two.
        disable_ue8m0_cast: refuses FP32 on SM100, whose GEMMs need the cast. Means nothing on SM90.
        psum_layout: as in `get_mn_major_tma_aligned_packed_ue8m0_tensor`.

    Raises:
        ArgumentError: an argument breaks a rule, or the architecture has no such scale factors.
        ScaleFactorError: they had to be powers of two. For SM100, those that `is_sfa` says to be
            of weights are checked at once, which waits for the device, unless a CUDA graph is
            captured; for others the next call on the device raises it.
        UnsupportedArchitectureError: there are no GEMMs for the device.
    """
    check_device_type("sf", check_is_tensor("sf", sf).device)
    gran = _granularity(recipe, is_sfa)
    if arch_of(sf.device) == "90a":
        if gran not in SM90_GRANULARITIES:
            rule = "must ask for scale factors per 1 x 128 or 128 x 128 on SM90"
            refuse("recipe", rule, f"{gran[0]} x {gran[1]} of {tuple(recipe)}")
        check_scale_factors("sf", sf, mn, k, gran, sf.device, num_groups)
        return get_mn_major_tma_aligned_tensor(sf) if gran[0] == 1 else sf
    sf = _checked_for_sm100(sf, mn, k, gran, num_groups, disable_ue8m0_cast)
    if sf.dtype == torch.int32:
        return sf
    reports = reports_of(sf.device)
    reports.check()
    if is_sfa is False and not is_capturing():
        return _packed_at_once(sf, mn, gran[0], psum_layout)
    packed = packed_ue8m0(sf, mn, gran[0], psum_layout, reports.place_of("sf"))
    reports.settle()
    return packed


def _packed_at_once(
    sf: torch.Tensor, mn: int, gran_mn: int, psum_layout: torch.Tensor | None
) -> torch.Tensor:
    """Weights' scale factors, which are packed once: worth waiting for whether they are right."""
    report = torch.zeros(1, dtype=torch.int32, device=sf.device)
    packed = packed_ue8m0(sf, mn, gran_mn, psum_layout, report.data_ptr())
    bits = int(report.item()) & 0xFFFFFFFF
    if bits:
        raise wrong_value("sf", bits)
    return packed


def _checked_for_sm100(
    sf: torch.Tensor,
    mn: int,
    k: int,
    gran: tuple[int, int],
    num_groups: int | None,
    disable_ue8m0_cast: bool,
) -> torch.Tensor:
    """The scale factors, which are FP32, or packed and as SM100 wants them."""
    gran_mn, gran_k = gran
    if gran_k not in SM100_GRAN_K:
        refuse("recipe", "must have gran_k 32 or 128 on SM100", gran_k)
    is_packed = sf.dtype == torch.int32
    front = () if num_groups is None else (num_groups,)
    elements = gran_k * SFS_OF_WORD if is_packed else gran_k
    shape = (*front, ceil_div(mn, gran_mn), ceil_div(k, elements))
    meaning = f"[ceil({mn} / {gran_mn}), ceil({k} / {elements})], behind num_groups if given,"
    check_shape("sf", sf, shape, meaning)
    if is_packed:
        strides = mn_major_strides(sf.shape)
        each = zip(sf.shape, sf.stride(), strides, strict=True)
        if gran_mn != 1:
            refuse("recipe", "must have gran_mn 1 for packed scale factors", gran_mn)
        if any(size > 1 and stride != wanted for size, stride, wanted in each):
            refuse("sf", f"packed, must have strides {strides}", f"strides {tuple(sf.stride())}")
        return sf
    check_fp32(sf)
    if disable_ue8m0_cast:
        refuse("disable_ue8m0_cast", "must be False for FP32 scale factors on SM100", True)
    return sf


def _granularity(recipe: Sequence[int], is_sfa: bool | None) -> tuple[int, int]:
    """Elements per scale factor along MN and along K."""
    if not isinstance(recipe, (tuple, list)) or len(recipe) not in (2, 3):
        refuse("recipe", "must be (gran_m, gran_n, gran_k) or (gran_mn, gran_k)", repr(recipe))
    for size in recipe:
        check_positive("recipe", size)
    if len(recipe) == 2:
        if is_sfa is not None:
            refuse("is_sfa", "must not be given with a recipe (gran_mn, gran_k)", is_sfa)
        return recipe[0], recipe[1]
    if is_sfa is None:
        refuse("is_sfa", "must be given with a recipe (gran_m, gran_n, gran_k)", None)
    return recipe[0] if is_sfa else recipe[1], recipe[2]
