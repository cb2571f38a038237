"""WGMMA: asynchronous matrix products. Each warp computes its 16 rows of the 64."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator import wgmma, wgmma_halves
from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.float_formats import BF16, FP16
from deep_gemm.emulator.ir import Immediate, Instruction, Operand, Vector
from deep_gemm.emulator.modifiers import unknown
from deep_gemm.emulator.operands import LANES, Symbols, fetcher
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

MMA_M = 64
K_BYTES = 32
WARP_ROWS = 16

_HALVES = {"bf16": BF16, "f16": FP16}
_FP8: dict[str, wgmma.Fp8] = {"e4m3": "e4m3", "e5m2": "e5m2"}

Multiply = Callable[
    [NDArray[np.uint8], NDArray[np.uint8], "NDArray[np.float32] | None"], NDArray[np.float32]
]
"""Of the bytes of A and B, [rows, 32] and [n, 32], and the accumulators, [rows, n] or none."""


@lru_cache(maxsize=4096)
def _offsets(descriptor: int, rows: int) -> NDArray[np.int64]:
    """Shared-memory offsets of an operand tile, [rows, 32]."""
    decoded = wgmma.decode_descriptor(descriptor)
    return wgmma.operand_offsets(decoded, rows, K_BYTES).astype(np.int64)


def _kind(instruction: Instruction) -> tuple[int, Multiply]:
    """N, and what the instruction computes.

    Raises:
        UnknownOpcodeError: it is of a type, or with operands, that are not modelled.
    """
    found = re.fullmatch(
        r"wgmma\.mma_async\.sync\.aligned\.m64n(?P<n>\d+)"
        r"(?:k32\.f32\.(?P<a>e4m3|e5m2)\.(?P<b>e4m3|e5m2)|k16\.f32\.(?P<half>b?f16)\.(?P=half))",
        instruction.name,
    )
    if found is None:
        raise unknown(instruction)
    sign_a, sign_b, *transposed = instruction.operands[4:]
    if any(flag != Immediate(0) for flag in transposed):
        raise unknown(instruction)
    if found["half"]:
        of = _HALVES[found["half"]]
        flip_a, flip_b = (_sign_flip(instruction, sign, 0x8000) for sign in (sign_a, sign_b))
        return int(found["n"]), lambda a, b, c: wgmma_halves.multiply(
            a.view(np.uint16) ^ flip_a, b.view(np.uint16) ^ flip_b, c, of
        )
    of_a, of_b = _FP8[found["a"]], _FP8[found["b"]]
    flip_a, flip_b = (_sign_flip(instruction, sign, 0x80) for sign in (sign_a, sign_b))
    return int(found["n"]), lambda a, b, c: wgmma.multiply(
        a ^ flip_a, b ^ flip_b, c, a_format=of_a, b_format=of_b
    )


def _sign_flip(instruction: Instruction, sign: Operand, bit: int) -> int:
    """What an operand's codes are combined with to be taken times 1 or -1."""
    if sign not in (Immediate(1), Immediate(-1)):
        raise unknown(instruction)
    return bit if sign == Immediate(-1) else 0


def _mma(instruction: Instruction, symbols: Symbols) -> Execute:
    """wgmma.mma_async of operands from shared memory, K-major, FP32 accumulators."""
    n, product_of = _kind(instruction)
    accumulators, a, b, scale_d = instruction.operands[:4]
    if not isinstance(accumulators, Vector):
        raise EmulationError("wgmma needs a vector of accumulators")
    slots = tuple(register.slot for register in accumulators.items)  # type: ignore[union-attr]
    fetch_a, fetch_b = (fetcher(item, symbols, np.uint64) for item in (a, b))
    fetch_scale = fetcher(scale_d, symbols, np.bool_)
    rows, columns = wgmma.accumulator_rows_columns(n)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "wgmma")
        descriptors = [np.unique(fetch(warp)) for fetch in (fetch_a, fetch_b)]
        if any(len(values) != 1 for values in descriptors):
            raise HazardError("R8", "wgmma with descriptors that differ between lanes")
        desc_a, desc_b = (int(values[0]) for values in descriptors)
        warp.issue_wgmma(desc_a, desc_b, slots)
        first_row = WARP_ROWS * (warp.index % 4)
        at_a = _offsets(desc_a, MMA_M)[first_row : first_row + WARP_ROWS]
        at_b = _offsets(desc_b, n)
        keeps = bool(fetch_scale(warp)[0])
        access = warp.cta.cluster.access()
        warp.cta.order.multiply(warp, at_a, at_b)
        release = warp.cta.begin_read("R3", at_a, at_b)
        first_thread = LANES * (warp.index % 4)
        own = slice(first_thread, first_thread + LANES)
        at_rows, at_columns = rows[own] - first_row, columns[own]

        def multiply() -> None:
            tile = np.zeros((WARP_ROWS, n), dtype=np.float32) if keeps else None
            if tile is not None:
                held = np.stack([warp.registers[s].view(np.float32) for s in slots], axis=1)
                tile[at_rows, at_columns] = held
            product = product_of(warp.cta.tile(at_a), warp.cta.tile(at_b), tile)
            values = product[at_rows, at_columns]
            for i, slot in enumerate(slots):
                # Some compilers hold floats in registers of bits.
                dtype = warp.registers[slot].dtype
                warp.registers[slot] = np.ascontiguousarray(values[:, i]).view(dtype)
            rows_of_a, rows_of_b = (warp.cta.undefined_rows(tile) for tile in (at_a, at_b))
            if not keeps:
                warp.undefined.clear(slots)
            if rows_of_a.any() or rows_of_b.any():
                undefined = (rows_of_a[:, None] | rows_of_b)[at_rows, at_columns]
                for i, slot in enumerate(slots):
                    warp.undefined.taint(slot, undefined[:, i], access)
            release()

        warp.wgmma.open_group.append((warp.cta.cluster.located(multiply), slots))
        if not warp.cta.cluster.engine.is_lazy():
            warp.finish_wgmma_early()
        return None

    return execute


def _fence(instruction: Instruction, symbols: Symbols) -> Execute:
    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "wgmma.fence")
        warp.written_since_fence.clear()
        return None

    return execute


def _commit(instruction: Instruction, symbols: Symbols) -> Execute:
    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "wgmma.commit_group")
        warp.wgmma.groups.append(warp.wgmma.open_group)
        warp.wgmma.open_group = []
        warp.timeline.wgmma.close()
        return None

    return execute


def _wait(instruction: Instruction, symbols: Symbols) -> Execute:
    keep = fetcher(instruction.operands[0], symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "wgmma.wait_group")
        warp.wait_wgmma(int(keep(warp)[0]))
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "wgmma.mma_async": _mma,
    "wgmma.fence": _fence,
    "wgmma.commit_group": _commit,
    "wgmma.wait_group": _wait,
}
