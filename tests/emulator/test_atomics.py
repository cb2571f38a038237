"""atom and red, on global memory, shared memory and that of a peer."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from tests.emulator.small_kernels import ORDERS, run


def atomic_on(place: str, before: int, text: str, num_threads: int = 32) -> int:
    """A word after an atomic of every thread: `before` is what it starts with."""
    space, address = {"global": ("global", "[%out]"), "shared": ("shared::cta", "[%at]")}[place]
    body = f"""
    mov.u32 %r1, {before};
    setp.eq.u32 %p1, %tid, 0;
    @%p1 st.{space.partition("::")[0]}.u32 {address}, %r1;
    bar.sync 0;
    add.u32 %r2, %tid, 1;
    {text.format(space=space, address=address)}
    bar.sync 0;
    @%p1 ld.{space.partition("::")[0]}.u32 %r3, {address};
    @%p1 st.global.u32 [%out], %r3;
    ret;
    """
    return int(run(body, num_threads=num_threads)[0])


@pytest.mark.parametrize("place", ["global", "shared"])
@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("add.u32", 5, 5 + 528),
        ("add.s32", 2**32 - 1, 527),
        ("min.u32", 9, 1),
        ("max.u32", 9, 32),
        ("min.s32", 2**32 - 4, 2**32 - 4),
        ("max.s32", 2**32 - 4, 32),
        ("and.b32", 63, 0),
        ("or.b32", 64, 127),
        ("xor.b32", 1, 1 ^ 32),
        ("exch.b32", 1, 32),
        ("inc.u32", 0, 17),
        ("dec.u32", 3, 1),
    ],
)
def test_integers(name: str, before: int, after: int, place: str) -> None:
    if name == "exch.b32":
        text = "atom.{space}.exch.b32 %r4, {address}, %r2;"
    elif name[:3] in ("inc", "dec"):
        # With limits from 1 to 32, lane 0 first.
        after = before
        for limit in range(1, 33):
            wraps = after >= limit if name[0] == "i" else after == 0 or after > limit
            step = after + 1 if name[0] == "i" else after - 1
            after = (0 if name[0] == "i" else limit) if wraps else step
        text = f"atom.{{space}}.{name} %r4, {{address}}, %r2;"
    else:
        text = f"red.relaxed.gpu.{{space}}.{name} {{address}}, %r2;"
    assert atomic_on(place, before, text) == after


def test_what_atom_returns() -> None:
    body = """
    mov.u32 %r2, 1;
    setp.eq.u32 %p1, %tid, 0;
    @%p1 st.shared.u32 [%at], 100;
    bar.sync 0;
    atom.shared.add.u32 %r3, [%at], %r2;
    st.global.u32 [%mine], %r3;
    ret;
    """
    assert sorted(run(body, num_threads=64)[:64].tolist()) == list(range(100, 164))


def test_compare_and_swap_takes_a_lock_once() -> None:
    body = """
    setp.eq.u32 %p1, %tid, 0;
    @%p1 st.shared.u32 [%at], 0;
    bar.sync 0;
    add.u32 %r2, %tid, 1;
    atom.acquire.cta.shared::cta.cas.b32 %r3, [%at], 0, %r2;
    st.global.u32 [%mine], %r3;
    ret;
    """
    assert run(body)[:32].tolist() == [0] + [1] * 31


def test_floats_and_vectors() -> None:
    out = np.zeros(2048, dtype=np.float32)
    body = """
    cvt.rn.f32.u32 %f1, %tid;
    mov.f32 %f2, 0f3F000000;
    red.global.add.f32 [%out], %f1;
    red.global.add.v2.f32 [%out+8], {%f1, %f2};
    atom.add.f32 %f3, [%out+16], %f2;
    ret;
    """
    run(body, out=out.view(np.uint32))
    assert out[:6].tolist() == [496.0, 0.0, 496.0, 16.0, 16.0, 0.0]


def test_halves() -> None:
    out = np.zeros(2048, dtype=np.uint32)
    body = """
    mov.b32 %r1, 0x3C004000;
    red.global.add.noftz.f16x2 [%out], %r1;
    mov.b16 %rs1, 0x3F80;
    red.global.add.noftz.bf16 [%out+4], %rs1;
    ret;
    """
    run(body, out=out)
    # 32 times 1 and 2 in FP16; 32 in BF16.
    assert out[:2].tolist() == [0x50005400, 0x4200]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_remote(order: object) -> None:
    body = """
    setp.eq.u32 %p1, %tid, 0;
    @%p1 st.shared.u32 [%at], 0;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    mapa.shared::cluster.u32 %r1, %at, 1;
    red.relaxed.cluster.shared::cluster.add.u32 [%r1], 3;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    ld.shared.u32 %r2, [%at];
    st.global.u32 [%mine], %r2;
    ret;
    """
    out = run(body, cluster_size=2, order=order)
    assert out[:32].tolist() == [0] * 32
    assert out[1024:1056].tolist() == [2 * 32 * 3] * 32


@pytest.mark.parametrize(
    "text",
    [
        "atom.global.add.b32 %r1, [%out], 1;",
        "atom.global.mul.u32 %r1, [%out], 1;",
        "red.async.relaxed.cluster.shared::cluster.add.u32 [%at], 1;",
        "atom.const.add.u32 %r1, [%out], 1;",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"PTX line \d+"):
        run(f"{text} ret;")


def test_an_atomic_on_an_mbarrier() -> None:
    body = """
    setp.eq.u32 %p1, %tid, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%full], 1;
    @%p1 red.shared.add.u32 [%full], 1;
    ret;
    """
    with pytest.raises(HazardError, match="^R29"):
        run(body)
