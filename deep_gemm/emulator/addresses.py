"""Addresses as values: between generic ones and those of a state space, and between CTAs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Instruction, Register
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import Lanes, Symbols, fetcher
from deep_gemm.emulator.spaces import PARAMETER_WINDOW, SHARED_WINDOW, in_window
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_SPACES = r"\.(?P<space>global|const|param(?:::entry)?|shared(?:::cta|::cluster)?)"


def _write(warp: Warp, destination: Register, value: Lanes, mask: Mask) -> None:
    warp.write(destination.slot, value.astype(warp.registers[destination.slot].dtype), mask)


def _convert(instruction: Instruction, symbols: Symbols) -> Execute:
    """cvta: a parameter's address may have lost its window in 32 bits, and gets it back."""
    found = parts(instruction, rf"cvta(?P<to>\.to)?{_SPACES}\.[us]64")
    destination, source = instruction.operands
    if not isinstance(destination, Register):
        raise unknown(instruction)
    fetch = fetcher(source, symbols, np.uint64)
    space, leaves_generic = found["space"].partition("::")[0], bool(found["to"])
    windows = {"shared": SHARED_WINDOW, "param": PARAMETER_WINDOW}

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        value = fetch(warp).astype(np.uint64)
        if space == "shared" and leaves_generic:
            if not in_window(value, SHARED_WINDOW)[mask].all():
                raise HazardError("R13", "cvta.to.shared of an address that is not shared memory")
            value = value & np.uint64(0xFFFF_FFFF)
        else:
            value = value | np.uint64(windows.get(space, 0))
        _write(warp, destination, value, mask)
        return None

    return execute


def _map(instruction: Instruction, symbols: Symbols) -> Execute:
    """mapa: the address of the same place in another CTA of the cluster, generic or not.

    A rank that does not exist is no error before the address is used: lanes that will not use
    theirs may give any.
    """
    found = parts(instruction, r"mapa(?P<space>\.shared::cluster)?\.[us](?:32|64)")
    destination, source, rank = instruction.operands
    if not isinstance(destination, Register):
        raise unknown(instruction)
    fetch, which = fetcher(source, symbols, np.uint64), fetcher(rank, symbols, np.uint32)
    window = 0 if found["space"] else SHARED_WINDOW

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        # A rank that does not exist is an error where the address is used.
        value, ranks = fetch(warp).astype(np.uint64), which(warp)
        if window and not in_window(value, window)[mask].all():
            raise HazardError("R13", "mapa of a generic address that is not shared memory")
        place = value & np.uint64(OFFSET_MASK) | ranks.astype(np.uint64) << np.uint64(RANK_SHIFT)
        _write(warp, destination, place | np.uint64(window), mask)
        return None

    return execute


def _rank_of(instruction: Instruction, symbols: Symbols) -> Execute:
    """getctarank: the inverse of mapa."""
    parts(instruction, r"getctarank(?:\.shared::cluster)?\.[us](?:32|64)")
    destination, source = instruction.operands
    if not isinstance(destination, Register):
        raise unknown(instruction)
    fetch = fetcher(source, symbols, np.uint64)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        place = fetch(warp).astype(np.uint64) & np.uint64(0xFFFF_FFFF)
        _write(warp, destination, place >> np.uint64(RANK_SHIFT), mask)
        return None

    return execute


def _is_in_space(instruction: Instruction, symbols: Symbols) -> Execute:
    """isspacep: whether a generic address lies in a space."""
    pattern = r"isspacep\.(?P<space>global|param(?:::entry)?|shared(?:::cta|::cluster)?)"
    space = parts(instruction, pattern)["space"]
    destination, source = instruction.operands
    if not isinstance(destination, Register):
        raise unknown(instruction)
    fetch = fetcher(source, symbols, np.uint64)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        value = fetch(warp)
        is_shared, is_param = (in_window(value, w) for w in (SHARED_WINDOW, PARAMETER_WINDOW))
        own = (value & np.uint64(0xFFFF_FFFF)) >> np.uint64(RANK_SHIFT) == warp.cta.rank
        answers = {
            "global": ~is_shared & ~is_param,
            "param": is_param,
            "param::entry": is_param,
            "shared::cluster": is_shared,
        }
        _write(warp, destination, answers.get(space, is_shared & own), mask)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "cvta": _convert,
    "mapa": _map,
    "getctarank": _rank_of,
    "isspacep": _is_in_space,
}
