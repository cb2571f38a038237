"""Integer opcodes against Python's integers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.alu import compile_pure, evaluate
from deep_gemm.emulator.errors import HazardError
from tests.emulator.lanes import (
    BITS,
    INTEGERS,
    LANES,
    REGISTER,
    SIGNED,
    columns,
    decode,
    hold,
    integers,
    run,
    wrap,
)


def shifted(left: bool) -> Callable[[int, int], int]:
    return lambda a, n: a << min(n, 64) if left else a >> min(n, 64)


Reference = Callable[..., int]


# Opcode -> its types, its number of sources, and what it does with values of the type.
SAME_WIDTH: dict[str, tuple[list[str], int, Reference]] = {
    "add": (INTEGERS, 2, lambda a, b: a + b),
    "sub": (INTEGERS, 2, lambda a, b: a - b),
    "mul.lo": (INTEGERS, 2, lambda a, b: a * b),
    "mad.lo": (INTEGERS, 3, lambda a, b, c: a * b + c),
    "min": (INTEGERS, 2, min),
    "max": (INTEGERS, 2, max),
    "neg": (SIGNED, 1, lambda a: -a),
    "abs": (SIGNED, 1, abs),
    "and": (BITS, 2, lambda a, b: a & b),
    "or": (BITS, 2, lambda a, b: a | b),
    "xor": (BITS, 2, lambda a, b: a ^ b),
    "not": (BITS, 1, lambda a: ~a),
    "mov": ([*INTEGERS, *BITS], 1, lambda a: a),
}
CASES = [(opcode, name) for opcode, (names, *_) in SAME_WIDTH.items() for name in names]


@pytest.mark.parametrize(("opcode", "name"), CASES)
@settings(max_examples=20)
@given(data=st.data())
def test_integers(opcode: str, name: str, data: st.DataObject) -> None:
    _, num_sources, reference = SAME_WIDTH[opcode]
    bits = int(name[1:])
    rows = data.draw(columns(*[bits] * num_sources))
    operands = ", ".join(f"{REGISTER[bits]}{i}" for i in range(num_sources + 1))
    got = run(f"{opcode}.{name} {operands}", *zip(*rows, strict=True))
    expected = [reference(*(wrap(v, name) for v in row)) % (1 << bits) for row in rows]
    assert got == expected


@pytest.mark.parametrize("name", INTEGERS)
@given(data=st.data())
def test_high_products(name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    rows = data.draw(columns(bits, bits))
    register = REGISTER[bits]
    got = run(f"mul.hi.{name} {register}0, {register}1, {register}2", *zip(*rows, strict=True))
    products = [wrap(a, name) * wrap(b, name) for a, b in rows]
    assert got == [(product >> bits) % (1 << bits) for product in products]


@pytest.mark.parametrize("name", ["s16", "u16", "s32", "u32"])
@settings(max_examples=20)
@given(data=st.data())
def test_wide_products(name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    rows = data.draw(columns(bits, bits, 2 * bits))
    narrow, wide = REGISTER[bits], REGISTER[2 * bits]
    a, b, c = zip(*rows, strict=True)
    products = [wrap(x, name) * wrap(y, name) for x, y, _ in rows]
    limit = 1 << 2 * bits
    assert run(f"mul.wide.{name} {wide}0, {narrow}1, {narrow}2", a, b) == [
        p % limit for p in products
    ]
    assert run(f"mad.wide.{name} {wide}0, {narrow}1, {narrow}2, {wide}3", a, b, c) == [
        (p + z) % limit for p, z in zip(products, c, strict=True)
    ]


@pytest.mark.parametrize(
    "name", [f"shl.b{n}" for n in (16, 32, 64)] + [f"shr.{t}" for t in INTEGERS]
)
@settings(max_examples=20)
@given(data=st.data())
def test_shifts(name: str, data: st.DataObject) -> None:
    opcode, kind = name.split(".")
    bits = int(kind[1:])
    amounts = st.integers(0, 70) | integers(32)
    rows = data.draw(st.lists(st.tuples(integers(bits), amounts), min_size=1, max_size=LANES))
    register = REGISTER[bits]
    got = run(f"{name} {register}0, {register}1, %r2", *zip(*rows, strict=True))
    shift = shifted(opcode == "shl")
    assert got == [shift(wrap(a, kind), amount) % (1 << bits) for a, amount in rows]


@pytest.mark.parametrize("bits", [32, 64])
@settings(max_examples=60)
@given(data=st.data())
def test_bfi(bits: int, data: st.DataObject) -> None:
    places = st.integers(0, 70) | st.sampled_from([255, 256, 257, 2**32 - 1])
    row = st.tuples(integers(bits), integers(bits), places, places)
    rows = data.draw(st.lists(row, min_size=1, max_size=LANES))
    register = REGISTER[bits]
    text = f"bfi.b{bits} {register}0, {register}1, {register}2, %r3, %r4"
    expected = []
    for a, b, position, length in rows:
        if bits == 32:
            position, length = position & 255, length & 255
        bit_is_new = [position <= i < position + length for i in range(bits)]
        new = a << min(position, bits)
        expected.append(sum(((new if n else b) >> i & 1) << i for i, n in enumerate(bit_is_new)))
    assert run(text, *zip(*rows, strict=True)) == expected


@pytest.mark.parametrize("bits", [16, 32, 64])
@given(data=st.data())
def test_division(bits: int, data: st.DataObject) -> None:
    divisors = integers(bits).filter(bool)
    rows = data.draw(st.lists(st.tuples(integers(bits), divisors), min_size=1, max_size=LANES))
    register = REGISTER[bits]
    operands = f"{register}0, {register}1, {register}2"
    a, b = zip(*rows, strict=True)
    assert run(f"div.u{bits} {operands}", a, b) == [x // y for x, y in rows]
    assert run(f"rem.u{bits} {operands}", a, b) == [x % y for x, y in rows]


@pytest.mark.parametrize("opcode", ["div", "rem"])
def test_division_by_zero(opcode: str) -> None:
    instruction = decode(f"{opcode}.u32 %r0, %r1, %r2")
    sources = hold(instruction, [[7] * 4, [2, 0, 0, 2]])
    with pytest.raises(HazardError, match=r"R0: .*lanes \[1, 2\]") as caught:
        evaluate(instruction, sources)
    assert caught.value.rule == "R0"
    active = np.arange(LANES) == 2
    with pytest.raises(HazardError, match=r"lanes \[2\]"):
        compile_pure(instruction)(sources, active)
    result = compile_pure(instruction)(sources, np.arange(LANES) == 0)
    assert isinstance(result, np.ndarray)
    assert result[0] == (3 if opcode == "div" else 1)
