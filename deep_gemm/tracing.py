"""Whether a call is to be recorded as an operator instead of being done."""

from __future__ import annotations

import torch

_NO_DISPATCH = torch.Tensor.__torch_dispatch__


def has_no_memory(tensor: object) -> bool:
    """Whether it only stands for a tensor, as in `torch.export`, so that its address means nothing.

    Such are the classes with a dispatcher of their own; operators reach it, kernels do not.
    """
    return getattr(type(tensor), "__torch_dispatch__", _NO_DISPATCH) is not _NO_DISPATCH
