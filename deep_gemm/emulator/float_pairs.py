"""Arithmetic of two FP32 values in one register of 64 bits: f32x2, from Blackwell on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deep_gemm.emulator import arithmetic
from deep_gemm.emulator.arithmetic import Lanes
from deep_gemm.emulator.opcodes import Operation


def _paired(function: Callable[..., Any]) -> Callable[..., Lanes]:
    def compute(*pairs: Lanes) -> Lanes:
        items = (np.ascontiguousarray(pair).view(np.float32) for pair in pairs)
        return np.ascontiguousarray(function(*items), dtype=np.float32).view(np.uint64)

    return compute


_FUNCTIONS: dict[str, tuple[Callable[..., Any], int]] = {
    "add": (arithmetic.add_f32, 2),
    "sub": (arithmetic.subtract_f32, 2),
    "mul": (arithmetic.multiply_f32, 2),
    "fma": (arithmetic.fma_f32, 3),
}


def _operations() -> Iterator[tuple[str, Operation]]:
    for word, (function, count) in _FUNCTIONS.items():
        for rounding in ("rn.",) if word == "fma" else ("", "rn."):
            operation = Operation(_paired(function), "b64", ("b64",) * count)
            yield f"{word}.{rounding}f32x2", operation


OPERATIONS = dict(_operations())
"""Full name of an opcode -> what it computes."""
