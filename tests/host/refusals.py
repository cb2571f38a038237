"""What the tests of refused arguments share."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import pytest
import torch

from deep_gemm.errors import ArgumentError


def refuses(argument: str, rule: str, got: str) -> AbstractContextManager[object]:
    """Expects an ArgumentError; the rule and what was got are regular expressions."""
    pattern = rf"^argument {re.escape(argument)}: .*{rule}.*, got .*{got}"
    return pytest.raises(ArgumentError, match=pattern)


def strided(
    shape: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype, device: object = "meta"
) -> torch.Tensor:
    return torch.empty_strided(shape, stride, dtype=dtype, device=device)
