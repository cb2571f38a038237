"""Plan: what a launch is given, by every way that a driver may encode a map, from many threads."""

from __future__ import annotations

import threading
import time
from ctypes import c_uint32, c_void_p

import pytest

from deep_gemm.errors import CudaError
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.runtime.launch import CudaPlan, KernelLaunch
from deep_gemm.tensor_map import FLOAT32, BoxMap, TensorMap
from tests import fake_driver
from tests.fake_driver import MAP_WORDS, FakeDriver, install

KERNEL = CompiledKernel("k", "k", "90a", b"", "", 8, 0, 0, "FAKE", 0.0, False)
MAP = BoxMap(FLOAT32, (64, 64), (256,), (32, 32), 128)
STREAM = 7
NUM_CALLS = 50
NUM_WORDS = 2 * MAP_WORDS + 3


class Arguments(KernelArguments):
    _fields_ = (
        ("map_a", TensorMap),
        ("map_b", TensorMap),
        ("first", c_void_p),
        ("size", c_uint32),
        ("second", c_void_p),
    )


def plan_of(first_addresses: tuple[int, ...] = (0x1000, 0x2000)) -> CudaPlan:
    arguments = Arguments.allocate()
    arguments.size = 5
    launch = KernelLaunch(
        KERNEL,
        arguments,
        maps=(("map_a", MAP), ("map_b", MAP)),
        pointers=(("first", 8), ("", 8), ("second", 8)),
        grid=2,
        num_threads=128,
        smem_bytes=0,
        cluster_size=1,
    )
    return CudaPlan(launch, first_addresses, 0)


def words_of(addresses: tuple[int, ...]) -> dict[int, int]:
    """Where a launch's parameter has which address; `addresses[3]` is of memory without a field."""
    a, b, first, _, second = addresses
    begin = 2 * MAP_WORDS
    return {0: a, MAP_WORDS: b, begin: first, begin + 1: 5, begin + 2: second}


ADDRESSES = [tuple(0x7F12_0000_0000 + 0x1000 * (8 * i + j) for j in range(5)) for i in range(8)]


def test_addresses_are_stored_where_the_map_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver(num_words=NUM_WORDS)
    install(monkeypatch, driver, lambda device: STREAM)
    plan = plan_of()
    known, driver.num_replaced = driver.num_replaced, 0
    assert known > 0, "the driver was asked how it encodes"
    for addresses in ADDRESSES:
        plan.launch(*addresses)
    assert driver.num_replaced == 0
    for addresses, launched in zip(ADDRESSES, driver.launched, strict=True):
        assert (launched.stream, launched.kernel) == (STREAM, fake_driver.KERNEL)
        assert {i: launched.words[i] for i in words_of(addresses)} == words_of(addresses)


@pytest.mark.parametrize(
    "encode",
    [
        lambda address: {3: address ^ 0xFF00},
        lambda address: {3: address, 4: address >> 47},
        lambda address: {3: address & 0xFFFF_FFFF, 4: address >> 32},
        lambda address: {3: address, 5: address.bit_count()},
        lambda address: {address >> 20 & 1: address},
    ],
    ids=["other bits", "high bits twice", "halves", "a checksum", "no fixed place"],
)
def test_another_encoding_is_left_to_the_driver(monkeypatch: pytest.MonkeyPatch, encode) -> None:  # type: ignore[no-untyped-def]
    driver = FakeDriver(encode, NUM_WORDS)
    install(monkeypatch, driver, lambda device: STREAM)
    plan = plan_of()
    driver.num_replaced = 0
    for addresses in ADDRESSES:
        plan.launch(*addresses)
    assert driver.num_replaced == 2 * len(ADDRESSES)
    for addresses, launched in zip(ADDRESSES, driver.launched, strict=True):
        for begin, address in ((0, addresses[0]), (MAP_WORDS, addresses[1])):
            assert all(launched.words[begin + i] == word for i, word in encode(address).items())


def test_asking_leaves_the_map_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver(lambda address: {2: address, 9: address >> 3}, NUM_WORDS)
    install(monkeypatch, driver, lambda device: STREAM)
    plan = plan_of((0x7F00_0000_1230, 0x2000))
    assert (plan._words[2], plan._words[9]) == (0x7F00_0000_1230, 0x7F00_0000_1230 >> 3)


@pytest.mark.parametrize("encode", [lambda a: {0: a}, lambda a: {0: a ^ 1}], ids=["word", "driver"])
def test_a_thread_without_a_context_gets_one(monkeypatch: pytest.MonkeyPatch, encode) -> None:  # type: ignore[no-untyped-def]
    driver = FakeDriver(encode, NUM_WORDS)
    install(monkeypatch, driver, lambda device: STREAM)
    plan = plan_of()
    driver.has_context = False
    plan.launch(*ADDRESSES[0])
    assert len(driver.launched) == 1


def test_a_refused_launch_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = FakeDriver(num_words=NUM_WORDS)
    install(monkeypatch, driver, lambda device: STREAM)
    plan = plan_of()
    monkeypatch.setattr(plan, "_call", lambda: 719)
    with pytest.raises(CudaError, match="the launch failed: 719"):
        plan.launch(*ADDRESSES[0])


@pytest.mark.parametrize("encode", [lambda a: {0: a}, lambda a: {0: a ^ 1}], ids=["word", "driver"])
def test_threads_share_a_plan(monkeypatch: pytest.MonkeyPatch, encode) -> None:  # type: ignore[no-untyped-def]
    """Each launch has one call's addresses and that thread's stream, whoever comes in between."""
    driver = FakeDriver(encode, NUM_WORDS)
    # Lets others go first.
    driver.before_launch = lambda: time.sleep(1e-5)
    streams = threading.local()
    install(monkeypatch, driver, lambda device: int(streams.mine))
    plan = plan_of()
    barrier = threading.Barrier(8)

    def work(i: int) -> None:
        streams.mine = 100 + i
        barrier.wait()
        for _ in range(NUM_CALLS):
            plan.launch(*ADDRESSES[i])

    threads = [threading.Thread(target=work, args=(i,), name=str(i)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(driver.launched) == 8 * NUM_CALLS
    for launched in driver.launched:
        i = int(launched.thread)
        assert launched.stream == 100 + i
        wanted = words_of(ADDRESSES[i])
        wanted.update({0: encode(wanted[0])[0], MAP_WORDS: encode(wanted[MAP_WORDS])[0]})
        assert {i: launched.words[i] for i in wanted} == wanted
