"""Argument checks: each raises ArgumentError with the argument, the rule and what was got."""

from __future__ import annotations

from typing import NoReturn

import torch

from deep_gemm.errors import ArgumentError

TMA_ALIGNMENT = 16
"""Bytes to which TMA wants addresses and row strides aligned."""

MAX_DIMENSION = 2**31 - 1
"""TMA coordinates are signed 32-bit."""


def refuse(argument: str, rule: str, got: object) -> NoReturn:
    """Refuses a call.

    Raises:
        ArgumentError: always.
    """
    raise ArgumentError(f"argument {argument}: {rule}, got {got}")


def check_operand(argument: str, operand: object) -> tuple[torch.Tensor, torch.Tensor]:
    """An FP8 operand: the pair (data, scale factors), as a tuple or a list."""
    if not isinstance(operand, (tuple, list)) or len(operand) != 2:
        refuse(argument, "must be a pair (data, scale factors)", type(operand).__name__)
    data, sf = operand
    check_is_tensor(f"{argument}[0]", data)
    check_is_tensor(f"{argument}[1]", sf)
    return data, sf


def check_is_tensor(argument: str, value: object) -> None:
    """The argument is a tensor."""
    if not isinstance(value, torch.Tensor):
        refuse(argument, "must be a torch.Tensor", type(value).__name__)


def check_matrix(
    argument: str, tensor: torch.Tensor, dtype: torch.dtype, device: torch.device
) -> None:
    """Two dimensions, the dtype, and the device of the call: a CUDA device, or the CPU."""
    if tensor.dim() != 2:
        refuse(argument, "must have 2 dimensions", f"shape {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        refuse(argument, f"must have dtype {dtype}", tensor.dtype)
    if device.type not in ("cuda", "cpu"):
        refuse(argument, "must be on a CUDA device, or on the CPU for the emulator", device)
    if tensor.device != device:
        refuse(argument, f"must be on {device}, the device of a[0]", tensor.device)


def check_shape(argument: str, tensor: torch.Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """The exact shape; `meaning` says in symbols where it comes from."""
    if tuple(tensor.shape) != shape:
        refuse(argument, f"must have shape {meaning} = {shape}", f"shape {tuple(tensor.shape)}")


def check_dimensions(m: int, n: int, k: int) -> None:
    """All dimensions fit a TMA coordinate."""
    for name, value in (("m", m), ("n", n), ("k", k)):
        if value > MAX_DIMENSION:
            refuse("a, b, d", f"{name} must be at most {MAX_DIMENSION}", value)


def check_tma_rows(argument: str, tensor: torch.Tensor) -> None:
    """Rows are contiguous, of whole 16 bytes, at a stride that TMA takes.

    Whole 16 bytes because TMA cuts a row's end off in these units: on an H100 a store into 130
    columns of BF16 was seen to write 136. Addresses are checked per call.
    """
    rows, columns = tensor.shape
    stride = tuple(tensor.stride())
    row_bytes = columns * tensor.element_size()
    if row_bytes % TMA_ALIGNMENT:
        rule = f"columns must take a multiple of {TMA_ALIGNMENT} bytes"
        refuse(argument, rule, f"{columns} columns of {tensor.element_size()} byte(s)")
    if columns > 1 and stride[1] != 1:
        refuse(argument, "must be row-major (last stride 1)", f"strides {stride}")
    if rows <= 1:
        return
    stride_bytes = stride[0] * tensor.element_size()
    if stride_bytes % TMA_ALIGNMENT:
        rule = f"row stride must be a multiple of {TMA_ALIGNMENT} bytes"
        refuse(argument, rule, f"{stride_bytes} bytes")
    if stride[0] < columns:
        refuse(argument, f"rows must not overlap (row stride >= {columns})", f"strides {stride}")


def check_address(argument: str, address: int, alignment: int) -> None:
    """The tensor's first byte is aligned."""
    if address % alignment:
        refuse(argument, f"must start at a multiple of {alignment} bytes", f"address {address:#x}")
