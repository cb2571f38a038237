"""What the public functions share: the choice of a kernel, and the forms that operands come in."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deep_gemm import knobs
from deep_gemm.call_cache import Launch
from deep_gemm.checks import TMA_ALIGNMENT, check_address, check_c_apart, check_is_tensor, refuse
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, explain, select
from deep_gemm.config.sm90 import candidates
from deep_gemm.kernels.fp8_gemm import along_k, along_rows
from deep_gemm.record import record
from deep_gemm.runtime.launch import Plan

Operand = tuple[torch.Tensor, torch.Tensor]
"""FP8 data and its scale factors."""

Transform = Callable[[torch.Tensor], torch.Tensor]

Transforms = tuple[Transform, ...]
"""One for each tensor of a launch."""


@dataclass(frozen=True)
class PlannedCall:
    """What a call of known shapes has to do.

    Attributes:
        plan: the launch; None if there is nothing to compute.
        transforms: what the tensors go through first, if any do.
        copies_c: D becomes C first.
        clears_d: D becomes zero.
    """

    plan: Plan | None = None
    transforms: Transforms | None = None
    copies_c: bool = False
    clears_d: bool = False

    def direct_launch(self, device: torch.device) -> Launch | None:
        """What does it all on the device of the tensors, given nothing but their addresses; None if
        there is more to do."""
        is_all = self.transforms is None and not self.copies_c
        return self.plan.launch if self.plan is not None and is_all else None

    def run(
        self,
        tensors: tuple[torch.Tensor, ...],
        c: torch.Tensor | None,
        addresses: tuple[int, ...],
    ) -> None:
        """Does it, for the tensors of a launch in its order, of which D is the third."""
        if self.copies_c and c is not None:
            tensors[2].copy_(c)
        if self.clears_d:
            tensors[2].zero_()
        if self.plan is None:
            return
        if self.transforms is None:
            self.plan.launch(*addresses)
            return
        # What they made is held until the launch is enqueued: then its memory may be used again.
        made = [f(tensor) for f, tensor in zip(self.transforms, tensors, strict=True)]
        self.plan.launch(*(tensor.data_ptr() for tensor in made))


TMA_ARGUMENTS = ("a[0]", "b[0]", "d")
"""Arguments whose addresses must be aligned for TMA: the first three tensors of a launch."""


def chosen(problem: GemmProblem) -> Selection:
    """The selection for a problem; printed if a knob asks for it.

    Raises:
        ArgumentError: no kernel has blocks as the settings want them.
    """
    if not any(True for _ in candidates(problem)):
        rule = "leaves no kernel for this problem"
        refuse("block_size_multiple_of", rule, problem.block_multiple)
    record(problem)
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
    # Not above: few calls need it, and every process waits for its imports.
    from deep_gemm.kernels.transpose import k_major

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
    from deep_gemm.kernels.transpose import mn_major

    return mn_major


def needed(*transforms: Transform) -> Transforms | None:
    """The transforms of a call, or None if it needs none."""
    return None if all(transform is as_it_is for transform in transforms) else transforms


def check_addresses(tensors: tuple[torch.Tensor, ...], transforms: Transforms | None) -> None:
    """The operands and D, where TMA reads or writes them as they are, begin where it can.

    Raises:
        ArgumentError: one does not.
    """
    for i, name in enumerate(TMA_ARGUMENTS):
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
