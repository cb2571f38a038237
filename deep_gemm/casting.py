"""From a cast's arguments to a launch: checks, outputs, and the kernel's configuration.

Both doors of quantize.py come through here: the classic casts, and those that say more. The first
call of a kind checks and plans; later ones allocate and launch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.compiler import is_dynamo_compiling

from deep_gemm.call_cache import CallCache
from deep_gemm.checks import MAX_DIMENSION, check_is_tensor, check_shape, refuse
from deep_gemm.kernels.block_cast import TILE, BlockCastConfig, plan_block_cast
from deep_gemm.kernels.cast import INPUTS, CastRows, SfFormat
from deep_gemm.kernels.per_token_cast import GRANULARITIES, PerTokenCast, PerTokenCastConfig
from deep_gemm.runtime.launch import Plan
from deep_gemm.settings import Settings, current
from deep_gemm.tracing import has_no_memory
from deep_gemm.utils.math import align, ceil_div

TMA_WORDS = 4
"""Words of 4 bytes in TMA's alignment."""

Pair = tuple[torch.Tensor, torch.Tensor]


class Selection(NamedTuple):
    """Which rows are cast, as callers say it; see `quantize_per_token`."""

    masked_m: torch.Tensor | None = None
    grouped_layout: torch.Tensor | None = None
    use_psum_layout: bool = False


class Scaling(NamedTuple):
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


class _SfGeometry(NamedTuple):
    """Scale factors that a call may have to allocate."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class _Call(NamedTuple):
    """A kind of call: its scale factors, and its launch if there is anything to do."""

    sf: _SfGeometry
    plan: Plan | None


EVERY_ROW = Selection()

_calls: CallCache[_Call] = CallCache()


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
    masked_m, grouped_layout, use_psum_layout = selection
    if is_dynamo_compiling() or has_no_memory(x):
        data, sf = out or _new_outputs(x, _sf_per_token(x, scaling))
        torch.ops.deep_gemm.quantize_per_token(x, up, data, sf, *scaling, *selection, clamp)
        return data, sf
    settings = current()
    key = (
        _kind(x),
        scaling,
        _kind(masked_m),
        _kind(grouped_layout),
        use_psum_layout,
        _kind(up),
        clamp,
        _kinds(out),
        settings,
    )
    call = _calls.get(key)
    if call is None:
        call = _plan_per_token(x, scaling, selection, up, clamp, out, settings)
        _calls.remember(key, call)
    data, sf = out or _new_outputs(x, call.sf)
    if call.plan is not None:
        layout = grouped_layout if masked_m is None else masked_m
        call.plan.launch(*PerTokenCast(x, up, data, sf, layout).addresses())
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
    if is_dynamo_compiling() or has_no_memory(x):
        data, sf = out or _new_outputs(x, _sf_of_blocks(x, per_channel, mn_major))
        torch.ops.deep_gemm.quantize_blocks(x, data, sf, use_ue8m0, per_channel, mn_major)
        return data, sf
    key = (_kind(x), use_ue8m0, per_channel, mn_major, _kinds(out))
    call = _calls.get(key)
    if call is None:
        call = _calls.remember(key, _plan_blocks(x, use_ue8m0, per_channel, mn_major, out))
    data, sf = out or _new_outputs(x, call.sf)
    if call.plan is not None:
        call.plan.launch(x.data_ptr(), data.data_ptr(), sf.data_ptr())
    return data, sf


def _kind(tensor: object) -> object:
    """All of a tensor but its address; the type of what is none."""
    if not isinstance(tensor, torch.Tensor):
        return type(tensor)
    return tensor.shape, tensor.stride(), tensor.dtype, tensor.device


def _kinds(out: object) -> object:
    return tuple(map(_kind, out)) if isinstance(out, (tuple, list)) else type(out)


def _plan_per_token(
    x: torch.Tensor,
    scaling: Scaling,
    selection: Selection,
    up: torch.Tensor | None,
    clamp: float | None,
    out: Pair | None,
    settings: Settings,
) -> _Call:
    check_input("x", x, dims=2 if selection.masked_m is None else 3)
    if scaling.gran_k not in GRANULARITIES:
        refuse("gran_k", f"must be one of {GRANULARITIES}", scaling.gran_k)
    scaling.check()
    rows, layout = _rows_of(selection, x)
    if clamp is not None and not clamp >= 0:
        refuse("clamp", "must not be negative", clamp)
    sf = _sf_per_token(x, scaling)
    tensors = PerTokenCast(x, up, *_outputs(x, sf, out), layout)
    if x.numel() == 0:
        return _Call(sf, None)
    activation = up is not None, clamp is not None
    config = PerTokenCastConfig(x.dtype, scaling.gran_k, scaling.format, rows, *activation)
    return _Call(sf, tensors.plan(config, math.inf if clamp is None else clamp, settings))


def _plan_blocks(
    x: torch.Tensor, use_ue8m0: bool, per_channel: bool, mn_major: bool, out: Pair | None
) -> _Call:
    check_is_tensor("x", x)
    check_input("x", x, dims=3 if x.dim() == 3 else 2)
    sf = _sf_of_blocks(x, per_channel, mn_major)
    outputs = _outputs(x, sf, out)
    if x.numel() == 0:
        return _Call(sf, None)
    return _Call(sf, plan_block_cast(BlockCastConfig(x.dtype, use_ue8m0, per_channel), x, *outputs))


def _sf_per_token(x: torch.Tensor, scaling: Scaling) -> _SfGeometry:
    m, n = x.shape[-2:]
    per_word = 4 if scaling.use_packed_ue8m0 else 1
    columns = ceil_div(n, scaling.gran_k * per_word)
    step = align(m, TMA_WORDS)
    strides = (step * columns, 1, step) if scaling.mn_major else (m * columns, columns, 1)
    dtype = torch.int32 if scaling.use_packed_ue8m0 else torch.float32
    return _SfGeometry((*x.shape[:-1], columns), strides[-x.dim() :], dtype)


def _sf_of_blocks(x: torch.Tensor, per_channel: bool, mn_major: bool) -> _SfGeometry:
    m, n = x.shape[-2:]
    rows, columns = ceil_div(m, TILE), n if per_channel else ceil_div(n, TILE)
    step = align(columns, TMA_WORDS) if mn_major else columns
    strides = (rows * step, step, 1)[-x.dim() :]
    return _SfGeometry((*x.shape[:-2], rows, columns), strides, torch.float32)


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


def _new_outputs(x: torch.Tensor, sf: _SfGeometry) -> Pair:
    data = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    return data, torch.empty_strided(sf.shape, sf.strides, dtype=sf.dtype, device=x.device)


def _outputs(x: torch.Tensor, geometry: _SfGeometry, out: Pair | None) -> Pair:
    """The caller's outputs, checked, or new ones."""
    if out is None:
        return _new_outputs(x, geometry)
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        refuse("out", "must be a pair (data, scale factors)", type(out).__name__)
    data, sf = out
    for argument, tensor, shape, dtype in (
        ("out[0]", data, tuple(x.shape), torch.float8_e4m3fn),
        ("out[1]", sf, geometry.shape, geometry.dtype),
    ):
        check_is_tensor(argument, tensor)
        check_shape(argument, tensor, shape, "that of the result")
        if tensor.dtype != dtype:
            refuse(argument, f"must have dtype {dtype}", tensor.dtype)
        if tensor.device != x.device:
            refuse(argument, f"must be on {x.device}, the device of x", tensor.device)
    if data.shape[-1] > 1 and data.stride(-1) != 1:
        refuse("out[0]", "must have contiguous columns", f"strides {data.stride()}")
    return data, sf
