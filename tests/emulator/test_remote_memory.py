"""Shared memory of other CTAs and generic addresses."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from tests.emulator.small_kernels import ORDERS, run

CLUSTER = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
PEER = "xor.b32 %r1, %rank, 1; shl.b32 %r2, %tid, 2; add.u32 %r2, %r2, %at;"
VALUE = "mul.lo.u32 %r3, %rank, 1000; add.u32 %r3, %r3, %tid;"
OWN = [1000 * rank + i for rank in range(2) for i in range(32)]
SWAPPED = OWN[32:] + OWN[:32]


def words(out: np.ndarray) -> list[int]:
    """Of the threads of two CTAs."""
    return [*out[:32].tolist(), *out[1024:1056].tolist()]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_loads_from_a_peer(order: object) -> None:
    body = f"""
    {PEER} {VALUE}
    st.shared.u32 [%r2], %r3;
    {CLUSTER}
    mapa.shared::cluster.u32 %r4, %r2, %r1;
    ld.shared::cluster.u32 %r5, [%r4];
    st.global.u32 [%mine], %r5;
    {CLUSTER}
    ret;
    """
    assert words(run(body, cluster_size=2, order=order)) == SWAPPED


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_stores_to_a_peer(order: object) -> None:
    body = f"""
    {PEER} {VALUE}
    mapa.shared::cluster.u32 %r4, %r2, %r1;
    {CLUSTER}
    st.shared::cluster.u32 [%r4], %r3;
    {CLUSTER}
    ld.shared.u32 %r5, [%r2];
    st.global.u32 [%mine], %r5;
    ret;
    """
    assert words(run(body, cluster_size=2, order=order)) == SWAPPED


def test_generic_addresses() -> None:
    """Of shared memory here and there, of global memory, and back to shared memory."""
    body = f"""
    {PEER} {VALUE}
    cvt.u64.u32 %rd4, %r2;
    cvta.shared.u64 %rd5, %rd4;
    st.u32 [%rd5], %r3;
    {CLUSTER}
    mapa.u64 %rd6, %rd5, %r1;
    ld.u32 %r5, [%rd6];
    getctarank.u32 %r6, %rd6;
    mul.lo.u32 %r6, %r6, 100000;
    cvta.to.shared.u64 %rd7, %rd5;
    cvt.u32.u64 %r7, %rd7;
    sub.u32 %r7, %r7, %r2;
    add.u32 %r5, %r5, %r6;
    add.u32 %r5, %r5, %r7;
    st.u32 [%mine], %r5;
    {CLUSTER}
    ret;
    """
    expected = [v + 100000 * (i < 32) for i, v in enumerate(SWAPPED)]
    assert words(run(body, cluster_size=2)) == expected


def test_lanes_of_one_access_in_several_spaces() -> None:
    body = """
    st.shared.u32 [%at], 5;
    cvt.u64.u32 %rd4, %at;
    cvta.shared.u64 %rd4, %rd4;
    setp.lt.u32 %p1, %tid, 8;
    selp.b64 %rd5, %rd4, %in, %p1;
    ld.u32 %r5, [%rd5];
    isspacep.shared %p2, %rd5;
    selp.u32 %r6, 100, 0, %p2;
    add.u32 %r5, %r5, %r6;
    st.global.u32 [%mine], %r5;
    ret;
    """
    assert run(body, np.array([7], dtype=np.uint32))[:32].tolist() == [105] * 8 + [7] * 24


def test_parameters_by_a_short_address() -> None:
    """Triton takes a parameter's address in 32 bits."""
    body = """
    mov.b32 %r1, out_0;
    cvt.u64.u32 %rd2, %r1;
    cvta.param.u64 %rd3, %rd2;
    ld.u64 %rd4, [%rd3];
    st.global.u32 [%rd4], 9;
    ret;
    """
    assert run(body)[0] == 9


def test_signed_loads_are_extended() -> None:
    body = """
    ld.global.s8 %r1, [%in];
    ld.global.s16 %r2, [%in];
    ld.global.u8 %r3, [%in];
    st.global.v4.u32 [%out], {%r1, %r2, %r3, 4};
    ret;
    """
    out = run(body, np.array([0xFFFF80FE], dtype=np.uint32))
    assert out[:4].tolist() == [2**32 - 2, 0xFFFF80FE, 0xFE, 4]


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("mapa.shared::cluster.u32 %r4, %at, 2; st.shared::cluster.u32 [%r4], 1;", "R13"),
        ("mapa.u64 %rd4, %in, 1;", "R13"),
        ("xor.b32 %r4, %at, 16777216; st.shared::cta.u32 [%r4], 1;", "R13"),
        ("add.u32 %r4, %at, 33554432; st.shared::cluster.u32 [%r4], 1;", "R13"),
        ("cvta.to.shared.u64 %rd4, %in;", "R13"),
    ],
)
def test_wrong_addresses(body: str, rule: str) -> None:
    with pytest.raises(HazardError, match=f"^{rule}"):
        run(f"{body} ret;", cluster_size=2)


def test_a_peer_that_has_left() -> None:
    body = f"""
    {CLUSTER}
    setp.eq.u32 %p1, %rank, 1;
    @%p1 ret;
    bar.sync 0;
    mapa.shared::cluster.u32 %r4, %at, 1;
    st.shared::cluster.u32 [%r4], 1;
    ret;
    """
    found = set()
    for order in ORDERS:
        try:
            run(body, cluster_size=2, order=order)
        except HazardError as hazard:
            found.add(hazard.rule)
    assert found == {"R12"}


def test_a_remote_write_needs_a_proxy_fence_too() -> None:
    """The peer's TMA store of what was written from here."""
    body = f"""
    setp.eq.u32 %p1, %tid, 0;
    {CLUSTER}
    mapa.shared::cluster.u32 %r4, %at, 1;
    setp.eq.u32 %p2, %rank, 0;
    shl.b32 %r5, %tid, 2;
    add.u32 %r4, %r4, %r5;
    @%p2 st.shared::cluster.u32 [%r4], %tid;
    FENCE
    {CLUSTER}
    and.pred %p3, %p1, %p2;
    xor.pred %p3, %p3, %p1;
    @!%p3 ret;
    cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    ret;
    """
    fenced = body.replace("FENCE", "fence.proxy.async;")
    assert run(fenced, cluster_size=2)[:32].tolist() == list(range(32))
    for wrong in ("", "fence.proxy.async.shared::cta;", "fence.proxy.async.global;"):
        with pytest.raises(HazardError, match="^R1: .*other access: CTA 0, warp 0, line"):
            run(body.replace("FENCE", wrong), cluster_size=2)


@pytest.mark.parametrize(
    "text",
    [
        "ld.global.f16 %rs1, [%in];",
        "ld.local.u32 %r1, [%in];",
        "ld.global.strange.u32 %r1, [%in];",
        "st.async.release.global.u32 [%at], %r1;",
        "cvta.shared.u32 %r1, %at;",
        "mapa.shared::cta.u32 %r1, %at, 0;",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"PTX line \d+"):
        run(f"{text} ret;")
