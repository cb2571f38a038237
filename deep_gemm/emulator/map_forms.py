"""Instructions on tensor maps: changes on the device, their fences, and prefetches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.ir import Address, Immediate, Instruction, TensorAddress
from deep_gemm.emulator.map_bytes import FIELDS, MAP_ALIGNMENT, MAP_BYTES, replace_field
from deep_gemm.emulator.modifiers import LEVELS, SCOPE, parts, unknown
from deep_gemm.emulator.operands import LANES, Lanes, Symbols, address, fetcher
from deep_gemm.emulator.spaces import Target, targets
from deep_gemm.emulator.warp import Mask, Wait, Warp

Execute = Callable[[Warp, Mask], Wait | None]

_WIDE_FIELDS = ("global_address", "global_stride")


def _replace(instruction: Instruction, symbols: Symbols) -> Execute:
    """tensormap.replace: a field of the map at each lane's address has a new value."""
    found = parts(
        instruction,
        r"tensormap\.replace\.tile\.(?P<field>\w+)(?:\.(?P<space>global|shared::cta))?"
        r"\.b1024\.(?P<type>b32|b64)",
    )
    name, field = found["field"], FIELDS.get(found["field"])
    target, *ordinals, value = instruction.operands
    is_wide = name in _WIDE_FIELDS
    if field is None or len(ordinals) != bool(field.count) or is_wide != (found["type"] == "b64"):
        raise unknown(instruction)
    if field.codes is not None and _constant(value, instruction) not in field.codes:
        raise unknown(instruction)
    ordinal = _constant(ordinals[0], instruction) if ordinals else 0
    if not 0 <= ordinal < max(field.count, 1):
        raise unknown(instruction)
    where, fetch = address(target, symbols), fetcher(value, symbols, np.uint64)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for lane in np.flatnonzero(mask):
            only: Mask = np.arange(LANES) == lane
            for place, at in targets(warp, found["space"], where(warp), only):
                data = _read_map(place, at, warp)
                new = replace_field(data, name, ordinal, int(fetch(warp)[lane]))
                _write_map(place, at, new, warp)
        return None

    return execute


def _constant(operand: object, instruction: Instruction) -> int:
    if not isinstance(operand, Immediate) or not isinstance(operand.value, int):
        raise unknown(instruction)
    return operand.value


def _read_map(place: Target, at: Lanes, warp: Warp) -> bytes:
    """The map that the only lane of a target reads, in words as wide as its alignment."""
    words = []
    for offset in range(0, MAP_BYTES, MAP_ALIGNMENT):
        places = at + np.uint64(offset)
        word, undefined = place.cta.load(place.space, places, MAP_ALIGNMENT, place.mask, warp)
        if undefined.any():
            raise HazardError("R26", "a tensor map of undefined shared memory")
        words.append(word[place.mask].tobytes())
    return b"".join(words)


def _write_map(place: Target, at: Lanes, data: bytes, warp: Warp) -> None:
    for offset in range(0, MAP_BYTES, MAP_ALIGNMENT):
        word = np.frombuffer(data[offset : offset + MAP_ALIGNMENT], dtype=np.uint8)
        words = np.broadcast_to(word, (LANES, MAP_ALIGNMENT))
        place.cta.store(place.space, at + np.uint64(offset), words, place.mask, warp)


def _copy_and_release(instruction: Instruction, symbols: Symbols) -> Execute:
    """tensormap.cp_fenceproxy: a warp copies one map to global memory, and releases it."""
    parts(
        instruction,
        r"tensormap\.cp_fenceproxy\.global\.shared::cta\.tensormap::generic\.release"
        rf"{SCOPE}\.sync\.aligned",
    )
    target, source, size = instruction.operands
    if _constant(size, instruction) != MAP_BYTES:
        raise unknown(instruction)
    where, what = address(target, symbols), address(source, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        warp.require_converged(mask, "tensormap.cp_fenceproxy")
        for places in (where(warp), what(warp)):
            if np.unique(places[mask]).size > 1:
                raise HazardError("R8", "tensormap.cp_fenceproxy: lanes gave different addresses")
        lane = int(np.argmax(mask))
        only: Mask = np.arange(LANES) == lane
        for place, at in targets(warp, "shared::cta", what(warp), only):
            data = _read_map(place, at, warp)
        _write_map(Target(warp.cta, "global", only), where(warp), data, warp)
        warp.cta.cluster.maps.release(warp, int(where(warp)[lane]))
        return None

    return execute


def _fence(instruction: Instruction, symbols: Symbols) -> Execute:
    """fence.proxy.tensormap::generic: a release of what was written, or an acquire of a map."""
    pattern = rf"fence\.proxy\.tensormap::generic\.(?P<order>acquire|release){SCOPE}"
    if parts(instruction, pattern)["order"] == "release":
        return _release
    where_operand, size = instruction.operands
    if _constant(size, instruction) != MAP_BYTES:
        raise unknown(instruction)
    where = address(where_operand, symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for place in np.unique(where(warp)[mask]):
            warp.cta.cluster.maps.acquire(warp, int(place))
        return None

    return execute


def _release(warp: Warp, mask: Mask) -> Wait | None:
    warp.cta.cluster.maps.release(warp)
    return None


def _prefetch(instruction: Instruction, symbols: Symbols) -> Execute:
    """prefetch.tensormap: a hint, of a map that need be neither acquired nor legal."""
    parts(instruction, r"prefetch(?:\.const|\.param)?\.tensormap")
    where = address(instruction.operands[0], symbols)

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for place in np.unique(where(warp)[mask]):
            warp.cta.grid.map_bytes_at(int(place))
        return None

    return execute


def _prefetch_box(instruction: Instruction, symbols: Symbols) -> Execute:
    """cp.async.bulk.prefetch.tensor: uses a map, and copies nothing that a program can see."""
    pattern = rf"cp\.async\.bulk\.prefetch\.tensor\.[1-5]d\.L2\.global(?:\.tile)?{LEVELS}"
    parts(instruction, pattern)
    source = instruction.operands[0]
    if not isinstance(source, TensorAddress):
        raise unknown(instruction)
    where = address(Address(source.base, 0), symbols)  # type: ignore[arg-type]

    def execute(warp: Warp, mask: Mask) -> Wait | None:
        for place in np.unique(where(warp)[mask]):
            warp.cta.cluster.hint_map(int(place), warp)
        return None

    return execute


TABLE: dict[str, Callable[[Instruction, Symbols], Execute]] = {
    "tensormap.replace": _replace,
    "tensormap.cp_fenceproxy": _copy_and_release,
    "fence.proxy.tensormap::generic": _fence,
    "prefetch.tensormap": _prefetch,
    "prefetch.param.tensormap": _prefetch,
    "prefetch.const.tensormap": _prefetch,
    "cp.async.bulk.prefetch.tensor": _prefetch_box,
}
