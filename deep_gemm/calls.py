"""What the public functions share: the choice of a kernel, and the forms that operands come in."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch

from deep_gemm import knobs
from deep_gemm.checks import TMA_ALIGNMENT, check_address, check_c_apart, check_is_tensor, refuse
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, explain, select
from deep_gemm.kernels.fp8_gemm import along_k, along_rows
from deep_gemm.kernels.transpose import k_major, mn_major

Operand = tuple[torch.Tensor, torch.Tensor]
"""FP8 data and its scale factors."""

Transform = Callable[[torch.Tensor], torch.Tensor]

Transforms = tuple[Transform, ...]
"""One for each tensor of a launch."""


def chosen(problem: GemmProblem) -> Selection:
    """The selection for a problem; printed if a knob asks for it."""
    if knobs.print_configs.get():
        print(explain(problem), file=sys.stderr)
    return select(problem)


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """The transform of what the kernel takes as the caller has it."""
    return tensor


def operand_transform(argument: str, x: torch.Tensor) -> Transform:
    """What brings an operand [.., rows, k] into the row-major form that SM90's WGMMA takes.

    Raises:
        ArgumentError: neither its rows nor its columns are contiguous.
    """
    rows, k = x.shape[-2:]
    if k <= 1 or x.stride(-1) == 1:
        return as_it_is
    if rows > 1 and x.stride(-2) != 1:
        refuse(argument, "must have contiguous rows or columns", f"strides {tuple(x.stride())}")
    return functools.partial(k_major, argument)


def sf_transform(sf: torch.Tensor, is_1d1d: bool, along_k_too: bool) -> Transform:
    """What brings scale factors [.., rows, k blocks] into a form that the kernel takes.

    1D2D kernels take any. 1D1D kernels load by TMA, along rows, or where `along_k_too` along K.
    """
    if not is_1d1d:
        return as_it_is
    batched = sf if sf.dim() == 3 else sf.unsqueeze(0)
    if along_rows(batched) is not None or (along_k_too and along_k(batched) is not None):
        return as_it_is
    return mn_major


def needed(*transforms: Transform) -> Transforms | None:
    """The transforms of a call, or None if it needs none."""
    return None if all(transform is as_it_is for transform in transforms) else transforms


def check_addresses(
    names: tuple[str, ...], tensors: tuple[torch.Tensor, ...], transforms: Transforms | None
) -> None:
    """The tensors that TMA reads or writes as they are begin where it can. There is a name for each
    of the first tensors.

    Raises:
        ArgumentError: one does not.
    """
    for i, name in enumerate(names):
        if transforms is None or transforms[i] is as_it_is:
            check_address(name, tensors[i].data_ptr(), TMA_ALIGNMENT)


def c_key(c: torch.Tensor, d: torch.Tensor) -> object:
    """What a call depends on of its C.

    Raises:
        ArgumentError: C is not a tensor, or overlaps D without being the same.
    """
    check_is_tensor("c", c)
    check_c_apart(c, d)
    return c.data_ptr() == d.data_ptr(), c.shape, c.stride(), c.dtype, c.device
