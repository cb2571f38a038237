"""st.async: what it stores and signals, in all timings, and what is refused."""

from __future__ import annotations

import pytest

from deep_gemm.emulator.errors import HazardError
from tests.emulator.small_kernels import ORDERS, run

INIT = """
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], 1;
fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.relaxed.aligned;
barrier.cluster.wait.acquire.aligned;
"""
EXPECT = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], BYTES;"
# Each lane's place is 16 bytes of [at + 1024 ..] in the other CTA.
PLACE = """
xor.b32 %r1, %rank, 1;
shl.b32 %r9, %tid, 4;
add.u32 %r9, %r9, %at;
mapa.shared::cluster.u32 %r3, %r9, %r1;
mapa.shared::cluster.u32 %r4, %full, %r1;
mul.lo.u32 %r8, %rank, 100;
add.u32 %r8, %r8, %tid;
"""
STORE = "st.async.shared::cluster.mbarrier::complete_tx::bytes"
WAIT = """
WAIT:
mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 %p2, [%full], 0;
@!%p2 bra WAIT;
"""
LEAVE = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; ret;"


def program(store: str, num_bytes: int, wait: str = WAIT) -> str:
    show = "ld.shared.u32 %r8, [%r9+1024]; st.global.u32 [%mine], %r8;"
    return f"{INIT} {EXPECT.replace('BYTES', str(num_bytes))} {PLACE} {store} {wait} {show} {LEAVE}"


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize(
    ("form", "values", "num_bytes"),
    [
        ("u32", "%r8", 128),
        ("v2.b32", "{%r8, %r1}", 256),
        ("v4.b32", "{%r8, %r1, %r1, %r1}", 512),
    ],
)
def test_into_a_peer(order: object, form: str, values: str, num_bytes: int) -> None:
    out = run(
        program(f"{STORE}.{form} [%r3+1024], {values}, [%r4];", num_bytes),
        order=order,
        cluster_size=2,
    )
    assert out[:32].tolist() == list(range(100, 132))
    assert out[1024:1056].tolist() == list(range(32))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_into_the_same_cta(order: object) -> None:
    store = "mapa.shared::cluster.u32 %r3, %r9, %rank;"
    store += "mapa.shared::cluster.u32 %r4, %full, %rank;"
    store += f"{STORE}.u32 [%r3+1024], %r8, [%r4];"
    out = run(program(store, 128), order=order, cluster_size=2)
    assert out[:32].tolist() == list(range(32))
    assert out[1024:1056].tolist() == list(range(100, 132))


@pytest.mark.parametrize(
    ("store", "num_bytes", "wait", "rule"),
    [
        (f"{STORE}.u32 [%r3+1024], %r8, [%r4];", 128, "", "R2|race"),
        (f"{STORE}.u32 [%r3+1024], %r8, [%r4];", 256, WAIT, "R11"),
        (f"{STORE}.v2.b32 [%r3+1028], {{%r8, %r8}}, [%r4];", 256, WAIT, "alignment"),
        (f"{STORE}.u32 [%r3+1024], %r8, [%full];", 128, WAIT, "R14"),
        (f"{STORE}.u32 [%r3+1000000], %r8, [%r4];", 128, WAIT, "bounds"),
        (f"{STORE}.v4.b32 [%r4], {{%r8, %r8, %r8, %r8}}, [%r4];", 512, WAIT, "race"),
    ],
    ids=["not-waited-for", "too-few-bytes", "misaligned", "other-barrier", "bounds", "barrier"],
)
@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_what_is_refused(store: str, num_bytes: int, wait: str, rule: str, order: object) -> None:
    with pytest.raises(HazardError, match=f"^({rule})"):
        run(program(store, num_bytes, wait), order=order, cluster_size=2)


def test_undefined_values_stay_undefined() -> None:
    # What was never written may be sent on, but not used.
    store = f"ld.shared.u32 %r8, [%r9+4096]; {STORE}.u32 [%r3+1024], %r8, [%r4];"
    with pytest.raises(HazardError, match="^R26"):
        run(program(store, 128), cluster_size=2)


def test_lanes_may_address_different_ctas() -> None:
    store = "and.b32 %r1, %tid, 1; mapa.shared::cluster.u32 %r3, %r9, %r1;"
    store += f"mapa.shared::cluster.u32 %r4, %full, %r1; {STORE}.u32 [%r3+1024], %r8, [%r4];"
    # Even lanes send to CTA 0 and odd ones to CTA 1; both CTAs' lanes of a number share a place.
    store = f"setp.eq.u32 %p3, %rank, 0; @!%p3 bra SENT; {store} SENT:"
    show = "and.b32 %r1, %tid, 1; setp.ne.u32 %p3, %r1, %rank; @%p3 bra OUT;"
    body = program(store, 64).replace(
        "ld.shared.u32 %r8, [%r9+1024]", f"{show} ld.shared.u32 %r8, [%r9+1024]"
    )
    out = run(body.replace(LEAVE, f"OUT: {LEAVE}"), cluster_size=2)
    assert out[0:32:2].tolist() == list(range(0, 32, 2))
    assert out[1025:1056:2].tolist() == list(range(1, 32, 2))
    assert (out[1:32:2] == 0xFFFFFFFF).all() and (out[1024:1056:2] == 0xFFFFFFFF).all()
