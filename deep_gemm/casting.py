"""From a cast's arguments to a launch: checks, outputs, and the kernel's configuration.

Both doors of quantize.py come through here: the classic casts, and those that say more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

from deep_gemm.checks import MAX_DIMENSION, check_is_tensor, check_shape, refuse
from deep_gemm.kernels.block_cast import TILE, BlockCastConfig, block_cast
from deep_gemm.kernels.cast import INPUTS, CastRows, SfFormat
from deep_gemm.kernels.per_token_cast import GRANULARITIES, PerTokenCast, PerTokenCastConfig
from deep_gemm.settings import get_mk_alignment_for_contiguous_layout
from deep_gemm.utils.math import align, ceil_div

TMA_WORDS = 4
"""Words of 4 bytes in TMA's alignment."""

Pair = tuple[torch.Tensor, torch.Tensor]


class Selection(NamedTuple):
    """Which rows are cast, as callers say it; see `quantize_per_token`."""

    masked_m: torch.Tensor | None = None
    grouped_layout: torch.Tensor | None = None
    use_psum_layout: bool = False


@dataclass(frozen=True)
class Scaling:
    """What scale factors are to be, as callers say it; see `quantize_per_token`."""

    use_ue8m0: bool
    use_packed_ue8m0: bool = False
    gran_k: int = 128
    mn_major: bool = False

    def check(self) -> None:
        """Refuses what cannot be packed.

        Raises:
            ArgumentError: packed, but not powers of two.
        """
        if self.use_packed_ue8m0 and not self.use_ue8m0:
            refuse("use_packed_ue8m0", "needs use_ue8m0=True", "use_ue8m0=False")

    @property
    def format(self) -> SfFormat:
        """How they are written."""
        if self.use_packed_ue8m0:
            return SfFormat.PACKED_UE8M0
        return SfFormat.UE8M0 if self.use_ue8m0 else SfFormat.FP32


EVERY_ROW = Selection()


def cast_per_token(
    x: torch.Tensor,
    scaling: Scaling,
    selection: Selection = EVERY_ROW,
    up: torch.Tensor | None = None,
    clamp: float | None = None,
    out: Pair | None = None,
) -> Pair:
    """Casts x, or SiLU(x) * up, with one scale factor per row and gran_k columns, by the kernel.

    Args:
        x: [m, n], or [groups, m_max, n] with masked_m; BF16, FP16 or FP32, contiguous columns.
        scaling: what the scale factors are to be.
        selection: which rows are cast.
        up: like x.
        clamp: limits x and up first.
        out: where to write.

    Raises:
        ArgumentError: an argument breaks a rule of the public functions.
    """
    check_input("x", x, dims=2 if selection.masked_m is None else 3)
    if scaling.gran_k not in GRANULARITIES:
        refuse("gran_k", f"must be one of {GRANULARITIES}", scaling.gran_k)
    scaling.check()
    rows, layout = _rows_of(selection, x)
    blocks = ceil_div(x.shape[-1], scaling.gran_k)
    words = ceil_div(blocks, 4) if scaling.use_packed_ue8m0 else blocks
    dtype = torch.int32 if scaling.use_packed_ue8m0 else torch.float32
    sf_shape = (*x.shape[:-1], words)
    data, sf = _outputs(x, sf_shape, dtype, out, scaling.mn_major)
    if clamp is not None and not clamp >= 0:
        refuse("clamp", "must not be negative", clamp)
    if data.numel():
        PerTokenCast(
            config=PerTokenCastConfig(
                x.dtype, scaling.gran_k, scaling.format, rows, up is not None, clamp is not None
            ),
            x=x,
            up=up,
            data=data,
            sf=sf,
            grouped_layout=layout,
            alignment=get_mk_alignment_for_contiguous_layout(),
            clamp=math.inf if clamp is None else clamp,
        ).launch()
    return data, sf


def cast_blocks(
    x: torch.Tensor,
    use_ue8m0: bool,
    per_channel: bool,
    mn_major: bool = False,
    out: Pair | None = None,
) -> Pair:
    """Casts x with one scale factor per 128 rows and column, or per 128 x 128, by the kernel.

    Args:
        x: [m, n] or [batch, m, n] BF16, FP16 or FP32, contiguous columns.
        use_ue8m0: round the scale factors up to powers of two.
        per_channel: a scale factor for every column.
        mn_major: rows of scale factors begin at multiples of 16 bytes.
        out: where to write.

    Raises:
        ArgumentError: an argument breaks a rule of the public functions.
    """
    check_input("x", x, dims=3 if x.dim() == 3 else 2)
    m, n = x.shape[-2:]
    sf_shape = (*x.shape[:-2], ceil_div(m, TILE), n if per_channel else ceil_div(n, TILE))
    padding = -n % TMA_WORDS if mn_major else 0
    data, sf = _outputs(x, sf_shape, torch.float32, out, mn_major=False, padding=padding)
    if data.numel():
        block_cast(BlockCastConfig(x.dtype, use_ue8m0, per_channel), x, data, sf)
    return data, sf


def check_input(argument: str, x: torch.Tensor, dims: int) -> None:
    """A tensor that the kernels take.

    Raises:
        ArgumentError: it is not; the text says why.
    """
    check_is_tensor(argument, x)
    if x.dtype not in INPUTS:
        refuse(argument, "must be BF16, FP16 or FP32", x.dtype)
    if x.dim() != dims:
        refuse(argument, f"must have {dims} dimensions", f"shape {tuple(x.shape)}")
    if x.device.type not in ("cuda", "cpu"):
        refuse(argument, "must be on a CUDA device, or on the CPU for the emulator", x.device)
    if x.shape[-1] > 1 and x.stride(-1) != 1:
        refuse(argument, "must have contiguous columns", f"strides {x.stride()}")
    if max(x.shape) > MAX_DIMENSION:
        refuse(argument, f"dimensions must be at most {MAX_DIMENSION}", tuple(x.shape))


def _rows_of(selection: Selection, x: torch.Tensor) -> tuple[CastRows, torch.Tensor | None]:
    masked_m, layout, use_psum_layout = selection
    if masked_m is not None and layout is not None:
        refuse("grouped_layout", "must not be given together with masked_m", "both")
    if use_psum_layout and layout is None:
        refuse("use_psum_layout", "needs a grouped_layout", "none")
    if masked_m is not None:
        _check_layout("masked_m", masked_m, x, x.shape[0])
        return CastRows.COUNTS, masked_m
    if layout is None:
        return CastRows.ALL, None
    _check_layout("grouped_layout", layout, x, None if use_psum_layout else x.shape[0])
    return CastRows.ENDS if use_psum_layout else CastRows.IDS, layout


def _check_layout(argument: str, layout: torch.Tensor, x: torch.Tensor, size: int | None) -> None:
    check_is_tensor(argument, layout)
    if layout.dtype != torch.int32:
        refuse(argument, "must have dtype torch.int32", layout.dtype)
    if layout.dim() != 1 or not layout.is_contiguous():
        got = f"shape {tuple(layout.shape)}, strides {layout.stride()}"
        refuse(argument, "must be a contiguous vector", got)
    if layout.device != x.device:
        refuse(argument, f"must be on {x.device}, the device of x", layout.device)
    if size is not None and layout.shape[0] != size:
        refuse(argument, f"must have one number for each of {size}", f"{layout.shape[0]}")


def _outputs(
    x: torch.Tensor,
    sf_shape: tuple[int, ...],
    dtype: torch.dtype,
    out: Pair | None,
    mn_major: bool,
    padding: int = 0,
) -> Pair:
    """The caller's outputs, checked, or new ones; `padding` words lie behind each row of sf."""
    if out is not None:
        return _checked_outputs(x, sf_shape, dtype, out)
    data = x.new_empty(x.shape, dtype=torch.float8_e4m3fn)
    rows, columns = sf_shape[-2:]
    if mn_major:
        step = align(rows, TMA_WORDS)
        strides = (step * columns, 1, step)
    else:
        step = columns + padding
        strides = (step * rows, step, 1)
    return data, x.new_empty_strided(sf_shape, strides[-len(sf_shape) :], dtype=dtype)


def _checked_outputs(
    x: torch.Tensor, sf_shape: tuple[int, ...], dtype: torch.dtype, out: Pair
) -> Pair:
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        refuse("out", "must be a pair (data, scale factors)", type(out).__name__)
    data, sf = out
    wanted = (
        ("out[0]", data, tuple(x.shape), torch.float8_e4m3fn),
        ("out[1]", sf, sf_shape, dtype),
    )
    for argument, tensor, shape, of in wanted:
        check_is_tensor(argument, tensor)
        check_shape(argument, tensor, shape, "that of the result")
        if tensor.dtype != of:
            refuse(argument, f"must have dtype {of}", tensor.dtype)
        if tensor.device != x.device:
            refuse(argument, f"must be on {x.device}, the device of x", tensor.device)
    if data.shape[-1] > 1 and data.stride(-1) != 1:
        refuse("out[0]", "must have contiguous columns", f"strides {data.stride()}")
    return data, sf
