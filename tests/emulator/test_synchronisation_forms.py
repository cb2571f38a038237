"""Forms of mbarriers, barriers and fences that the dense kernel does not use."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from tests.emulator.small_kernels import ORDERS, run

INIT = """
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], COUNT;
bar.sync 0;
"""
STORE = "st.global.u32 [%mine], %r9; ret;"


def init(count: int) -> str:
    return INIT.replace("COUNT", str(count))


def lanes(body: str, **options: object) -> list[int]:
    return run(f"{body} {STORE}", **options)[:32].tolist()


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("wait", ["try_wait", "test_wait.acquire.cta"])
def test_waits_by_state(wait: str, order: object) -> None:
    """Two warps that hand a word to each other, by the states of their own arrivals."""
    body = f"""
    {init(64)}
    shl.b32 %r1, %tid, 2;
    add.u32 %r1, %r1, %at;
    st.shared.u32 [%r1], %tid;
    mbarrier.arrive.release.cta.shared::cta.b64 %rd5, [%full];
    WAIT:
    mbarrier.{wait}.shared::cta.b64 %p2, [%full], %rd5;
    @!%p2 bra WAIT;
    xor.b32 %r2, %r1, 128;
    ld.shared.u32 %r9, [%r2];
    """
    assert lanes(body, num_threads=64, order=order) == list(range(32, 64))


def test_states_know_what_was_pending() -> None:
    body = f"""
    {init(5)}
    mov.u32 %r9, 0;
    @%p1 mbarrier.arrive.noComplete.shared::cta.b64 %rd5, [%full], 2;
    @%p1 mbarrier.arrive.shared::cta.b64 %rd6, [%full];
    @%p1 mbarrier.pending_count.b64 %r8, %rd5;
    @%p1 mbarrier.pending_count.b64 %r9, %rd6;
    shl.b32 %r8, %r8, 8;
    @%p1 or.b32 %r9, %r9, %r8;
    """
    assert lanes(body)[0] == 0x503


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_bytes_without_arrivals(order: object) -> None:
    """expect_tx and complete_tx by hand, of a remote mbarrier too."""
    body = f"""
    {init(1)}
    fence.mbarrier_init.release.cluster;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    xor.b32 %r1, %rank, 1;
    mapa.shared::cluster.u32 %r2, %full, %r1;
    @%p1 mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%full], 100;
    @%p1 mbarrier.arrive.shared::cta.b64 _, [%full];
    @%p1 mbarrier.complete_tx.relaxed.cluster.shared::cluster.b64 [%r2], 100;
    WAIT:
    mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 %p2, [%full], 0;
    @!%p2 bra WAIT;
    barrier.cluster.arrive.aligned;
    barrier.cluster.wait.aligned;
    mov.u32 %r9, 1;
    """
    assert lanes(body, cluster_size=2, order=order) == [1] * 32


def test_drops() -> None:
    """With 3 expected, one arrives and two drop; from then on one arrival is a phase."""
    body = f"""
    {init(3)}
    setp.ne.u32 %p3, %tid, 0;
    mov.u32 %r9, 0;
    @%p3 bra END;
    mbarrier.arrive_drop.shared::cta.b64 %rd5, [%full], 2;
    mbarrier.arrive.shared::cta.b64 %rd6, [%full];
    mbarrier.arrive.shared::cta.b64 %rd7, [%full];
    mbarrier.test_wait.parity.shared::cta.b64 %p4, [%full], 1;
    selp.u32 %r9, 1, 2, %p4;
    END:
    """
    # Two phases are complete: the present one has parity 0, so that of parity 1 is over.
    assert lanes(body)[0] == 1


def test_invalidated_mbarriers_are_memory_again() -> None:
    body = f"""
    {init(1)}
    @%p1 mbarrier.inval.shared::cta.b64 [%full];
    @%p1 st.shared.u32 [%full], 3;
    bar.sync 0;
    ld.shared.u32 %r9, [%full];
    """
    assert lanes(body) == [3] * 32


REFUSED = {
    "state of an old phase": (
        f"{init(1)} @!%p1 ret; mbarrier.arrive.shared::cta.b64 %rd5, [%full];"
        " mbarrier.arrive.shared::cta.b64 _, [%full];"
        " mbarrier.test_wait.shared::cta.b64 %p2, [%full], %rd5; ret;",
        "R11",
    ),
    "noComplete that completes": (
        f"{init(2)} @%p1 mbarrier.arrive.noComplete.shared::cta.b64 _, [%full], 2; ret;",
        "R10",
    ),
    "too many drops": (
        f"{init(2)} @%p1 mbarrier.arrive_drop.shared::cta.b64 _, [%full], 3; ret;",
        "R10",
    ),
    "used after inval": (
        f"{init(1)} @%p1 mbarrier.inval.shared::cta.b64 [%full];"
        " @%p1 mbarrier.arrive.shared::cta.b64 _, [%full]; ret;",
        "R9",
    ),
    "nobody arrives, polled": (
        f"{init(1)} WAIT: mbarrier.test_wait.parity.shared::cta.b64 %p2, [%full], 0;"
        " nanosleep.u32 100; @!%p2 bra WAIT; ret;",
        "R11",
    ),
    "nobody writes what is polled": (
        "WAIT: ld.acquire.gpu.global.u32 %r1, [%in]; setp.eq.u32 %p1, %r1, 0; @%p1 bra WAIT; ret;",
        "R11",
    ),
    "a count that is no number of warps": ("bar.arrive 1, 40; ret;", "R28"),
    "arrivals that nobody waits for": ("bar.arrive 1, 64; ret;", "R28"),
}


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize("name", REFUSED)
def test_refused_synchronisation(name: str, order: object) -> None:
    body, rule = REFUSED[name]
    with pytest.raises(HazardError, match=f"^{rule}"):
        run(body, order=order)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_named_barrier_for_producers_and_consumers(order: object) -> None:
    body = """
    setp.ge.u32 %p1, %tid, 32;
    shl.b32 %r1, %tid, 2;
    add.u32 %r1, %r1, %at;
    @%p1 bra PRODUCE;
    barrier.cta.sync.aligned 3, 64;
    ld.shared.u32 %r9, [%r1+128];
    st.global.u32 [%mine], %r9;
    ret;
    PRODUCE:
    st.shared.u32 [%r1], %tid;
    bar.arrive 3, 64;
    ret;
    """
    out = run(body, num_threads=64, order=order)
    assert out[:32].tolist() == list(range(32, 64))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_flag_that_is_polled(order: object) -> None:
    """Polling lets the others go on, in every timing."""
    body = """
    setp.ge.u32 %p1, %tid, 32;
    @%p1 bra PRODUCE;
    POLL:
    ld.volatile.global.u32 %r9, [%in];
    setp.eq.u32 %p2, %r9, 0;
    @%p2 bra POLL;
    st.global.u32 [%mine], %r9;
    ret;
    PRODUCE:
    membar.gl;
    fence.acq_rel.gpu;
    st.release.gpu.global.u32 [%in], 8;
    ret;
    """
    out = run(body, np.zeros(4, dtype=np.uint32), num_threads=64, order=order)
    assert out[:32].tolist() == [8] * 32


def test_what_has_no_effect() -> None:
    body = """
    griddepcontrol.wait;
    griddepcontrol.launch_dependents;
    nanosleep.u32 20;
    fence.sc.sys;
    fence.acq_rel.cluster;
    fence.mbarrier_init.release.cluster;
    fence.proxy.tensormap::generic.acquire.gpu [%in], 128;
    fence.proxy.tensormap::generic.release.gpu;
    fence.proxy.alias;
    membar.sys;
    prefetch.global.L2 [%in];
    prefetchu.L1 [%in];
    cp.async.bulk.prefetch.L2.global [%in], 16;
    createpolicy.fractional.L2::evict_last.b64 %rd5, 1.0;
    ld.global.nc.L1::no_allocate.L2::128B.u32 %r1, [%in];
    ld.global.L2::cache_hint.u32 %r1, [%in], %rd5;
    mov.u32 %r9, 6;
    """
    assert lanes(body) == [6] * 32


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_reductions_of_named_barriers(order: object) -> None:
    """Three rounds of one barrier, in which all, some and few of 64 threads hold a predicate."""
    body = """
    setp.lt.u32 %p1, %tid, 40;
    bar.red.popc.u32 %r9, 2, 64, %p1;
    bar.cta.red.popc.u32 %r2, 2, 64, !%p1;
    shl.b32 %r2, %r2, 8;
    or.b32 %r9, %r9, %r2;
    barrier.cta.red.or.aligned.pred %p2, 2, 64, %p1;
    @%p2 or.b32 %r9, %r9, 65536;
    barrier.red.and.aligned.pred %p2, 2, 64, %p1;
    @%p2 or.b32 %r9, %r9, 131072;
    bar.red.and.pred %p2, 0, %p2;
    @!%p2 or.b32 %r9, %r9, 262144;
    """
    expected = 40 | 24 << 8 | 1 << 16 | 1 << 18
    assert lanes(body, num_threads=64, order=order) == [expected] * 32


@pytest.mark.parametrize(
    "text",
    [
        "fence.proxy.strange;",
        "fence.sc;",
        "membar.proxy.alias;",
        "griddepcontrol.go;",
        "barrier.red.popc.u32 %r1, 0, %p1;",
        "bar.red.xor.pred %p1, 0, %p1;",
        "bar.arrive 1;",
        "barrier.cluster.arrive.acquire;",
        "mbarrier.test_wait.parity.shared::cluster.b64 %p1, [%full], 0;",
        "mbarrier.arrive.acquire.cta.shared::cta.b64 _, [%full];",
        "prefetch.shared.L1 [%at];",
        "setmaxnreg.inc.sync.aligned.u64 40;",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"line \d+"):
        run(f"{text} ret;")
