"""Global memory's bounds, and the shadow of shared memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.emulator.errors import EmulationError, HazardError
from deep_gemm.emulator.memory import (
    GlobalMemory,
    SharedMemory,
    compose_shared,
    mapa,
    split_shared,
)

BASE = 0x7F00_0000_0000
SIZES = (1, 2, 4, 8, 16)
WRITER, OTHER = 5, 6


def numbered(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.uint64).astype(np.uint8)


def addresses(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint64)


def offsets(first: int, size: int) -> np.ndarray:
    return np.arange(first, first + size)


@pytest.fixture
def memory() -> GlobalMemory:
    memory = GlobalMemory()
    memory.map(numbered(256), BASE, "a")
    memory.map(numbered(64) + 100, BASE + 0x1000, "b")
    return memory


@pytest.fixture
def shared() -> SharedMemory:
    return SharedMemory(4096)


# Global memory


@pytest.mark.parametrize("size", SIZES)
def test_global_words_of_two_buffers(memory: GlobalMemory, size: int) -> None:
    words = memory.read(addresses(BASE + 32, BASE + 0x1000, BASE + 256 - size), size)
    assert words.tolist() == [
        list(range(32, 32 + size)),
        list(range(100, 100 + size)),
        list(range(256 - size, 256)),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_global_write_reaches_the_callers_array(size: int) -> None:
    memory, array = GlobalMemory(), np.zeros(64, dtype=np.uint8)
    memory.map(array, BASE)
    memory.write(addresses(BASE + 16, BASE + 48), np.full((2, size), 9, dtype=np.uint8))
    assert np.flatnonzero(array).tolist() == [*range(16, 16 + size), *range(48, 48 + size)]


@pytest.mark.parametrize("size", SIZES[1:])
def test_global_misaligned(memory: GlobalMemory, size: int) -> None:
    with pytest.raises(HazardError, match=f"alignment: .*{size} bytes.*{BASE + 1:#x}"):
        memory.read(addresses(BASE, BASE + 1), size)
    with pytest.raises(HazardError, match="^alignment"):
        memory.write(addresses(BASE + size // 2), np.zeros((1, size), dtype=np.uint8))


@pytest.mark.parametrize(
    ("address", "nearest"),
    [
        (BASE - 4, "a"),
        (BASE + 256, "a"),
        (BASE + 0x1000 - 4, "b"),
        (BASE + 0x1000 + 64, "b"),
        (0, "a"),
        (2**64 - 4, "b"),
    ],
)
def test_global_out_of_bounds_names_the_nearest_buffer(
    memory: GlobalMemory, address: int, nearest: str
) -> None:
    with pytest.raises(HazardError, match=f"^bounds: .*{address:#x}.* nearest: {nearest} at"):
        memory.read(addresses(BASE, address), 4)


def test_global_access_may_not_straddle_buffers() -> None:
    memory = GlobalMemory()
    memory.map(numbered(8), BASE)
    memory.map(numbered(8), BASE + 8)
    assert memory.read(addresses(BASE, BASE + 8), 8).tolist() == [list(range(8))] * 2
    with pytest.raises(HazardError, match="^bounds"):
        memory.read(addresses(BASE), 16)


def test_global_refused_write_writes_nothing() -> None:
    memory, array, constant = GlobalMemory(), np.zeros(16, dtype=np.uint8), numbered(16)
    constant.flags.writeable = False
    memory.map(array, BASE)
    memory.map(constant, BASE + 64, "constant")
    with pytest.raises(HazardError, match="read-only constant"):
        memory.write(addresses(BASE, BASE + 64), np.ones((2, 4), dtype=np.uint8))
    with pytest.raises(HazardError, match="^bounds"):
        memory.write(addresses(BASE, BASE + 32), np.ones((2, 4), dtype=np.uint8))
    assert not array.any()


def test_global_bytes_of_any_alignment(memory: GlobalMemory) -> None:
    assert memory.read_bytes(BASE + 3, 7).tolist() == list(range(3, 10))
    assert memory.read_bytes(BASE + 3, 0).size == 0
    assert memory.read_bytes(BASE + 249, 7).tolist() == list(range(249, 256))
    with pytest.raises(HazardError, match="^bounds"):
        memory.read_bytes(BASE + 250, 7)
    with pytest.raises(HazardError, match="nearest: none"):
        GlobalMemory().read_bytes(BASE, 1)


def test_global_refuses_an_array_that_is_no_plain_bytes() -> None:
    with pytest.raises(EmulationError, match="contiguous uint8"):
        GlobalMemory().map(numbered(16)[::2], BASE)


# Addresses in a cluster


@given(st.integers(0, 15), st.integers(0, 2**24 - 1), st.integers(0, 15))
def test_mapa_changes_the_rank_only(rank: int, offset: int, target: int) -> None:
    address = np.array([compose_shared(rank, offset)], dtype=np.uint32)
    there = mapa(address, np.array([target], dtype=np.uint32))
    assert there.dtype == np.uint32
    ranks, relative = split_shared(there)
    assert (ranks[0], relative[0]) == (target, offset)
    assert there[0] == compose_shared(target, offset)


# Shared memory


@pytest.mark.parametrize("size", SIZES)
def test_shared_round_trip(shared: SharedMemory, size: int) -> None:
    where = addresses(*range(1024, 1024 + 32 * size, size))
    values = numbered(32 * size).reshape(32, size)
    shared.write(where, values, WRITER)
    words, defined = shared.read(where[::-1], size)
    assert (words == values[::-1]).all()
    assert defined.all()


def test_unwritten_bytes_are_undefined_not_an_error(shared: SharedMemory) -> None:
    shared.write(addresses(1026), np.ones((1, 2), dtype=np.uint8), WRITER)
    _, defined = shared.read(addresses(1024, 1028), 4)
    assert defined.tolist() == [[False, False, True, True], [False] * 4]


def test_undefined_values_stay_undefined(shared: SharedMemory) -> None:
    shared.write(addresses(1024), np.ones((1, 4), dtype=np.uint8), WRITER)
    taint = np.array([[True, False, True, True]])
    shared.write(addresses(1024), np.ones((1, 4), dtype=np.uint8), WRITER, defined=taint)
    assert (shared.read(addresses(1024), 4)[1] == taint).all()
    assert (shared.is_defined(offsets(1024, 4)) == taint[0]).all()


@pytest.mark.parametrize("offset", [1020, 1024 + 4096, 0, 2**24])
def test_shared_out_of_bounds(shared: SharedMemory, offset: int) -> None:
    with pytest.raises(HazardError, match=f"^bounds: .*{offset:#x}"):
        shared.read(addresses(1024, offset), 4)
    with pytest.raises(HazardError, match="^bounds"):
        shared.write(addresses(1024, offset), np.zeros((2, 4), dtype=np.uint8), WRITER)
    with pytest.raises(HazardError, match="^bounds"):
        shared.poison(offsets(offset, 4))


def test_shared_bounds_are_those_of_the_whole_word() -> None:
    with pytest.raises(HazardError, match="^bounds"):
        SharedMemory(12).read(addresses(1032), 8)


@pytest.mark.parametrize("size", SIZES[1:])
def test_shared_misaligned(shared: SharedMemory, size: int) -> None:
    with pytest.raises(HazardError, match="^alignment: .*shared memory at 0x4"):
        shared.read(addresses(1024, 1024 + size // 2), size)


def test_bytes_in_flight(shared: SharedMemory) -> None:
    tile = offsets(1024, 64).reshape(4, 16)
    shared.poison(tile, agent=WRITER)
    with pytest.raises(HazardError, match="^R2: read of shared memory at 0x410.*agent 5"):
        shared.read(addresses(2048, 1040), 4)
    with pytest.raises(HazardError, match="^R2: write"):
        shared.write(addresses(1024), np.zeros((1, 4), dtype=np.uint8), OTHER)
    with pytest.raises(HazardError, match="^R2: asynchronous read"):
        shared.read_async(tile[2:])
    with pytest.raises(HazardError, match="^R29: asynchronous write"):
        shared.poison(offsets(1087, 2))
    with pytest.raises(HazardError, match="^R2: mbarrier.init"):
        shared.init_barrier(1080, 1)
    shared.land(tile, numbered(64), WRITER)
    assert (shared.read_async(tile) == numbered(64).reshape(4, 16)).all()
    assert shared.read(addresses(1040), 4)[0].tolist() == [[16, 17, 18, 19]]


def test_only_bytes_in_flight_can_land(shared: SharedMemory) -> None:
    shared.poison(offsets(1024, 16))
    with pytest.raises(EmulationError, match="not waiting"):
        shared.land(offsets(1024, 17), numbered(17), WRITER)
    shared.land(offsets(1024, 16), numbered(16), WRITER)
    with pytest.raises(EmulationError, match="not waiting"):
        shared.land(offsets(1024, 16), numbered(16), WRITER)


def test_asynchronous_access_needs_the_writers_fence(shared: SharedMemory) -> None:
    shared.write(addresses(1024, 1040), np.ones((2, 16), dtype=np.uint8), addresses(WRITER, OTHER))
    tile = offsets(1024, 32)
    shared.fence(WRITER)
    assert shared.read_async(tile[:16]).all()
    for access in (shared.read_async, shared.poison):
        with pytest.raises(HazardError, match="^R1: .*0x410.*fence.proxy.async.*agent 6"):
            access(tile)
    shared.fence(np.array([WRITER, OTHER]))
    assert shared.read_async(tile).all()
    shared.write(addresses(1024), np.ones((1, 1), dtype=np.uint8), WRITER)
    with pytest.raises(HazardError, match="^R1: .*0x400"):
        shared.read_async(tile)


def test_async_data_needs_no_fence_but_generic_copies_do(shared: SharedMemory) -> None:
    tile = offsets(1024, 16)
    shared.poison(tile)
    shared.land(tile, numbered(16), WRITER)
    shared.read_async(tile)
    shared.poison(tile, proxy="generic")
    shared.land(tile, numbered(16), WRITER, proxy="generic")
    with pytest.raises(HazardError, match="^R1"):
        shared.read_async(tile)
    shared.poison(tile, proxy="generic")


def test_history(shared: SharedMemory) -> None:
    shared.write(addresses(1024), np.ones((1, 4), dtype=np.uint8), WRITER)
    shared.epoch = 2
    shared.poison(offsets(1028, 2), agent=OTHER)
    assert shared.history(offsets(1028, 1)).epoch.tolist() == [2]
    shared.epoch = 3
    shared.land(offsets(1028, 2), numbered(2), OTHER)
    history = shared.history(offsets(1026, 6))
    assert history.agent.tolist() == [WRITER, WRITER, OTHER, OTHER, -1, -1]
    assert history.is_async.tolist() == [False, False, True, True, False, False]
    assert history.epoch.tolist() == [0, 0, 3, 3, 0, 0]


def test_mbarrier_is_no_ordinary_memory(shared: SharedMemory) -> None:
    shared.write(addresses(1032), np.ones((1, 8), dtype=np.uint8), WRITER)
    barrier = shared.init_barrier(1032, 2)
    assert shared.barrier(1032) is barrier
    assert barrier.expected == 2
    with pytest.raises(HazardError, match="^R29: read of .* 0x408, which belongs to an mbarrier$"):
        shared.read(addresses(1024), 16)
    with pytest.raises(HazardError, match="^R29"):
        shared.write(addresses(1036), np.zeros((1, 4), dtype=np.uint8), WRITER)
    for access in (shared.read_async, shared.poison):
        with pytest.raises(HazardError, match="^R29"):
            access(offsets(1039, 2))
    shared.read(addresses(1024, 1040), 8)


def test_mbarrier_lifetime(shared: SharedMemory) -> None:
    with pytest.raises(HazardError, match="^R9: no mbarrier"):
        shared.barrier(1024)
    with pytest.raises(HazardError, match="^alignment"):
        shared.init_barrier(1028, 1)
    with pytest.raises(HazardError, match="^bounds"):
        shared.init_barrier(0, 1)
    shared.write(addresses(1024), np.ones((1, 8), dtype=np.uint8), WRITER)
    shared.init_barrier(1024, 1)
    with pytest.raises(HazardError, match="^R9: .*twice"):
        shared.init_barrier(1024, 1)
    shared.invalidate_barrier(1024)
    assert not shared.read(addresses(1024), 8)[1].any()
    with pytest.raises(HazardError, match="^R9"):
        shared.invalidate_barrier(1024)
    shared.init_barrier(1024, 1)


def test_refused_write_writes_nothing(shared: SharedMemory) -> None:
    shared.init_barrier(1032, 1)
    with pytest.raises(HazardError, match="^R29"):
        shared.write(addresses(1024, 1032), np.ones((2, 8), dtype=np.uint8), WRITER)
    assert not shared.is_defined(offsets(1024, 8)).any()
