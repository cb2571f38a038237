"""Bulk copies of bytes, and reductions into global memory: cp.async.bulk, cp.reduce.async.bulk.

Reductions are atomic per element in any order; here, in the order of their elements.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deep_gemm.emulator.atomics import OPERATIONS, dtype_of
from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.global_memory import Bytes, Flags, GlobalMemory
from deep_gemm.emulator.ir import Address, Instruction, TensorAddress
from deep_gemm.emulator.memory import OFFSET_MASK, RANK_SHIFT
from deep_gemm.emulator.modifiers import parts, unknown
from deep_gemm.emulator.operands import Symbols, address, fetcher
from deep_gemm.emulator.tma import TensorMap, store_box, swizzled_offsets
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]
Build = Callable[[Instruction, Symbols], Execute]

_GRANULE = 16
_HINT = r"(?:\.L2::cache_hint)?"
_BYTES = r"\.mbarrier::complete_tx::bytes"
_OPERATION = r"\.(?P<op>add|min|max|inc|dec|and|or|xor)"

# By CUtensorMapDataType, for sums; the other operations take integers.
_TYPES = {2: "u32", 3: "s32", 4: "u64", 5: "s64", 6: "f16", 7: "f32", 9: "bf16"}


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise HazardError("R14", f"bulk copy: {text}")


def _range(start: int, size: int) -> NDArray[np.int64]:
    """Offsets of the bytes of a copy in shared memory."""
    _require(size % _GRANULE == 0, f"the size must be a multiple of 16 bytes, got {size}")
    _require(start % _GRANULE == 0, f"shared memory at {start:#x}, not 16-aligned")
    return start + np.arange(size, dtype=np.int64)


def _check_global(start: int) -> int:
    _require(start % _GRANULE == 0, f"global memory at {start:#x}, not 16-aligned")
    return start


def _load(instruction: Instruction, symbols: Symbols) -> Execute:
    """From global memory to shared memory, of this CTA or of each CTA of a mask."""
    pattern = (
        rf"cp\.async\.bulk\.shared::(?:cluster|cta)\.global{_BYTES}"
        rf"(?P<multicast>\.multicast::cluster)?{_HINT}"
    )
    multicast = bool(parts(instruction, pattern)["multicast"])
    target, source, size, barrier, *rest = instruction.operands
    where, what, completes = (address(item, symbols) for item in (target, source, barrier))
    fetch_size = fetcher(size, symbols, np.uint32)
    fetch_ranks = fetcher(rest[0], symbols, np.uint16) if multicast else None

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        cluster = warp.cta.cluster
        cluster.order.touch_global(warp)
        for lane in np.flatnonzero(mask):
            start, place = int(where(warp)[lane]), int(completes(warp)[lane])
            count = int(fetch_size(warp)[lane])
            origin = _check_global(int(what(warp)[lane]))
            ranks = [start >> RANK_SHIFT]
            if fetch_ranks is not None:
                bits = int(fetch_ranks(warp)[lane])
                ranks = [rank for rank in range(16) if bits >> rank & 1]
            _require(start >> RANK_SHIFT == place >> RANK_SHIFT, "the mbarrier is in another CTA")
            for rank in ranks:
                cluster.fill(
                    rank,
                    _range(start & OFFSET_MASK, count),
                    place & OFFSET_MASK,
                    partial(_read_global, cluster.launch.memory, origin, count),
                    warp,
                )
        return None

    return execute


def _read_global(memory: GlobalMemory, start: int, count: int) -> tuple[Bytes, None]:
    return memory.read_bytes(start, count), None


def _to_peer(instruction: Instruction, symbols: Symbols) -> Execute:
    """From this CTA's shared memory to that of another CTA, and to an mbarrier there."""
    parts(instruction, rf"cp\.async\.bulk\.shared::cluster\.shared::cta{_BYTES}")
    target, source, size, barrier = instruction.operands
    where, what, completes = (address(item, symbols) for item in (target, source, barrier))
    fetch_size = fetcher(size, symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        cta = warp.cta
        for lane in np.flatnonzero(mask):
            start, place = int(where(warp)[lane]), int(completes(warp)[lane])
            rank, count = start >> RANK_SHIFT, int(fetch_size(warp)[lane])
            _require(rank == place >> RANK_SHIFT, "the mbarrier is in another CTA than the bytes")
            _require(rank != cta.rank, "from shared memory it goes to another CTA")
            offsets = _range(int(what(warp)[lane]) & OFFSET_MASK, count)
            cta.cluster.order.phases(place, warp)
            cta.order.send(warp, offsets, cta.cluster.ctas[rank], place & OFFSET_MASK)
            release = cta.begin_read("R4", offsets, reader="a bulk copy")

            def read(
                offsets: NDArray[np.int64] = offsets, release: Callable[[], None] = release
            ) -> tuple[Bytes, Flags]:
                release()
                return cta.tile(offsets), cta.shared.is_defined(offsets)

            cta.cluster.fill(
                rank, _range(start & OFFSET_MASK, count), place & OFFSET_MASK, read, warp
            )
        return None

    return execute


def _store(instruction: Instruction, symbols: Symbols) -> Execute:
    """From shared to global memory, as it is."""
    parts(instruction, rf"cp\.async\.bulk\.global\.shared::cta\.bulk_group{_HINT}")
    return _into_global(instruction, symbols, None)


def _reduce(instruction: Instruction, symbols: Symbols) -> Execute:
    """From shared to global memory, each element combined with what is there."""
    pattern = (
        rf"cp\.reduce\.async\.bulk\.global\.shared::cta\.bulk_group{_HINT}{_OPERATION}"
        r"(?:\.noftz)?\.(?P<type>[usb](?:32|64)|f32|f64|f16|bf16)"
    )
    found = parts(instruction, pattern)
    return _into_global(instruction, symbols, _combiner(instruction, found["op"], found["type"]))


def _combiner(instruction: Instruction, op: str, name: str) -> Callable[[Bytes, Bytes], Bytes]:
    """Combines bytes, [words, bytes], element by element: the old ones and the operands."""
    combine = OPERATIONS.get((op, name))
    if combine is None:
        raise unknown(instruction)
    dtype = dtype_of(name)

    def combined(old: Bytes, new: Bytes) -> Bytes:
        parts_ = (np.ascontiguousarray(words).view(dtype) for words in (old, new))
        result: NDArray[Any] = np.asarray(combine(*parts_))
        return np.ascontiguousarray(result.astype(dtype, copy=False)).view(np.uint8)

    return combined


def _into_global(
    instruction: Instruction, symbols: Symbols, combine: Callable[[Bytes, Bytes], Bytes] | None
) -> Execute:
    target, source, size, *_ = instruction.operands
    where, what = address(target, symbols), address(source, symbols)
    fetch_size = fetcher(size, symbols, np.uint32)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        cta = warp.cta
        memory = cta.grid.memory
        for lane in np.flatnonzero(mask):
            start = _check_global(int(where(warp)[lane]))
            at = np.array([start], dtype=np.uint64)
            offsets = _range(int(what(warp)[lane]) & OFFSET_MASK, int(fetch_size(warp)[lane]))

            def write(
                values: Bytes, defined: NDArray[np.bool_], at: NDArray[np.uint64] = at
            ) -> None:
                if not defined.all():
                    raise HazardError("R26", f"bulk copy of undefined bytes to {int(at[0]):#x}")
                words = values.reshape(1, -1)
                if combine is not None:
                    old = memory.read(at, words.shape[1], alignment=1)
                    words = combine(old.reshape(-1), values.reshape(-1)).reshape(1, -1)
                memory.write(at, words, alignment=1)

            operation = cta.order.storing(warp, int(lane))
            cta.cluster.maps.write(warp, at, offsets.size, operation)
            store = cta.start_store(offsets, write, warp, int(lane))
            warp.stores.setdefault(int(lane), []).append(store)
        return None

    return execute


def _reduce_box(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.reduce.async.bulk.tensor: a TMA store that combines, in the type of the tensor map."""
    pattern = (
        r"cp\.reduce\.async\.bulk\.tensor\.[1-5]d\.global\.shared::cta"
        rf"{_OPERATION}(?:\.tile)?\.bulk_group{_HINT}"
    )
    op = parts(instruction, pattern)["op"]
    target, source = instruction.operands[:2]
    if not isinstance(target, TensorAddress):
        raise unknown(instruction)
    fetch_map = address(Address(target.base, 0), symbols)  # type: ignore[arg-type]
    coordinates = [fetcher(item, symbols, np.uint32) for item in target.coordinates]
    where = address(source, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        cta = warp.cta
        for lane in np.flatnonzero(mask):
            map_address = int(fetch_map(warp)[lane])
            tensor_map = cta.cluster.use_map(map_address, warp)
            cta.cluster.maps.use(map_address, cta.order.storing(warp, int(lane)))
            name = _TYPES.get(tensor_map.dtype, "none")
            kind = f"b{name[1:]}" if op in ("and", "or", "xor") else name
            combine = _combiner(instruction, op, kind)
            at = [int(np.int32(item(warp)[lane].view(np.int32))) for item in coordinates]
            offsets = swizzled_offsets(tensor_map, int(where(warp)[lane]) & OFFSET_MASK)
            store = cta.start_store(
                offsets,
                partial(_put_box, tensor_map, cta.grid.memory, at, combine),
                warp,
                int(lane),
            )
            warp.stores.setdefault(int(lane), []).append(store)
        return None

    return execute


def _put_box(
    tensor_map: TensorMap,
    memory: GlobalMemory,
    coordinates: list[int],
    combine: Callable[[Bytes, Bytes], Bytes],
    values: Bytes,
    defined: NDArray[np.bool_],
) -> None:
    store_box(tensor_map, memory, coordinates, values, defined, combine)


def _copy(instruction: Instruction, symbols: Symbols) -> Execute:
    if "bulk_group" in instruction.modifiers:
        return _store(instruction, symbols)
    if "shared::cta" in instruction.modifiers[3:]:
        return _to_peer(instruction, symbols)
    return _load(instruction, symbols)


TABLE: dict[str, Build] = {
    "cp.reduce.async.bulk.tensor": _reduce_box,
    "cp.reduce.async.bulk": _reduce,
    "cp.async.bulk": _copy,
}
