"""Casts to FP8 by our kernels, with all that they can do. CPU tensors go to the emulator.

Nothing here waits for the device, and every call can be part of a CUDA graph.
"""

from __future__ import annotations

import torch

from deep_gemm.casting import (
    Pair,
    Scaling,
    Selection,
    cast_blocks,
    cast_per_token,
    check_input,
)
from deep_gemm.checks import check_shape, check_tensor, refuse


def quantize_per_token(
    x: torch.Tensor,
    *,
    use_ue8m0: bool = False,
    use_packed_ue8m0: bool = False,
    gran_k: int = 128,
    mn_major: bool = True,
    masked_m: torch.Tensor | None = None,
    grouped_layout: torch.Tensor | None = None,
    use_psum_layout: bool = False,
    out: Pair | None = None,
) -> Pair:
    """Cast with one scale factor per row and gran_k columns, on the current stream.

    Which rows are cast is read on the device; the others are neither read nor written. Without
    masked_m and grouped_layout it is all of them.

    Args:
        x: [m, n] BF16, FP16 or FP32, contiguous columns, any row stride; fast if rows begin at
            multiples of 16 bytes. With masked_m [groups, m_max, n].
        use_ue8m0: round the scale factors up to powers of two.
        use_packed_ue8m0: write the scale factors' exponents only, four in an int32; with use_ue8m0.
        gran_k: columns that share a scale factor: 32, 64 or 128.
        mn_major: lay new scale factors out as the GEMM loads them.
        masked_m: int32 [groups], contiguous: so many of each group's first rows are cast.
        grouped_layout: int32, contiguous, for x [m, n]. [m]: rows with a negative number are not
            cast. With `use_psum_layout` [groups]: the row behind each group's last; groups begin at
            multiples of `get_mk_alignment_for_contiguous_layout()`.
        use_psum_layout: what `grouped_layout` holds.
        out: (data, sf) to write to, of the shapes and dtypes of the result: data with contiguous
            columns, sf with any strides. They must not overlap with each other or with inputs.

    Returns:
        data: float8_e4m3fn of x's shape: x * (1 / sf), rounded to nearest even.
        sf: [.., m, ceil(n / gran_k)] FP32: max(amax, 1e-4) / 448 of each block. Packed: [.., m,
            ceil(n / (4 * gran_k))] int32, the first of four blocks in the low byte, zero for blocks
            behind the last. A new one has strides (.., 1, align(m, 4)) if mn_major, else it is
            contiguous.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    scaling = Scaling(use_ue8m0, use_packed_ue8m0, gran_k, mn_major)
    selection = Selection(masked_m, grouped_layout, use_psum_layout)
    return cast_per_token(x, scaling, selection, out=out)


def quantize_swiglu(
    x: torch.Tensor,
    *,
    clamp: float | None = None,
    use_ue8m0: bool = False,
    use_packed_ue8m0: bool = False,
    gran_k: int = 128,
    mn_major: bool = True,
    masked_m: torch.Tensor | None = None,
    grouped_layout: torch.Tensor | None = None,
    use_psum_layout: bool = False,
    out: Pair | None = None,
) -> Pair:
    """Cast SiLU(gate) * up, gate and up the halves of x, with one scale factor per row and gran_k
    columns, on the current stream.

    The product is FP32, every operation rounded once: gate / (1 + exp(-gate)) * up. It is not
    rounded to x's dtype before it is cast.

    Args:
        x: [m, 2 * n] BF16, FP16 or FP32, contiguous columns: gate, then up. Fast if rows and their
            halves begin at multiples of 16 bytes. With masked_m [groups, m_max, 2 * n].
        clamp: gate is limited to at most this, and up to at most this in magnitude, first.
        use_ue8m0, use_packed_ue8m0, gran_k, mn_major, masked_m, grouped_layout, use_psum_layout,
            out: see `quantize_per_token`; x is [.., n] there.

    Returns:
        (data, sf), data [.., m, n], as `quantize_per_token` gives them.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    check_input("x", x, dims=2 if masked_m is None else 3)
    if x.shape[-1] % 2:
        refuse("x", "must have an even number of columns", tuple(x.shape))
    gate, up = x.chunk(2, dim=-1)
    scaling = Scaling(use_ue8m0, use_packed_ue8m0, gran_k, mn_major)
    selection = Selection(masked_m, grouped_layout, use_psum_layout)
    return cast_per_token(gate, scaling, selection, up, clamp, out)


def quantize_silu_mul(
    gate: torch.Tensor,
    up: torch.Tensor,
    *,
    clamp: float | None = None,
    use_ue8m0: bool = False,
    use_packed_ue8m0: bool = False,
    gran_k: int = 128,
    mn_major: bool = True,
    masked_m: torch.Tensor | None = None,
    grouped_layout: torch.Tensor | None = None,
    use_psum_layout: bool = False,
    out: Pair | None = None,
) -> Pair:
    """As `quantize_swiglu`, of gate and up that are tensors for themselves.

    Args:
        gate: [m, n] BF16, FP16 or FP32, contiguous columns, any row stride; with masked_m
            [groups, m_max, n].
        up: like gate; strides may differ.
        clamp: gate is limited to at most this, and up to at most this in magnitude, first.
        use_ue8m0, use_packed_ue8m0, gran_k, mn_major, masked_m, grouped_layout, use_psum_layout,
            out: see `quantize_per_token`.

    Returns:
        (data, sf), as `quantize_per_token` gives them.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    dims = 2 if masked_m is None else 3
    check_input("gate", gate, dims)
    check_input("up", up, dims)
    check_shape("up", up, tuple(gate.shape), "that of gate")
    check_tensor("up", up, dims, gate.dtype, gate.device)
    scaling = Scaling(use_ue8m0, use_packed_ue8m0, gran_k, mn_major)
    selection = Selection(masked_m, grouped_layout, use_psum_layout)
    return cast_per_token(gate, scaling, selection, up, clamp, out)


def quantize_per_channel(
    x: torch.Tensor, *, use_ue8m0: bool = False, mn_major: bool = True, out: Pair | None = None
) -> Pair:
    """Cast with one scale factor per 128 rows and column, on the current stream.

    `sf.mT` are the scale factors of `data.mT`, per row and 128 columns, as a weight gradient's GEMM
    takes them.

    Args:
        x: [m, n] or [batch, m, n] BF16, FP16 or FP32, contiguous columns; fast if rows begin at
            multiples of 16 bytes. The last block of rows may be partial.
        use_ue8m0: round the scale factors up to powers of two.
        mn_major: lay new scale factors out as that GEMM loads them.
        out: (data, sf) to write to, of the shapes and dtypes of the result: data with contiguous
            columns, sf with any strides. They must not overlap with each other or with x.

    Returns:
        data: float8_e4m3fn of x's shape: x * (1 / sf), rounded to nearest even.
        sf: [.., ceil(m / 128), n] FP32: max(amax, 1e-4) / 448 of each block. A new one has rows
            that begin at multiples of 16 bytes if mn_major, else it is contiguous.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    return cast_blocks(x, use_ue8m0, True, mn_major, out)


def quantize_per_block(
    x: torch.Tensor, *, use_ue8m0: bool = False, out: Pair | None = None
) -> Pair:
    """Cast with one scale factor per 128 x 128, on the current stream.

    Args:
        x: [m, n] or [batch, m, n] BF16, FP16 or FP32, contiguous columns; fast if rows begin at
            multiples of 16 bytes. The last blocks may be partial.
        use_ue8m0: round the scale factors up to powers of two.
        out: (data, sf) to write to, of the shapes and dtypes of the result: data with contiguous
            columns, sf with any strides. They must not overlap with each other or with x.

    Returns:
        data: float8_e4m3fn of x's shape: x * (1 / sf), rounded to nearest even.
        sf: [.., ceil(m / 128), ceil(n / 128)] FP32, a new one contiguous: max(amax, 1e-4) / 448 of
            each block.

    Raises:
        ArgumentError: an argument breaks one of these rules.
    """
    return cast_blocks(x, use_ue8m0, False, out=out)
