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


def check_is_tensor(argument: str, value: object) -> torch.Tensor:
    """The argument, which is a tensor."""
    if not isinstance(value, torch.Tensor):
        refuse(argument, "must be a torch.Tensor", type(value).__name__)
    return value


def check_fp8(argument: str, data: torch.Tensor, dims: int, device: torch.device) -> None:
    """FP8 data of an operand: the number of dimensions, the dtype, and the device of the call."""
    check_not_fp4(argument, data)
    check_tensor(argument, data, dims, torch.float8_e4m3fn, device)


def check_not_fp4(argument: str, data: torch.Tensor) -> None:
    """Data that is not FP4, which is packed into int8."""
    if data.dtype == torch.int8:
        rule = "must have dtype torch.float8_e4m3fn on SM90 (packed FP4 operands are for SM100)"
        refuse(argument, rule, data.dtype)


def check_tensor(
    argument: str, tensor: torch.Tensor, dims: int, dtype: torch.dtype, device: torch.device
) -> None:
    """The number of dimensions, the dtype, and the device of the call: CUDA, or the CPU."""
    if tensor.dim() != dims:
        refuse(argument, f"must have {dims} dimension(s)", f"shape {tuple(tensor.shape)}")
    if tensor.dtype != dtype:
        refuse(argument, f"must have dtype {dtype}", tensor.dtype)
    check_device_type(argument, device)
    if tensor.device != device:
        refuse(argument, f"must be on {device}, the device of a[0]", tensor.device)


def check_device_type(argument: str, device: torch.device) -> None:
    """A device that kernels, or the emulator, can reach."""
    if device.type not in ("cuda", "cpu"):
        refuse(argument, "must be on a CUDA device, or on the CPU for the emulator", device)


def check_shape(argument: str, tensor: torch.Tensor, shape: tuple[int, ...], meaning: str) -> None:
    """The exact shape; `meaning` says in symbols where it comes from."""
    if tuple(tensor.shape) != shape:
        refuse(argument, f"must have shape {meaning} = {shape}", f"shape {tuple(tensor.shape)}")


def check_dimensions(m: int, n: int, k: int) -> None:
    """All dimensions fit a TMA coordinate."""
    for name, value in (("m", m), ("n", n), ("k", k)):
        if value > MAX_DIMENSION:
            refuse("a, b, d", f"{name} must be at most {MAX_DIMENSION}", value)


def check_output(argument: str, d: torch.Tensor, dims: int, device: torch.device) -> None:
    """The number of dimensions, BF16 or FP32, and the device of the call."""
    if d.dtype not in (torch.bfloat16, torch.float32):
        refuse(argument, "must have dtype torch.bfloat16 or torch.float32", d.dtype)
    check_tensor(argument, d, dims, d.dtype, device)


def check_positive(argument: str, value: object) -> None:
    """An int above 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        refuse(argument, "must be a positive int", repr(value))


def check_index(argument: str, index: torch.Tensor, device: torch.device) -> None:
    """Integers that the kernel reads: int32, contiguous, on the device of the call."""
    if index.dtype != torch.int32:
        refuse(argument, "must have dtype torch.int32", index.dtype)
    if index.device != device:
        refuse(argument, f"must be on {device}, the device of a[0]", index.device)
    if not index.is_contiguous():
        refuse(argument, "must be contiguous", f"strides {tuple(index.stride())}")


def check_c(c: torch.Tensor, d: torch.Tensor, meaning: str) -> None:
    """C is like D; `meaning` says in symbols which shape that is."""
    check_tensor("c", c, d.dim(), d.dtype, d.device)
    check_shape("c", c, tuple(d.shape), meaning)


def check_c_apart(c: torch.Tensor, d: torch.Tensor) -> None:
    """C is D, or shares no memory with it."""
    if c.data_ptr() == d.data_ptr():
        if c.stride() != d.stride() and c.shape == d.shape:
            rule = f"must have d's strides {tuple(d.stride())} where it begins with d"
            refuse("c", rule, f"strides {tuple(c.stride())}")
        return
    first, last = sorted((c, d), key=torch.Tensor.data_ptr)
    if c.numel() and d.numel() and first.data_ptr() + extent(first) > last.data_ptr():
        refuse("c", "must be d, or share no memory with it", "a tensor that overlaps d")


def extent(tensor: torch.Tensor) -> int:
    """Bytes from a tensor's first element to the end of its last."""
    last = sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (last + 1) * tensor.element_size()


def check_tma_operand(argument: str, x: torch.Tensor) -> None:
    """An operand [.., rows, k] that TMA takes, as it is or, with contiguous columns, transposed."""
    if x.shape[-1] > 1 and x.stride(-1) != 1 and (x.stride(-2) == 1 or x.shape[-2] == 1):
        if x.shape[-1] % TMA_ALIGNMENT:
            refuse(argument, f"k must be a multiple of {TMA_ALIGNMENT}", x.shape[-1])
    else:
        check_tma_rows(argument, x)


def check_tma_rows(argument: str, tensor: torch.Tensor) -> None:
    """Rows are contiguous, of whole 16 bytes, at a stride that TMA takes, and so are matrices, if
    there are many.

    Whole 16 bytes because TMA cuts a row's end off in these units: on an H100 a store into 130
    columns of BF16 was seen to write 136. Addresses are checked per call.
    """
    rows, columns = tensor.shape[-2:]
    stride = tuple(tensor.stride())
    row_bytes = columns * tensor.element_size()
    if row_bytes % TMA_ALIGNMENT:
        rule = f"columns must take a multiple of {TMA_ALIGNMENT} bytes"
        refuse(argument, rule, f"{columns} columns of {tensor.element_size()} byte(s)")
    if columns > 1 and stride[-1] != 1:
        refuse(argument, "must be row-major (last stride 1)", f"strides {stride}")
    length = columns
    if rows > 1:
        _check_step(argument, "row", stride, stride[-2], length, tensor.element_size())
        length = (rows - 1) * stride[-2] + columns
    if tensor.dim() == 3 and tensor.shape[0] > 1:
        _check_step(argument, "group", stride, stride[0], length, tensor.element_size())


def _check_step(
    argument: str, what: str, strides: tuple[int, ...], step: int, length: int, element_bytes: int
) -> None:
    """From one row or group, which is `length` elements long, to the next."""
    if step * element_bytes % TMA_ALIGNMENT:
        rule = f"{what} stride must be a multiple of {TMA_ALIGNMENT} bytes"
        refuse(argument, rule, f"{step * element_bytes} bytes")
    if step < length:
        rule = f"{what}s must not overlap ({what} stride >= {length})"
        refuse(argument, rule, f"strides {strides}")


def check_address(argument: str, address: int, alignment: int) -> None:
    """The tensor's first byte is aligned."""
    if address % alignment:
        refuse(argument, f"must start at a multiple of {alignment} bytes", f"address {address:#x}")


NEWER = {
    "alpha": "must be None or 1: no kernel here scales D; multiply one operand's scale factors",
    "epilogue": "must be None: no kernel here has an epilogue; apply it to D",
    "enable_overlap": "must be False: blocks of D are not signalled as they are done",
    "max_block_n": "must be None: it belongs to enable_overlap, which no kernel here has",
    "signal": "must be None: it belongs to enable_overlap, which no kernel here has",
    "use_psum_layout": "must be False for k-grouped products on SM90; pass each group's size",
    "use_padded_sf_layout": "must be False on SM90, whose scale factors lie without padding",
}
"""Arguments that other versions of the reference library do something with, and what to do here."""


def check_newer(**arguments: object) -> None:
    """Arguments of NEWER that ask for nothing: None, False, or a factor of 1."""
    for argument, value in arguments.items():
        if value is None or value is False:
            continue
        if argument != "alpha" or not isinstance(value, (int, float)) or value != 1:
            refuse(argument, NEWER[argument], value)
