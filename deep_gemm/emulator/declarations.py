"""Variables and parameters: what PTX declares with a space, a type and a name."""

from __future__ import annotations

import math
import struct

from deep_gemm.emulator.ir import Parameter, Variable
from deep_gemm.emulator.tokens import Tokens

SPACES = (".global", ".const", ".shared")

# Type -> how struct writes one element; bits are unsigned integers of their width.
_UNSIGNED = {"8": "B", "16": "H", "32": "I", "64": "Q"}
_LAYOUTS = {
    **{f"b{bits}": code for bits, code in _UNSIGNED.items()},
    **{f"u{bits}": code for bits, code in _UNSIGNED.items()},
    **{f"s{bits}": code.lower() for bits, code in _UNSIGNED.items()},
    "f32": "f",
    "f64": "d",
}


def parse_variable(tokens: Tokens, is_extern: bool) -> Variable:
    """A variable, from its space to the semicolon.

    Raises:
        EmulationError: the declaration is not understood; an initialiser that is an address is one.
    """
    space = tokens.take("directive").removeprefix(".")
    alignment, layout = _alignment_and_layout(tokens)
    name = tokens.take("word")
    count = _count(tokens)
    data = None
    if tokens.accept("="):
        data = _initialiser(tokens, layout, count)
    tokens.expect(";")
    size = count * struct.calcsize(layout)
    return Variable(name, space, alignment, size, data, is_extern)


def parse_parameters(tokens: Tokens) -> tuple[Parameter, ...]:
    """A kernel's parameters in their parentheses, laid out as in the parameter buffer.

    Raises:
        EmulationError: the declaration is not understood.
    """
    parameters: list[Parameter] = []
    end = 0
    tokens.expect("(")
    while not tokens.accept(")"):
        if parameters:
            tokens.expect(",")
        tokens.expect(".param")
        alignment, layout = _alignment_and_layout(tokens)
        if tokens.accept(".ptr"):
            _skip_pointee(tokens)
        name = tokens.take("word")
        size = _count(tokens) * struct.calcsize(layout)
        offset = -(-end // alignment) * alignment
        parameters.append(Parameter(name, size, alignment, offset))
        end = offset + size
    return tuple(parameters)


def _alignment_and_layout(tokens: Tokens) -> tuple[int, str]:
    alignment = tokens.integer() if tokens.accept(".align") else 0
    layout = _LAYOUTS.get(tokens.text.removeprefix("."))
    if layout is None:
        raise tokens.error("expected a type")
    tokens.take("directive")
    return alignment or struct.calcsize(layout), layout


def _skip_pointee(tokens: Tokens) -> None:
    """Where a pointer parameter points to: a space and an alignment, both optional."""
    if tokens.text in SPACES:
        tokens.take()
    if tokens.accept(".align"):
        tokens.integer()


def _count(tokens: Tokens) -> int:
    """Elements of `[4][2]`; 1 without brackets, 0 for `[]`."""
    sizes = []
    while tokens.accept("["):
        sizes.append(0 if tokens.text == "]" else tokens.integer())
        tokens.expect("]")
    return math.prod(sizes)


def _initialiser(tokens: Tokens, layout: str, count: int) -> bytes:
    """The bytes of `count` elements; those that are not given are 0."""
    values = _values(tokens)
    if len(values) > count:
        raise tokens.error(f"{len(values)} initial values for {count} elements")
    values += [0] * (count - len(values))
    try:
        return struct.pack(f"<{count}{layout}", *(_unsigned(value, layout) for value in values))
    except (struct.error, OverflowError) as error:
        raise tokens.error(f"initial value does not fit its type ({error})") from error


def _unsigned(value: int | float, layout: str) -> int | float:
    """A negative value of an unsigned type stands for its two's complement: NVCC writes -1 into a
    .u32."""
    if layout in "BHIQ" and isinstance(value, int) and value < 0:
        return value + (1 << (8 * struct.calcsize(layout)))
    return value


def _values(tokens: Tokens) -> list[int | float]:
    if not tokens.accept("{"):
        return [tokens.number()]
    values: list[int | float] = []
    while not tokens.accept("}"):
        if values:
            tokens.expect(",")
        values += _values(tokens)
    return values
