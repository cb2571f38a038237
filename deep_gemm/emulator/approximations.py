"""Functions that the hardware approximates.

The emulator gives the float nearest to the exact value. An H100 is off by one unit in the last
place for 3 to 17 % of arguments, and by up to 79 in lg2.approx where the logarithm is near 0
(recorded for 96 arguments each: tests/emulator/programs/float_functions.ptx). The PTX ISA allows
more: div.approx and div.full 2 ulp, rcp.approx and sqrt.approx 1 ulp, rsqrt.approx 2^-22.9,
ex2.approx 2^-22 and tanh.approx 2^-11 relative, lg2.approx 2^-22.6 relative (from 0.5 to 2,
absolute), sin.approx and cos.approx 2^-20.9 absolute from -pi to pi. `.ftz` flushes subnormal
sources and results to zeros of their sign.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from deep_gemm.emulator import arithmetic
from deep_gemm.emulator.arithmetic import Lanes
from deep_gemm.emulator.opcodes import Operation

_F32_NAN = np.uint32(0x7FFFFFFF).view(np.float32)
_SMALLEST_NORMAL = np.float32(2.0**-126)


def nearest(function: Callable[..., Any]) -> Callable[..., Lanes]:
    """The function, computed in FP64 and rounded to FP32."""

    def compute(*values: Lanes) -> Lanes:
        with np.errstate(all="ignore"):
            exact: Lanes = function(*(value.astype(np.float64) for value in values))
            result = exact.astype(np.float32)
        return np.where(np.isnan(result), _F32_NAN, result)

    return compute


def flushing(function: Callable[..., Any]) -> Callable[..., Lanes]:
    """The function with subnormal sources and results flushed to zeros of their sign."""

    def compute(*values: Lanes) -> Lanes:
        return _flushed(function(*map(_flushed, values)))

    return compute


def _flushed(value: Lanes) -> Lanes:
    return np.where(np.abs(value) < _SMALLEST_NORMAL, np.copysign(np.float32(0), value), value)


_UNARY: dict[str, Callable[..., Any]] = {
    "ex2.approx": np.exp2,
    "lg2.approx": np.log2,
    "rcp.approx": np.reciprocal,
    "rcp.rn": np.reciprocal,
    "sqrt.approx": np.sqrt,
    "sqrt.rn": np.sqrt,
    "rsqrt.approx": lambda x: 1 / np.sqrt(x),
    "sin.approx": np.sin,
    "cos.approx": np.cos,
    "tanh.approx": np.tanh,
}
_EXACT: dict[str, tuple[Callable[..., Any], int]] = {
    "add": (arithmetic.add_f32, 2),
    "add.rn": (arithmetic.add_f32, 2),
    "sub": (arithmetic.subtract_f32, 2),
    "sub.rn": (arithmetic.subtract_f32, 2),
    "mul": (arithmetic.multiply_f32, 2),
    "mul.rn": (arithmetic.multiply_f32, 2),
    "fma.rn": (arithmetic.fma_f32, 3),
    "min": (arithmetic.minimum_f32, 2),
    "max": (arithmetic.maximum_f32, 2),
    "neg": (arithmetic.negate_f32, 1),
    "abs": (arithmetic.magnitude_f32, 1),
}


def _operations() -> Iterator[tuple[str, Operation]]:
    for name, function in _UNARY.items():
        yield f"{name}.f32", Operation(nearest(function), "f32", ("f32",))
        yield f"{name}.ftz.f32", Operation(flushing(nearest(function)), "f32", ("f32",))
    for name in ("div.approx", "div.full", "div.rn"):
        divide = nearest(np.divide)
        yield f"{name}.f32", Operation(divide, "f32", ("f32",) * 2)
        yield f"{name}.ftz.f32", Operation(flushing(divide), "f32", ("f32",) * 2)
    for name, (function, count) in _EXACT.items():
        yield f"{name}.ftz.f32", Operation(flushing(function), "f32", ("f32",) * count)
    yield "copysign.f32", Operation(lambda a, b: np.copysign(b, a), "f32", ("f32",) * 2)
    tests: dict[str, Callable[..., Any]] = {
        "finite": np.isfinite,
        "infinite": np.isinf,
        "number": lambda x: ~np.isnan(x),
        "notanumber": np.isnan,
        "normal": lambda x: np.isfinite(x) & ((np.abs(x) >= _SMALLEST_NORMAL) | (x == 0)),
        "subnormal": lambda x: (np.abs(x) < _SMALLEST_NORMAL) & (x != 0),
    }
    for name, test in tests.items():
        yield f"testp.{name}.f32", Operation(test, "pred", ("f32",))


OPERATIONS = dict(_operations())
"""Full name of an opcode -> what it computes."""
