"""Layouts of scale factors in plain PyTorch: what the packing kernels are held to."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deep_gemm.utils.math import align

_NAN = 255


def ue8m0_exponents(sf: torch.Tensor) -> torch.Tensor:
    """The UE8M0 byte of each FP32 scale factor: its biased exponent if it is a power of two or
    zero, else 255, which is UE8M0's NaN.

    Args:
        sf: any shape, FP32.

    Returns:
        uint8 of sf's shape.
    """
    mantissa, exponent = torch.frexp(sf)
    is_power = (mantissa == 0.5) & (exponent > -126)
    is_zero = sf.view(torch.int32) == 0
    # frexp's mantissa is in 0.5 .. 1, IEEE's in 1 .. 2.
    byte = torch.where(is_power, exponent + 126, torch.where(is_zero, 0, _NAN))
    return byte.to(torch.uint8)


def pack_ue8m0(sf: torch.Tensor, mn: int | None = None, gran_mn: int = 1) -> torch.Tensor:
    """UE8M0 scale factors, four along K to a word, the first in the low byte, zeros behind K's end.

    Args:
        sf: [.., ceil(mn / gran_mn), k] FP32.
        mn: rows of the result; None for those of sf.
        gran_mn: rows of the result that have one row of sf.

    Returns:
        int32 [.., mn, ceil(k / 4)], contiguous.
    """
    rows = torch.arange(sf.shape[-2] if mn is None else mn, device=sf.device) // gran_mn
    exponents = ue8m0_exponents(sf).index_select(-2, rows)
    k = sf.shape[-1]
    padded = torch.nn.functional.pad(exponents, (0, align(k, 4) - k))
    return padded.flatten().view(torch.int32).reshape(*padded.shape[:-1], -(-k // 4))


def pack_k_grouped_ue8m0(sf: torch.Tensor, ks: Sequence[int], gran_k: int) -> torch.Tensor:
    """The scale factors of groups one behind the other along K, each packed for itself.

    Args:
        sf: [sum(ceil(k_i / gran_k)), mn] FP32.
        ks: k_i of each group.
        gran_k: elements along K that share a scale factor.

    Returns:
        int32 [sum(ceil(k_i / gran_k / 4)), mn], contiguous.
    """
    groups = torch.split(sf, [-(-k // gran_k) for k in ks])
    return torch.cat([pack_ue8m0(group.T).T for group in groups])
