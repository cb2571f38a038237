"""Arithmetic of FP16 and BF16, single and in pairs.

A result is that of FP32 rounded again, which is that of one rounding: FP32 has more than twice the
digits. For fma that takes FP64, rounded to odd.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from deep_gemm.emulator import arithmetic
from deep_gemm.emulator.arithmetic import Lanes
from deep_gemm.emulator.conversions import pack, unpack
from deep_gemm.emulator.float_formats import BF16, FP16, Format
from deep_gemm.emulator.opcodes import Operation


def _rounded(function: Callable[..., Any], of: Format) -> Callable[..., Lanes]:
    def compute(*codes: Lanes) -> Lanes:
        return of.encode(function(*map(of.decode, codes)))

    return compute


def _paired(function: Callable[..., Lanes]) -> Callable[..., Lanes]:
    def compute(*pairs: Lanes) -> Lanes:
        highs, lows = zip(*map(unpack, pairs), strict=True)
        return pack(function(*highs), function(*lows))

    return compute


def fma_to_odd(a: Lanes, b: Lanes, c: Lanes) -> Lanes:
    """a * b + c in FP64 rounded to odd, so that another rounding gives what one would have.

    Sources have at most 11 significant bits, so that their product is exact.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        product = a.astype(np.float64) * b
        return arithmetic.rounded_to_odd(product + c, product, c)


def _negated(code: Lanes) -> Lanes:
    negated: Lanes = code ^ np.uint16(0x8000)
    return negated


def _magnitude(code: Lanes) -> Lanes:
    magnitude: Lanes = code & np.uint16(0x7FFF)
    return magnitude


_BINARY: dict[str, Callable[..., Any]] = {
    "add": arithmetic.add_f32,
    "add.rn": arithmetic.add_f32,
    "sub": arithmetic.subtract_f32,
    "sub.rn": arithmetic.subtract_f32,
    "mul": arithmetic.multiply_f32,
    "mul.rn": arithmetic.multiply_f32,
    "min": arithmetic.minimum_f32,
    "max": arithmetic.maximum_f32,
}


def _operations() -> Iterator[tuple[str, Operation]]:
    for name, of in (("f16", FP16), ("bf16", BF16)):
        functions = {word: (_rounded(f, of), 2) for word, f in _BINARY.items()}
        functions["fma.rn"] = (_rounded(fma_to_odd, of), 3)
        functions["neg"], functions["abs"] = (_negated, 1), (_magnitude, 1)
        for word, (function, count) in functions.items():
            yield f"{word}.{name}", Operation(function, "b16", ("b16",) * count)
            yield f"{word}.{name}x2", Operation(_paired(function), "b32", ("b32",) * count)
        for word, compare in _COMPARISONS.items():
            test = partial(_compared, compare=compare, of=of)
            yield f"setp.{word}.{name}", Operation(test, "pred", ("b16", "b16"))


_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal,
    "ne": lambda a, b: (a < b) | (a > b),
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}


def _compared(a: Lanes, b: Lanes, compare: Callable[..., Any], of: Format) -> Any:
    return compare(of.decode(a), of.decode(b))


OPERATIONS = dict(_operations())
"""Full name of an opcode -> what it computes."""
