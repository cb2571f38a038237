"""One PTX instruction on values in lanes, for the tests of what it computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from deep_gemm.emulator.alu import evaluate
from deep_gemm.emulator.ptx import Instruction, Register, Vector, parse

LANES = 32
HELD = {"pred": "?", "b16": "u2", "b32": "u4", "b64": "u8", "f32": "f4", "f64": "f8"}
REGISTER = {16: "%rs", 32: "%r", 64: "%rd"}
INTEGERS = [f"{kind}{bits}" for kind in "su" for bits in (16, 32, 64)]
SIGNED = ["s16", "s32", "s64"]
BITS = ["b16", "b32", "b64"]

KERNEL = """\
.version 8.8
.target sm_90a
.address_size 64
.entry k(.param .u64 parameter) {{
.reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<9>; .reg .f32 %f<9>; .reg .b64 %rd<9>;
{};
}}
"""


def decode(text: str) -> Instruction:
    (instruction,) = parse(KERNEL.format(text)).kernels["k"].instructions
    return instruction


def hold(instruction: Instruction, lanes: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    """[32] arrays of the values of each source register; the last value fills the rest.

    Integers may be negative: their low bits are held.
    """
    operands = instruction.operands[1:]
    items = [
        item
        for operand in operands
        for item in (operand.items if isinstance(operand, Vector) else (operand,))
    ]
    arrays = []
    for item, values in zip(items, lanes, strict=True):
        assert isinstance(item, Register)
        dtype = np.dtype(HELD[item.type])
        bits = 8 * dtype.itemsize
        kept = [v % (1 << bits) if dtype.kind == "u" else v for v in values]
        arrays.append(np.array(kept + kept[-1:] * (LANES - len(kept)), dtype=dtype))
    return arrays


def run(text: str, *lanes: Sequence[Any]) -> list[Any]:
    """What the instruction gives for these values of its sources, each in one lane."""
    instruction = decode(text)
    result = evaluate(instruction, hold(instruction, lanes))
    assert isinstance(result, np.ndarray)
    destination = instruction.operands[0]
    assert isinstance(destination, Register)
    assert (result.shape, result.dtype) == ((LANES,), np.dtype(HELD[destination.type]))
    values: list[Any] = result.tolist()[: len(lanes[0])]
    return values


def wrap(value: int, name: str) -> int:
    """The value that a type holds after keeping its low bits."""
    bits = int(name[1:])
    value %= 1 << bits
    return value - (1 << bits) if name[0] == "s" and value >> (bits - 1) else value


def integers(bits: int) -> st.SearchStrategy[int]:
    """Bits of a width, often near the ends of its ranges."""
    edges = [0, 1, 2, (1 << bits - 1) - 1, 1 << bits - 1, (1 << bits - 1) + 1, (1 << bits) - 1]
    return st.sampled_from(edges) | st.integers(0, (1 << bits) - 1)


def columns(*bits: int) -> st.SearchStrategy[list[tuple[int, ...]]]:
    rows = st.tuples(*(integers(width) for width in bits))
    return st.lists(rows, min_size=1, max_size=LANES)
