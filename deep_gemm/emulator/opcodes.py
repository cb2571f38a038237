"""The table of opcodes that compute registers from registers alone.

It is keyed by full names, so a modifier that is not in it is as unknown as an opcode that is not.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from deep_gemm.emulator import arithmetic
from deep_gemm.emulator.arithmetic import Lanes

DType = np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """What an opcode computes.

    Attributes:
        function: of the sources, viewed as their types; it gives the result as its type.
        result: its PTX type; the type of each item if the function gives several.
        sources: their PTX types.
        second: also of the sources: the other predicate of a comparison, if there is one.
        wants_active: whether the function takes the active lanes last.
    """

    function: Callable[..., Any]
    result: str
    sources: tuple[str, ...]
    second: Callable[..., Lanes] | None = None
    wants_active: bool = False


def _dtypes() -> dict[str, DType]:
    kinds = {"b": "u", "u": "u", "s": "i", "f": "f"}
    names = [f"{k}{bits}" for k in "bus" for bits in (8, 16, 32, 64)] + ["f32", "f64"]
    return {
        "pred": np.dtype(np.bool_),
        **{name: np.dtype(f"{kinds[name[0]]}{int(name[1:]) // 8}") for name in names},
    }


DTYPES = _dtypes()
"""PTX type -> NumPy type with its sign and width."""

_WIDTHS = (16, 32, 64)


def _bits(name: str) -> int:
    return 8 * DTYPES[name].itemsize


def _wrapping(bits: int) -> Iterator[tuple[str, Operation]]:
    """What is the same for signed and unsigned integers."""
    unsigned = f"u{bits}"
    for name in (f"s{bits}", unsigned):
        yield f"add.{name}", Operation(np.add, unsigned, (unsigned,) * 2)
        yield f"sub.{name}", Operation(np.subtract, unsigned, (unsigned,) * 2)
        yield f"mul.lo.{name}", Operation(np.multiply, unsigned, (unsigned,) * 2)
        yield f"mad.lo.{name}", Operation(arithmetic.multiply_add, unsigned, (unsigned,) * 3)
    yield f"neg.s{bits}", Operation(np.negative, unsigned, (unsigned,))


def _signed_or_not(bits: int) -> Iterator[tuple[str, Operation]]:
    """What depends on the sign."""
    high = arithmetic.high_multiply_64 if bits == 64 else arithmetic.high_multiply
    for name in (f"s{bits}", f"u{bits}"):
        yield f"min.{name}", Operation(np.minimum, name, (name,) * 2)
        yield f"max.{name}", Operation(np.maximum, name, (name,) * 2)
        yield f"mul.hi.{name}", Operation(high, name, (name,) * 2)
        yield f"shr.{name}", Operation(arithmetic.shift_right, name, (name, "u32"))
        if bits < 64:
            wide = f"{name[0]}{2 * bits}"
            yield f"mul.wide.{name}", Operation(arithmetic.wide_multiply, wide, (name,) * 2)
            operation = Operation(arithmetic.wide_multiply_add, wide, (name, name, wide))
            yield f"mad.wide.{name}", operation
        for opcode, function in (("div", arithmetic.divide), ("rem", arithmetic.remainder)):
            operation = Operation(function, name, (name,) * 2, wants_active=True)
            yield f"{opcode}.{name}", operation
    yield f"abs.s{bits}", Operation(np.abs, f"s{bits}", (f"s{bits}",))


def _bitwise() -> Iterator[tuple[str, Operation]]:
    for name in ("pred", "b16", "b32", "b64"):
        yield f"and.{name}", Operation(np.bitwise_and, name, (name,) * 2)
        yield f"or.{name}", Operation(np.bitwise_or, name, (name,) * 2)
        yield f"xor.{name}", Operation(np.bitwise_xor, name, (name,) * 2)
        yield f"not.{name}", Operation(np.invert, name, (name,))
    for name in ("b16", "b32", "b64"):
        yield f"shl.{name}", Operation(arithmetic.shift_left, name, (name, "u32"))
        yield f"shr.{name}", Operation(arithmetic.shift_right, name, (name, "u32"))
    for name in ("b32", "b64"):
        operation = Operation(arithmetic.insert_bits, name, (name, name, "u32", "u32"))
        yield f"bfi.{name}", operation


def _moves() -> Iterator[tuple[str, Operation]]:
    yield "mov.pred", Operation(_same, "pred", ("pred",))
    for name in (f"{kind}{bits}" for kind in "bus" for bits in _WIDTHS):
        held = f"b{_bits(name)}"
        yield f"mov.{name}", Operation(_same, held, (held,))
        yield f"selp.{name}", Operation(arithmetic.select, held, (held, held, "pred"))
    for name in ("f32", "f64"):
        yield f"mov.{name}", Operation(_same, name, (name,))
        yield f"selp.{name}", Operation(arithmetic.select, name, (name, name, "pred"))


def _conversions() -> Iterator[tuple[str, Operation]]:
    names = [f"{kind}{bits}" for kind in "us" for bits in (8, *_WIDTHS)]
    for result, source in itertools.product(names, names):
        operation = Operation(_cast(DTYPES[result]), result, (source,))
        yield f"cvt.{result}.{source}", operation
    bf16x2 = Operation(arithmetic.round_to_bf16x2, "b32", ("f32", "f32"))
    yield "cvt.rn.bf16x2.f32", bf16x2


def _floats() -> Iterator[tuple[str, Operation]]:
    binary = {
        "add": arithmetic.add_f32,
        "sub": arithmetic.subtract_f32,
        "mul": arithmetic.multiply_f32,
    }
    for opcode, function in binary.items():
        for rounding in ("", "rn."):
            yield f"{opcode}.{rounding}f32", Operation(function, "f32", ("f32",) * 2)
    yield "fma.rn.f32", Operation(arithmetic.fma_f32, "f32", ("f32",) * 3)
    yield "fma.rm.f32", Operation(arithmetic.fma_down_f32, "f32", ("f32",) * 3)
    yield "min.f32", Operation(arithmetic.minimum_f32, "f32", ("f32",) * 2)
    yield "max.f32", Operation(arithmetic.maximum_f32, "f32", ("f32",) * 2)
    yield "max.NaN.f32", Operation(arithmetic.maximum_or_nan_f32, "f32", ("f32",) * 2)
    yield "neg.f32", Operation(arithmetic.negate_f32, "f32", ("f32",))
    yield "abs.f32", Operation(arithmetic.magnitude_f32, "f32", ("f32",))


_EQUALITY: dict[str, Callable[..., Lanes]] = {"eq": np.equal, "ne": np.not_equal}
_ORDER: dict[str, Callable[..., Lanes]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_COMBINATIONS = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}
_UNSIGNED_ORDER: dict[str, Callable[..., Lanes]] = {
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}


def _unordered(compare: Callable[..., Lanes]) -> Callable[..., Lanes]:
    return lambda a, b: compare(a, b) | np.isnan(a) | np.isnan(b)


def _float_comparisons() -> dict[str, Callable[..., Lanes]]:
    either = {**_EQUALITY, **_ORDER}
    return {
        **either,
        # NumPy's != holds for NaN; the ordered one of PTX does not.
        "ne": lambda a, b: (a < b) | (a > b),
        **{f"{name}u": _unordered(compare) for name, compare in either.items()},
        "num": lambda a, b: ~(np.isnan(a) | np.isnan(b)),
        "nan": lambda a, b: np.isnan(a) | np.isnan(b),
    }


def _comparisons() -> Iterator[tuple[str, Operation]]:
    floats = _float_comparisons()
    by_kind: dict[str, dict[str, Callable[..., Lanes]]] = {
        "b": _EQUALITY,
        "s": {**_EQUALITY, **_ORDER},
        "u": {**_EQUALITY, **_ORDER, **_UNSIGNED_ORDER},
    }
    types = [(f"{kind}{bits}", by_kind[kind]) for kind in "bsu" for bits in _WIDTHS]
    for name, comparisons in (*types, ("f32", floats), ("f64", floats)):
        for comparison, compare in comparisons.items():
            yield f"setp.{comparison}.{name}", _plain_setp(compare, name)
            for word, combine in _COMBINATIONS.items():
                yield f"setp.{comparison}.{word}.{name}", _combined_setp(compare, combine, name)


def _plain_setp(compare: Callable[..., Lanes], name: str) -> Operation:
    return Operation(compare, "pred", (name, name), second=lambda a, b: ~compare(a, b))


def _combined_setp(
    compare: Callable[..., Lanes], combine: Callable[..., Lanes], name: str
) -> Operation:
    return Operation(
        lambda a, b, c: combine(compare(a, b), c),
        "pred",
        (name, name, "pred"),
        second=lambda a, b, c: combine(~compare(a, b), c),
    )


def _same(value: Lanes) -> Lanes:
    return value


def _cast(dtype: DType) -> Callable[[Lanes], Lanes]:
    return lambda value: value.astype(dtype)


OPERATIONS = dict(
    itertools.chain(
        *(_wrapping(bits) for bits in _WIDTHS),
        *(_signed_or_not(bits) for bits in _WIDTHS),
        _bitwise(),
        _moves(),
        _conversions(),
        _floats(),
        _comparisons(),
    )
)
"""Full name of an opcode -> what it computes."""
