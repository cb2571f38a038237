"""atom and red on global and shared memory, local or of a peer.

Lanes go one after the other, lane 0 first: one of the orders that the ISA allows, which decides the
rounding of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator import arithmetic, conversions
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.float_formats import BF16, FP16, Format
from deep_gemm.emulator.ir import Instruction, Register, Vector
from deep_gemm.emulator.modifiers import SCOPE, parts, unknown
from deep_gemm.emulator.operands import Symbols, address, fetcher
from deep_gemm.emulator.spaces import targets
from deep_gemm.emulator.strong import atomic_strength
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]
Combine = Callable[..., Any]

_PATTERN = (
    rf"(?:atom|red)(?P<order>\.relaxed|\.acquire|\.release|\.acq_rel)?{SCOPE}?"
    r"(?P<space>\.global|\.shared(?:::cta|::cluster)?)?(?P<order_after>\.relaxed|\.acq_rel)?"
    rf"{SCOPE}?(?P<order_last>\.relaxed|\.acquire|\.release|\.acq_rel)?"
    r"\.(?P<op>and|or|xor|exch|cas|add|inc|dec|min|max)(?:\.noftz)?(?:\.L2::cache_hint)?"
    r"(?:\.v(?P<vector>[248]))?\.(?P<type>[busf](?:16|32|64)|f16x2|bf16|bf16x2)"
)


def _half(of: Format, function: Combine) -> Combine:
    return lambda a, b: of.encode(function(of.decode(a), of.decode(b)))


def _pair(function: Combine) -> Combine:
    def combine(a: Any, b: Any) -> Any:
        highs, lows = zip(conversions.unpack(a), conversions.unpack(b), strict=True)
        return conversions.pack(function(*highs), function(*lows))

    return combine


def _float_operations() -> dict[tuple[str, str], Combine]:
    table: dict[tuple[str, str], Combine] = {
        ("add", "f32"): arithmetic.add_f32,
        ("add", "f64"): np.add,
    }
    for op, function in (
        ("add", arithmetic.add_f32),
        ("min", arithmetic.minimum_f32),
        ("max", arithmetic.maximum_f32),
    ):
        for name, of in (("f16", FP16), ("bf16", BF16)):
            table[op, name] = _half(of, function)
            table[op, f"{name}x2"] = _pair(_half(of, function))
    return table


def _operations() -> dict[tuple[str, str], Combine]:
    table = _float_operations()
    bitwise: dict[str, Combine] = {"and": np.bitwise_and, "or": np.bitwise_or}
    bitwise["xor"] = np.bitwise_xor
    for width in (32, 64):
        for op, function in bitwise.items():
            table[op, f"b{width}"] = function
        table["exch", f"b{width}"] = lambda old, new: new
        for kind in "us":
            table["add", f"{kind}{width}"] = np.add
            table["min", f"{kind}{width}"] = np.minimum
            table["max", f"{kind}{width}"] = np.maximum
    for width in (16, 32, 64):
        table["cas", f"b{width}"] = lambda old, compare, new: np.where(old == compare, new, old)
    table["inc", "u32"] = lambda old, limit: np.where(
        old >= limit, np.uint32(0), old + np.uint32(1)
    )
    table["dec", "u32"] = lambda old, limit: np.where(
        (old == 0) | (old > limit), limit, old - np.uint32(1)
    )
    return table


OPERATIONS = _operations()
"""(operation, type) -> new value of the old one and of the operands."""

_BITS = {"f16": 16, "bf16": 16, "f16x2": 32, "bf16x2": 32}


def dtype_of(name: str) -> np.dtype[Any]:
    """The type in which an operation wants its values; codes of 16-bit floats are integers."""
    if name in _BITS:
        return np.dtype(f"u{_BITS[name] // 8}")
    kind = {"b": "u", "u": "u", "s": "i", "f": "f"}[name[0]]
    return np.dtype(f"{kind}{int(name[1:]) // 8}")


def _atomic(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, _PATTERN)
    combine = OPERATIONS.get((found["op"], found["type"]))
    if combine is None:
        raise unknown(instruction)
    returns = instruction.opcode == "atom"
    operands = list(instruction.operands)
    destination = operands.pop(0) if returns else None
    where = address(operands.pop(0), symbols)
    dtype, count = dtype_of(found["type"]), int(found["vector"] or 1)
    num_sources = 2 if found["op"] == "cas" else 1
    sources = [_items(operand) for operand in operands[:num_sources]]
    if any(len(items) != count for items in sources) or len(operands) < num_sources:
        raise unknown(instruction)
    fetches = [[fetcher(item, symbols, dtype) for item in items] for items in sources]
    results = [] if destination is None else _items(destination)
    space = found["space"].removeprefix(".")
    orders = found["order"], found["order_after"], found["order_last"]
    strength = atomic_strength("".join(orders))

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        values = [[_typed(fetch(warp), dtype) for fetch in items] for items in fetches]
        size = count * dtype.itemsize
        for target, addresses in targets(warp, space, where(warp), mask):
            for lane in np.flatnonzero(target.mask):
                only = np.arange(mask.size) == lane
                old, undefined = target.cta.load(
                    target.space, addresses, size, only, warp, strength
                )
                if undefined.any():
                    raise HazardError("R26", "an atomic operation on undefined memory")
                words = old[lane].view(dtype)
                new = [
                    combine(words[i : i + 1], *(items[i][lane : lane + 1] for items in values))
                    for i in range(count)
                ]
                old_words = words.copy()
                old[lane] = np.concatenate(new).astype(dtype, copy=False).view(np.uint8)
                target.cta.store(target.space, addresses, old, only, warp, strong=strength)
                _give(warp, results, old_words, only)
        if returns:
            warp.poll()
        return None

    return execute


def _items(operand: object) -> tuple[object, ...]:
    return operand.items if isinstance(operand, Vector) else (operand,)


def _typed(value: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if value.dtype.itemsize == dtype.itemsize:
        return value.view(dtype)
    return value.astype(f"u{dtype.itemsize}").view(dtype)


def _give(warp: Warp, results: Any, words: NDArray[Any], only: Mask) -> None:
    for register, word in zip(results, words, strict=False):
        if isinstance(register, Register):
            held = warp.registers[register.slot].dtype
            bits = np.broadcast_to(word.view(f"u{word.dtype.itemsize}"), only.shape)
            wide = bits.astype(f"u{held.itemsize}").view(held)
            warp.write(register.slot, wide, only)


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {"atom": _atomic, "red": _atomic}
