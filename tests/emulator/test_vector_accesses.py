"""Loads and stores of several words in every space, lane by lane and under predicates."""

from __future__ import annotations

import numpy as np
import pytest

from tests.emulator.small_kernels import ORDERS, run

WORDS = np.random.default_rng(0).integers(0, 2**32, 256, dtype=np.uint32)
ONES = 0xFFFFFFFF

REGISTERS = {("b", 32): "%r", ("u", 32): "%r", ("f", 32): "%f", ("b", 64): "%rd", ("u", 64): "%rd"}


def vector(kind: str, bits: int, count: int) -> tuple[str, str]:
    """An instruction's suffix, and the registers of its words."""
    names = ", ".join(f"{REGISTERS[kind, bits]}{20 + i}" for i in range(count))
    return f".v{count}.{kind}{bits}" if count > 1 else f".{kind}{bits}", f"{{{names}}}"


TYPES = [
    (kind, bits, count) for kind, bits in REGISTERS for count in (1, 2, 4) if bits * count <= 128
]


@pytest.mark.parametrize(("kind", "bits", "count"), TYPES)
@pytest.mark.parametrize(
    "load", ["ld.global", "ld.global.nc", "ld.global.nc.L1::no_allocate", "ld"]
)
def test_global_loads_and_predicated_stores(load: str, kind: str, bits: int, count: int) -> None:
    """Lanes 3, 6, 9, ... take the words of the lane behind them; the others store nothing."""
    suffix, registers = vector(kind, bits, count)
    size = bits // 8 * count
    body = f"""
    rem.u32 %r1, %tid, 3;
    setp.eq.u32 %p1, %r1, 0;
    setp.ne.and.u32 %p1, %tid, 0, %p1;
    mul.wide.u32 %rd5, %tid, {size};
    add.u64 %rd6, %in, %rd5;
    add.u64 %rd7, %out, %rd5;
    @%p1 {load}{suffix} {registers}, [%rd6+{size}];
    @%p1 st.global{suffix.replace(".u", ".b")} [%rd7], {registers};
    ret;
    """
    out = run(body, WORDS)
    expected = np.full(out.nbytes, 0xFF, dtype=np.uint8)
    source = WORDS.view(np.uint8)
    for lane in range(3, 32, 3):
        expected[lane * size :][:size] = source[(lane + 1) * size :][:size]
    assert (out.view(np.uint8) == expected).all()


@pytest.mark.parametrize(("kind", "bits", "count"), TYPES)
@pytest.mark.parametrize("order", ORDERS[:2], ids=str)
def test_shared_loads_and_stores(kind: str, bits: int, count: int, order: object) -> None:
    """Through shared memory, where each lane reads what the lane opposite has written."""
    suffix, registers = vector(kind, bits, count)
    size = bits // 8 * count
    body = f"""
    mul.lo.u32 %r1, %tid, {size};
    add.u32 %r2, %at, %r1;
    mul.wide.u32 %rd5, %tid, {size};
    add.u64 %rd6, %in, %rd5;
    add.u64 %rd7, %out, %rd5;
    ld.global{suffix} {registers}, [%rd6];
    st.shared{suffix} [%r2], {registers};
    bar.sync 5, 32;
    sub.u32 %r3, {31 * size}, %r1;
    add.u32 %r3, %at, %r3;
    ld.shared{suffix} {registers}, [%r3];
    st.global{suffix} [%rd7], {registers};
    ret;
    """
    out = run(body, WORDS, order=order)
    lanes = WORDS.view(np.uint8)[: 32 * size].reshape(32, size)
    assert (out.view(np.uint8)[: 32 * size].reshape(32, size) == lanes[::-1]).all()
    assert (out[8 * size :] == ONES).all()


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 16, 8, 4, 2])
def test_shuffles_in_segments(mode: str, width: int) -> None:
    """Lanes that would read across their segment's edge keep their own value, and are told so."""
    delta = 1 if width == 2 else 3 if width > 4 else 2
    clamp = (32 - width) << 8 | (0 if mode == "up" else 31)
    body = f"""
    add.u32 %r1, %tid, 100;
    shfl.sync.{mode}.b32 %r2|%p1, %r1, {delta}, {clamp}, 0xffffffff;
    selp.u32 %r3, 1000, 0, %p1;
    add.u32 %r2, %r2, %r3;
    st.global.u32 [%mine], %r2;
    ret;
    """
    found = run(body)[:32].tolist()
    for lane in range(32):
        first = lane // width * width
        source = {
            "up": lane - delta,
            "down": lane + delta,
            "bfly": lane ^ delta,
            "idx": first + delta % width,
        }[mode]
        inside = first <= source < first + width
        assert found[lane] == (1100 + source if inside else 100 + lane)


def test_sixteen_barriers_of_two_warps_each() -> None:
    """Each pair of warps meets at a barrier of its own, 0 to 15, and exchanges its threads."""
    body = """
    shr.u32 %r1, %tid, 6;
    shl.b32 %r2, %tid, 2;
    add.u32 %r2, %r2, %at;
    st.shared.u32 [%r2], %tid;
    bar.sync %r1, 64;
    xor.b32 %r3, %r2, 128;
    ld.shared.u32 %r4, [%r3];
    st.global.u32 [%mine], %r4;
    ret;
    """
    for order in ORDERS:
        out = run(body, num_threads=1024, order=order)
        assert (out[:1024] == (np.arange(1024) ^ 32)).all()
