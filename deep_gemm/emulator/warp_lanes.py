"""Instructions between the lanes of a warp: shuffles, votes, matches and reductions.

Each waits until all lanes that its member mask names, and that have not left, are there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction, Operand, Pair, Register
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import LANES, Symbols, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_LANE = np.arange(LANES, dtype=np.int64)


def await_members(warp: Warp, mask: Mask, members: Any, what: str) -> Wait | None:
    """A Wait if lanes that the member mask names are elsewhere.

    Raises:
        HazardError: R8, a lane executes it without being named, or the lanes give different masks.
    """
    given = members[mask]
    if (given != given[0]).any():
        raise HazardError("R8", f"{what} with member masks that differ between lanes")
    named = (int(given[0]) >> _LANE) & 1 == 1
    if (mask & ~named).any():
        raise HazardError("R8", f"{what} by a lane that its member mask does not name")

    def all_there() -> bool:
        group = next(g for g in warp.groups if (g.mask & mask).any())
        return bool((group.mask == (group.mask | (named & warp.alive))).all())

    if (mask == (named & warp.alive)).all():
        return None
    if all_there():
        raise HazardError("R8", f"{what} without all the lanes that its member mask names")
    return Wait(all_there, what)


def _two(destination: Operand) -> tuple[Operand, Operand | None]:
    if isinstance(destination, Pair):
        return destination.first, destination.second
    return destination, None


def _put(warp: Warp, operand: Operand | None, value: Any, mask: Mask) -> None:
    """Writes lanes of a register; a sink takes nothing."""
    if isinstance(operand, Register):
        held = warp.registers[operand.slot].dtype
        given = np.broadcast_to(np.asarray(value), (LANES,))
        same = given.dtype.itemsize == held.itemsize
        warp.write(operand.slot, given.view(held) if same else given.astype(held), mask)


def shuffle_sources(mode: str, b: Any, c: Any) -> tuple[Any, Any]:
    """Which lane each lane reads, and whether that is within its segment: shfl's own formulas."""
    b_value, clamp, segments = b & 31, c & 31, c >> 8 & 31
    highest = (_LANE & segments) | (clamp & ~segments)
    lowest = _LANE & segments
    source = {
        "up": _LANE - b_value,
        "down": _LANE + b_value,
        "bfly": _LANE ^ b_value,
        "idx": lowest | (b_value & ~segments),
    }[mode]
    inside = source >= highest if mode == "up" else source <= highest
    return np.where(inside, source, _LANE), inside


def _shuffle(instruction: Instruction, symbols: Symbols) -> Execute:
    mode = parts(instruction, r"shfl\.sync\.(?P<mode>idx|up|down|bfly)\.b32")["mode"]
    destination, *operands = instruction.operands
    fetches = [fetcher(operand, symbols, np.uint32) for operand in operands]
    result, is_inside = _two(destination)
    slot = operands[0].slot if isinstance(operands[0], Register) else -1

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        value, b, c, members = (fetch(warp) for fetch in fetches)
        wait = await_members(warp, mask, members, "shfl.sync")
        if wait is not None:
            return wait
        source, inside = shuffle_sources(mode, b.astype(np.int64), c.astype(np.int64))
        if not mask[source[mask]].all():
            raise HazardError("R8", "shfl.sync reads a lane that is not a member")
        undefined, origin = warp.undefined.lanes(slot)[source], warp.undefined.origin((slot,))
        _put(warp, result, value[source], mask)
        if isinstance(result, Register):
            warp.undefined.taint(result.slot, undefined & mask, origin)
        _put(warp, is_inside, inside, mask)
        return None

    return execute


def _elect(instruction: Instruction, symbols: Symbols) -> Execute:
    """elect.sync: true in one lane, here the lowest."""
    parts(instruction, r"elect\.sync")
    destination, members = instruction.operands
    if not isinstance(destination, Pair):
        raise unknown(instruction)
    fetch = fetcher(members, symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        wait = await_members(warp, mask, fetch(warp), "elect.sync")
        if wait is None:
            leader = int(np.flatnonzero(mask)[0])
            _put(warp, destination.first, np.uint32(leader), mask)
            _put(warp, destination.second, leader == _LANE, mask)
        return wait

    return execute


def _vote(instruction: Instruction, symbols: Symbols) -> Execute:
    pattern = r"vote\.sync\.(?P<mode>all|any|uni|ballot)\.(?:pred|b32)"
    mode = parts(instruction, pattern)["mode"]
    destination, source, members = instruction.operands
    fetch, fetch_members = (
        fetcher(source, symbols, np.bool_),
        fetcher(members, symbols, np.uint32),
    )

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        wait = await_members(warp, mask, fetch_members(warp), "vote.sync")
        if wait is None:
            votes = fetch(warp) & mask
            count, everybody = int(votes.sum()), int(mask.sum())
            results = {
                "all": count == everybody,
                "any": count > 0,
                "uni": count in (0, everybody),
                "ballot": np.uint32(_bits(votes)),
            }
            _put(warp, destination, results[mode], mask)
        return wait

    return execute


def _bits(lanes: Mask) -> int:
    """Lanes as the bits of a mask."""
    return int((lanes.astype(np.int64) << _LANE).sum())


def _active(instruction: Instruction, symbols: Symbols) -> Execute:
    parts(instruction, r"activemask\.b32")
    (destination,) = instruction.operands

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        _put(warp, destination, np.uint32(_bits(mask)), mask)
        return None

    return execute


def _match(instruction: Instruction, symbols: Symbols) -> Execute:
    found = parts(instruction, r"match\.(?P<mode>any|all)\.sync\.b(?P<bits>32|64)")
    destination, source, members = instruction.operands
    fetch = fetcher(source, symbols, np.dtype(f"u{int(found['bits']) // 8}"))
    fetch_members = fetcher(members, symbols, np.uint32)
    result, agrees = _two(destination)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        wait = await_members(warp, mask, fetch_members(warp), "match.sync")
        if wait is None:
            values = fetch(warp)
            same = [_bits(mask & (values == value)) for value in values]
            if found["mode"] == "all":
                equal = same[int(np.flatnonzero(mask)[0])] == _bits(mask)
                same = [_bits(mask) if equal else 0] * LANES
                _put(warp, agrees, equal, mask)
            _put(warp, result, np.array(same, dtype=np.uint32), mask)
        return wait

    return execute


_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "min": min,
    "max": max,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}


def _redux(instruction: Instruction, symbols: Symbols) -> Execute:
    pattern = r"redux\.sync\.(?:(?P<op>add|min|max)\.(?P<kind>[us])32|(?P<bitwise>and|or|xor)\.b32)"
    found = parts(instruction, pattern)
    combine = _REDUCTIONS[found["op"] or found["bitwise"]]
    signed = found["kind"] == "s"
    destination, source, members = instruction.operands
    fetch, fetch_members = (fetcher(item, symbols, np.uint32) for item in (source, members))

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        wait = await_members(warp, mask, fetch_members(warp), "redux.sync")
        if wait is None:
            values = fetch(warp).view(np.int32 if signed else np.uint32)[mask].tolist()
            total = reduce(combine, values) & 0xFFFF_FFFF
            _put(warp, destination, np.uint32(total), mask)
        return wait

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "shfl": _shuffle,
    "elect": _elect,
    "vote": _vote,
    "activemask": _active,
    "match": _match,
    "redux": _redux,
}
