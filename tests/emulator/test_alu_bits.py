"""Bit fields, counts, permutations and dot products against Python's integers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.lanes import LANES, REGISTER, columns, integers, run, wrap

PLACES = st.integers(0, 70) | st.sampled_from([255, 256, 257, 2**32 - 1])


def lists(*items: st.SearchStrategy[int]) -> st.SearchStrategy[list[tuple[int, ...]]]:
    return st.lists(st.tuples(*items), min_size=1, max_size=LANES)


@pytest.mark.parametrize("bits", [32, 64])
@given(data=st.data())
def test_counts(bits: int, data: st.DataObject) -> None:
    values = [a for (a,) in data.draw(columns(bits))]
    source = f"{REGISTER[bits]}1"
    assert run(f"popc.b{bits} %r0, {source}", values) == [a.bit_count() for a in values]
    assert run(f"clz.b{bits} %r0, {source}", values) == [bits - a.bit_length() for a in values]
    backwards = [int(f"{a:0{bits}b}"[::-1], 2) for a in values]
    assert run(f"brev.b{bits} {REGISTER[bits]}0, {source}", values) == backwards


@pytest.mark.parametrize("name", ["u32", "s32", "u64", "s64"])
@given(data=st.data())
def test_bfind(name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    values = [a for (a,) in data.draw(columns(bits))]
    found = []
    for a in values:
        signed = wrap(a, name)
        magnitude = ~signed if signed < 0 else signed
        found.append(magnitude.bit_length() - 1)
    source = f"{REGISTER[bits]}1"
    assert run(f"bfind.{name} %r0, {source}", values) == [x % 2**32 for x in found]
    shifts = [x % 2**32 if x < 0 else bits - 1 - x for x in found]
    assert run(f"bfind.shiftamt.{name} %r0, {source}", values) == shifts


def extracted(a: int, position: int, length: int, name: str) -> int:
    """bfe as the ISA's own loop writes it."""
    msb = int(name[1:]) - 1
    pos, count = position & 255, length & 255
    has_sign = name[0] == "s" and count > 0
    sign = a >> min(pos + count - 1, msb) & 1 if has_sign else 0
    result = 0
    for i in range(msb + 1):
        bit = a >> (pos + i) & 1 if i < count and pos + i <= msb else sign
        result |= bit << i
    return result


@pytest.mark.parametrize("name", ["u32", "s32", "u64", "s64"])
@settings(max_examples=60)
@given(data=st.data())
def test_bfe(name: str, data: st.DataObject) -> None:
    bits = int(name[1:])
    rows = data.draw(lists(integers(bits), PLACES, PLACES))
    register = REGISTER[bits]
    got = run(f"bfe.{name} {register}0, {register}1, %r2, %r3", *zip(*rows, strict=True))
    assert got == [extracted(*row, name) for row in rows]


@given(lists(integers(32), integers(32), integers(32)))
def test_prmt(rows: list[tuple[int, int, int]]) -> None:
    expected = []
    for a, b, selector in rows:
        pool = (b << 32 | a).to_bytes(8, "little")
        picked = []
        for i in range(4):
            nibble = selector >> 4 * i & 15
            byte = pool[nibble & 7]
            picked.append((255 if byte & 128 else 0) if nibble & 8 else byte)
        expected.append(int.from_bytes(bytes(picked), "little"))
    assert run("prmt.b32 %r0, %r1, %r2, %r3", *zip(*rows, strict=True)) == expected


@given(lists(integers(32), integers(32), integers(32)))
def test_funnel_shifts(rows: list[tuple[int, int, int]]) -> None:
    for mode in ("clamp", "wrap"):
        amounts = [min(n, 32) if mode == "clamp" else n & 31 for _, _, n in rows]
        values = [b << 32 | a for a, b, _ in rows]
        left = [(v << n) >> 32 & 0xFFFFFFFF for v, n in zip(values, amounts, strict=True)]
        right = [v >> n & 0xFFFFFFFF for v, n in zip(values, amounts, strict=True)]
        columns_ = list(zip(*rows, strict=True))
        assert run(f"shf.l.{mode}.b32 %r0, %r1, %r2, %r3", *columns_) == left
        assert run(f"shf.r.{mode}.b32 %r0, %r1, %r2, %r3", *columns_) == right


@given(lists(integers(32), integers(32), integers(32), st.integers(0, 255)))
def test_lop3(rows: list[tuple[int, int, int, int]]) -> None:
    expected = [
        sum(
            (table >> (4 * (a >> i & 1) + 2 * (b >> i & 1) + (c >> i & 1)) & 1) << i
            for i in range(32)
        )
        for a, b, c, table in rows
    ]
    assert run("lop3.b32 %r0, %r1, %r2, %r3, %r4", *zip(*rows, strict=True)) == expected


@pytest.mark.parametrize("kinds", ["uu", "us", "su", "ss"])
@given(rows=lists(integers(32), integers(32), integers(32)))
def test_dp4a(kinds: str, rows: list[tuple[int, int, int]]) -> None:
    expected = []
    for a, b, c in rows:
        products = [
            wrap(a >> 8 * i & 255, f"{kinds[0]}8") * wrap(b >> 8 * i & 255, f"{kinds[1]}8")
            for i in range(4)
        ]
        expected.append((sum(products) + c) % 2**32)
    text = f"dp4a.{kinds[0]}32.{kinds[1]}32 %r0, %r1, %r2, %r3"
    assert run(text, *zip(*rows, strict=True)) == expected


def test_fns() -> None:
    # Mask, base, offset -> the ISA's meaning, by hand.
    rows = [
        (0b10110, 0, 1, 1),
        (0b10110, 0, 3, 4),
        (0b10110, 0, 4, 2**32 - 1),
        (0b10110, 2, 1, 2),
        (0b10110, 4, -2, 2),
        (0b10110, 4, -4, 2**32 - 1),
        (0b10110, 2, 0, 2),
        (0b10110, 3, 0, 2**32 - 1),
    ]
    mask, base, offset, expected = zip(*rows, strict=True)
    assert run("fns.b32 %r0, %r1, %r2, %r3", mask, base, offset) == list(expected)


@pytest.mark.parametrize("bits", [16, 32, 64])
@given(data=st.data())
def test_signed_division(bits: int, data: st.DataObject) -> None:
    divisors = integers(bits).filter(bool)
    rows = data.draw(st.lists(st.tuples(integers(bits), divisors), min_size=1, max_size=LANES))
    quotients, remainders = [], []
    for a, b in ((wrap(a, f"s{bits}"), wrap(b, f"s{bits}")) for a, b in rows):
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
        quotients.append(quotient % 2**bits)
        remainders.append((a - quotient * b) % 2**bits)
    register = REGISTER[bits]
    operands = f"{register}0, {register}1, {register}2"
    assert run(f"div.s{bits} {operands}", *zip(*rows, strict=True)) == quotients
    assert run(f"rem.s{bits} {operands}", *zip(*rows, strict=True)) == remainders
