"""How far a result is from its reference, and what else a kernel wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from deep_gemm.errors import ArgumentError

_GUARD_BYTE = 0xA5
# Guard rows come in this number so that the guarded output stays aligned to 16 bytes for TMA.
_GUARD_ROW_UNIT = 16

NestedTensors = torch.Tensor | Iterable["NestedTensors"] | None


def calc_diff(x: torch.Tensor, y: torch.Tensor) -> float:
    """The reference library's distance: 1 - 2<x, y> / (<x, x> + <y, y>), in FP64.

    0.0 for equal tensors, 0.0 if both are zero. One wrong element among many hardly moves it: use
    `max_scaled_error` for that.

    Args:
        x, y: tensors of one shape, any real dtypes.
    """
    x, y = x.double(), y.double()
    denominator = (x * x + y * y).sum().item()
    if denominator == 0:
        return 0.0
    return 1.0 - 2.0 * (x * y).sum().item() / denominator


def max_scaled_error(out: torch.Tensor, ref: torch.Tensor) -> float:
    """The worst element's error in units of the reference's scale: max |out - ref| / rms(ref).

    This is `max_error` of the benchmark results. The scale is the root mean square of ref over all
    its elements, not each element's own size: sums of products cancel, and the error of an element
    depends on what was summed, not on what remained. Nor is it max |ref|, which one large element
    would raise for all the others.

    NaN and infinity are compared first: out must hold them exactly where ref, rounded to out's
    dtype, does; then those elements are left out.

    Args:
        out: [...] the result, any real dtype.
        ref: [...] the reference, of out's shape and device, as a rule FP64.

    Returns:
        0.0 or more; 0.0 if there are no elements to compare; infinity if out differs from a ref
        that is all zeros.

    Raises:
        AssertionError: the shapes differ, or NaN or infinity is not where it must be; the text
            says how often, and where first.
    """
    if out.shape != ref.shape:
        raise AssertionError(f"out is {tuple(out.shape)}, ref is {tuple(ref.shape)}")
    rounded = ref.to(out.dtype)
    _check_same_mask("NaN", out.isnan(), rounded.isnan())
    for name, value in (("+inf", math.inf), ("-inf", -math.inf)):
        _check_same_mask(name, out == value, rounded == value)
    finite = out.isfinite()
    ref = ref[finite].double()
    error = (out[finite].double() - ref).abs()
    worst = error.max().item() if error.numel() else 0.0
    if worst == 0:
        return 0.0
    scale = ref.square().mean().sqrt().item()
    return worst / scale if scale else math.inf


def assert_bitwise_equal(x: torch.Tensor, y: torch.Tensor, label: str = "") -> None:
    """Check that two tensors hold the same bits: NaN equals itself, and 0.0 is not -0.0.

    Args:
        x, y: tensors of one device, any strides.
        label: what is compared, for the message.

    Raises:
        AssertionError: the dtypes, the shapes or any bits differ.
    """
    prefix = f"{label}: " if label else ""
    if x.dtype != y.dtype or x.shape != y.shape:
        raise AssertionError(
            f"{prefix}{x.dtype} {tuple(x.shape)} is not {y.dtype} {tuple(y.shape)}"
        )
    differs = (_element_bytes(x) != _element_bytes(y)).any(dim=-1)
    if differs.any():
        where = _first_index(differs)
        raise AssertionError(
            f"{prefix}{int(differs.sum())} of {x.numel()} elements differ, first at {where}: "
            f"{x[where].item()} is not {y[where].item()}"
        )


def count_bytes(*tensors: NestedTensors) -> int:
    """The bytes that the tensors' elements take; lists and tuples are entered, None counts 0."""
    total = 0
    for item in tensors:
        if isinstance(item, torch.Tensor):
            total += item.numel() * item.element_size()
        elif item is not None:
            total += count_bytes(*item)
    return total


@dataclass(frozen=True)
class GuardedOutput:
    """An output that lies in a larger buffer, so that a write beside it is noticed.

    Attributes:
        buffer: [guard_rows + m + guard_rows, row_stride]; all bytes outside `view` are the guard.
        view: [m, n], the part that a kernel is to write, filled with NaN.
    """

    buffer: torch.Tensor
    view: torch.Tensor

    def check(self) -> None:
        """Check that no byte of the guard has changed.

        Raises:
            AssertionError: some have; the text says how many elements, and which first.
        """
        m, n = self.view.shape
        top = (self.buffer.shape[0] - m) // 2
        touched = (_element_bytes(self.buffer) != _GUARD_BYTE).any(dim=-1)
        touched[top : top + m, :n] = False
        if touched.any():
            row, col = _first_index(touched)
            raise AssertionError(
                f"{int(touched.sum())} elements outside the {m}x{n} output were written, first at "
                f"row {row - top}, column {col}"
            )


def guarded_output(
    m: int,
    n: int,
    dtype: torch.dtype = torch.bfloat16,
    device: torch.device | str = "cuda",
    row_stride: int | None = None,
    guard_rows: int = 256,
) -> GuardedOutput:
    """Make an [m, n] output full of NaN with a guard around it.

    Args:
        m, n: the output's shape.
        dtype: a floating-point dtype.
        device: where it lies.
        row_stride: elements from row to row, n by default; what exceeds n is guard too.
        guard_rows: rows of guard above, and below; a multiple of 16. The default holds the largest
            block that a kernel might store by mistake.

    Raises:
        ArgumentError: row_stride is below n, or guard_rows is not a positive multiple of 16.
    """
    row_stride = n if row_stride is None else row_stride
    if row_stride < n:
        raise ArgumentError(f"row_stride: must be at least n={n}, got {row_stride}")
    if guard_rows < 1 or guard_rows % _GUARD_ROW_UNIT != 0:
        raise ArgumentError(
            f"guard_rows: must be a positive multiple of {_GUARD_ROW_UNIT}, got {guard_rows}"
        )
    shape = (m + 2 * guard_rows, row_stride * dtype.itemsize)
    guard = torch.full(shape, _GUARD_BYTE, dtype=torch.uint8, device=device)
    buffer = guard.view(dtype)
    view = buffer[guard_rows : guard_rows + m, :n]
    view.fill_(math.nan)
    return GuardedOutput(buffer, view)


def _check_same_mask(name: str, out: torch.Tensor, ref: torch.Tensor) -> None:
    differs = out != ref
    if differs.any():
        where = _first_index(differs)
        holder = "out" if out[where] else "ref"
        raise AssertionError(
            f"{int(differs.sum())} of {out.numel()} elements are {name} in only one of out and "
            f"ref, first at {where}, in {holder}"
        )


def _element_bytes(x: torch.Tensor) -> torch.Tensor:
    """Each element's bytes, [..., itemsize] uint8."""
    return x.contiguous().unsqueeze(-1).view(torch.uint8)


def _first_index(mask: torch.Tensor) -> tuple[int, ...]:
    """The index of the first True element, in row-major order."""
    return tuple(int(i) for i in mask.nonzero()[0])
