"""Bit fields, counts, permutations and dot products of integers.

Every function takes and gives arrays of the types that its opcode names, and never writes to one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from deep_gemm.emulator.arithmetic import Lanes, shift_left, shift_right
from deep_gemm.emulator.opcodes import Operation

_U32 = np.uint32


def population(a: Lanes) -> Lanes:
    """How many bits are set."""
    counts: Lanes = np.unpackbits(_bytes(a), axis=1).sum(axis=1)
    return counts.astype(_U32)


def leading_zeros(a: Lanes) -> Lanes:
    """How many bits above the highest one that is set; the width for 0."""
    width = 8 * a.dtype.itemsize
    zeros: Lanes = width - 1 - _highest(a)
    return zeros.astype(_U32)


def reverse(a: Lanes) -> Lanes:
    """The bits in the opposite order."""
    bits = np.unpackbits(_bytes(a), axis=1, bitorder="little")
    reversed_bits: Lanes = np.packbits(bits[:, ::-1], axis=1, bitorder="little")
    return reversed_bits.view(a.dtype)[:, 0]


def _bytes(a: Lanes) -> Lanes:
    return np.ascontiguousarray(a).view(np.uint8).reshape(a.size, -1)


def _highest(a: Lanes) -> Lanes:
    """Index of the highest bit that is set, -1 for 0."""
    bits = np.unpackbits(_bytes(a), axis=1, bitorder="little")[:, ::-1]
    return np.where(a == 0, -1, bits.shape[1] - 1 - bits.argmax(axis=1))


def find_highest(a: Lanes, shift_amount: bool) -> Lanes:
    """bfind: index of the highest bit that differs from the sign (0 for unsigned), or ~0.

    Args:
        a: any integers.
        shift_amount: give the shift that would bring the bit to the top instead.
    """
    magnitude = a ^ shift_right(a, np.full(a.shape, 255, _U32)) if a.dtype.kind == "i" else a
    found = _highest(magnitude)
    top = 8 * a.dtype.itemsize - 1
    return np.where(found < 0, -1, top - found if shift_amount else found).astype(np.int32)


def extract(a: Lanes, position: Lanes, length: Lanes) -> Lanes:
    """bfe: `length` bits from `position` on; for signed types, extended by the highest of them.

    Only the low bytes of position and length count. A signed field that reaches beyond the top is
    extended by the sign of a.
    """
    width = 8 * a.dtype.itemsize
    start, count = (np.minimum(x & _U32(255), _U32(2 * width)) for x in (position, length))
    value = shift_right(a, start)
    unsigned = value.view(f"u{a.dtype.itemsize}")
    kept = np.minimum(count, _U32(width))
    ones = shift_left(np.full_like(unsigned, 1), kept) - unsigned.dtype.type(1)
    if a.dtype.kind == "u":
        field: Lanes = unsigned & ones
        return field
    last = np.minimum(start.astype(np.int64) + count - 1, width - 1)
    sign = shift_right(a, np.maximum(last, 0).astype(_U32)) & a.dtype.type(1)
    extended = np.where(sign == 1, unsigned | ~ones, unsigned & ones)
    result: Lanes = np.where(count == 0, unsigned.dtype.type(0), extended).view(a.dtype)
    return result


def permute(a: Lanes, b: Lanes, selector: Lanes) -> Lanes:
    """prmt: four bytes of {b, a} by four nibbles; a nibble's top bit asks for the sign only."""
    pool = np.concatenate([_bytes(a), _bytes(b)], axis=1)
    nibbles = (selector[:, None] >> (_U32(4) * np.arange(4, dtype=_U32))) & _U32(15)
    chosen = np.take_along_axis(pool, (nibbles & _U32(7)).astype(np.int64), axis=1)
    signs = np.where(chosen >> 7 == 1, np.uint8(255), np.uint8(0))
    picked = np.where(nibbles >> _U32(3) == 1, signs, chosen).astype(np.uint8)
    words: Lanes = np.ascontiguousarray(picked).view(_U32)
    return words[:, 0]


def funnel_shift(a: Lanes, b: Lanes, amount: Lanes, left: bool, clamps: bool) -> Lanes:
    """shf: 32 bits of the 64 bits {b, a}, shifted; the amount is clamped to 32 or taken modulo."""
    both = b.astype(np.uint64) << np.uint64(32) | a
    count = (np.minimum(amount, _U32(32)) if clamps else amount & _U32(31)).astype(np.uint64)
    shifted: Lanes = both << count >> np.uint64(32) if left else both >> count
    return shifted.astype(_U32)


def logic(a: Lanes, b: Lanes, c: Lanes, table: Lanes) -> Lanes:
    """lop3: the truth table's bit 4a + 2b + c, for each bit of the sources."""
    result = np.zeros_like(a)
    for index in range(8):
        term = (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
        result |= np.where(table >> _U32(index) & _U32(1) == 1, term, _U32(0))
    return result


def dot_product(a: Lanes, b: Lanes, c: Lanes, kinds: tuple[str, str]) -> Lanes:
    """dp4a: the sum of four byte products and c; `kinds` are "i" or "u" of a's and b's bytes."""
    bytes_a, bytes_b = (_bytes(x).view(f"{kind}1") for x, kind in zip((a, b), kinds, strict=True))
    total: Lanes = (bytes_a.astype(np.int64) * bytes_b).sum(axis=1) + c
    return total.astype(c.dtype)


def nth_set(mask: Lanes, base: Lanes, offset: Lanes) -> Lanes:
    """fns: the n-th set bit from `base` on, upwards for n > 0, downwards for n < 0; ~0 if none.

    With n = 0, the bit at `base` itself.
    """
    found = np.full(mask.shape, -1, dtype=np.int64)
    for lane, (bits, start, count) in enumerate(
        zip(mask.tolist(), base.tolist(), offset.tolist(), strict=True)
    ):
        step = -1 if count < 0 else 1
        places = [i for i in range(start, 32 if step > 0 else -1, step) if bits >> i & 1]
        if count == 0:
            found[lane] = start if bits >> start & 1 else -1
        elif len(places) >= abs(count):
            found[lane] = places[abs(count) - 1]
    return found.astype(np.int32).view(_U32)


def _operations() -> Iterator[tuple[str, Operation]]:
    counts: dict[str, Callable[..., Any]] = {"popc": population, "clz": leading_zeros}
    for width in (32, 64):
        name = f"b{width}"
        for opcode, function in counts.items():
            yield f"{opcode}.{name}", Operation(function, "u32", (name,))
        yield f"brev.{name}", Operation(reverse, name, (name,))
        for kind in (f"u{width}", f"s{width}"):
            for word, shift_amount in (("", False), (".shiftamt", True)):
                find = partial(find_highest, shift_amount=shift_amount)
                yield f"bfind{word}.{kind}", Operation(find, "s32", (kind,))
            yield f"bfe.{kind}", Operation(extract, kind, (kind, "u32", "u32"))
    yield "prmt.b32", Operation(permute, "b32", ("b32",) * 3)
    yield "lop3.b32", Operation(logic, "b32", ("b32", "b32", "b32", "u32"))
    yield "fns.b32", Operation(nth_set, "b32", ("b32", "b32", "s32"))
    for direction, mode in itertools.product("lr", ("clamp", "wrap")):
        shift = partial(funnel_shift, left=direction == "l", clamps=mode == "clamp")
        yield f"shf.{direction}.{mode}.b32", Operation(shift, "b32", ("b32", "b32", "u32"))
    for a, b in itertools.product("us", repeat=2):
        kinds = ("i" if a == "s" else "u", "i" if b == "s" else "u")
        total = "s32" if "s" in (a, b) else "u32"
        product = partial(dot_product, kinds=kinds)
        yield f"dp4a.{a}32.{b}32", Operation(product, total, ("b32", "b32", total))


OPERATIONS = dict(_operations())
"""Full name of an opcode -> what it computes."""
