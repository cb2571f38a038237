"""Scale factors of FP8 data made powers of two, as SM100 takes them."""

from __future__ import annotations

import torch

from deep_gemm.casting import Pair
from deep_gemm.checks import (
    check_device_type,
    check_is_tensor,
    check_operand,
    check_shape,
    check_tensor,
    refuse,
)
from deep_gemm.kernels.requantise import requantise
from deep_gemm.layout import packed_ue8m0
from deep_gemm.reports import reports_of
from deep_gemm.utils.math import ceil_div

GRAN_MN = (1, 128)
GRAN_K = (32, 64, 128)


def requantize_to_ue8m0(
    x: Pair, *, gran_mn: int = 128, gran_k: int = 128, use_packed_ue8m0: bool = False
) -> Pair:
    """FP8 data whose FP32 scale factors are anything, as FP8 data whose scale factors are powers of
    two: both are made anew, together, by one kernel on the current stream. Runs on SM90 too.

    Each scale factor is rounded up to sf', and data becomes data * (sf / sf'), in FP32, rounded to
    FP8. So a value moves by at most half a step of FP8, 2**-4 of it where it is no subnormal number
    of FP8 afterwards; data that was quantised with powers of two stays as it is.

    Args:
        x: (data, sf): [rows, k] or [groups, rows, k] float8_e4m3fn with contiguous rows, and FP32
            [.., ceil(rows / gran_mn), ceil(k / gran_k)], any strides.
        gran_mn: rows that share a scale factor: 128 as in weights, or 1.
        gran_k: elements along K that share one: 32, 64 or 128.
        use_packed_ue8m0: pack the scale factors for SM100, for every row, by a second kernel; with
            gran_k 32 or 128.

    Returns:
        data: of x's shape, contiguous.
        sf: of the shape of x's, contiguous FP32; packed as by
            `get_mn_major_tma_aligned_packed_ue8m0_tensor`. At least 2**-126; NaN where x's is
            negative, above 2**127, infinite or NaN.

    Raises:
        ArgumentError: an argument breaks one of these rules.
        ScaleFactorError: an earlier call's scale factors were not powers of two.

    Example:
        >>> weight = per_block_cast_to_fp8(torch.randn(2048, 7168, device="cuda"), use_ue8m0=False)
        >>> data, sf = requantize_to_ue8m0(weight, use_packed_ue8m0=True)
    """
    data, sf = check_operand("x", x)
    check_is_tensor("x[0]", data)
    if data.dim() not in (2, 3):
        refuse("x[0]", "must have 2 or 3 dimensions", f"shape {tuple(data.shape)}")
    check_tensor("x[0]", data, data.dim(), torch.float8_e4m3fn, data.device)
    check_device_type("x[0]", data.device)
    check_tensor("x[1]", sf, data.dim(), torch.float32, data.device)
    for name, gran, known in (("gran_mn", gran_mn, GRAN_MN), ("gran_k", gran_k, GRAN_K)):
        if gran not in known:
            refuse(name, f"must be one of {known}", gran)
    if use_packed_ue8m0 and gran_k == 64:
        refuse("gran_k", "must be 32 or 128 for packed scale factors", gran_k)
    *batch, rows, k = data.shape
    shape = (*batch, ceil_div(rows, gran_mn), ceil_div(k, gran_k))
    check_shape("x[1]", sf, shape, f"[.., ceil({rows} / {gran_mn}), ceil({k} / {gran_k})]")
    if k > 1 and data.stride(-1) != 1:
        refuse("x[0]", "must have contiguous rows", f"strides {tuple(data.stride())}")
    out = torch.empty(data.shape, dtype=data.dtype, device=data.device)
    powers = torch.empty(shape, dtype=torch.float32, device=data.device)
    requantise(data, sf, out, powers, (gran_mn, gran_k))
    if not use_packed_ue8m0:
        return out, powers
    reports = reports_of(data.device)
    reports.check()
    packed = packed_ue8m0(powers, rows, gran_mn, None, reports.place_of("sf"))
    reports.settle()
    return out, packed
