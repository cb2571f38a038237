"""Which accesses of threads to shared memory race, and what strong ones and fences order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.errors import HazardError
from tests.emulator.small_kernels import ORDERS, run

# Thread 0 of warp 0 writes data and says so in a flag; thread 0 of warp 1 polls it and reads.
MESSAGE = """
setp.eq.u32 %p3, %tid, 0;
@%p3 st.shared.u32 [%at], 0;
bar.sync 0;
and.b32 %r1, %tid, 31;
setp.ne.u32 %p1, %r1, 0;
@%p1 bra DONE;
setp.eq.u32 %p2, %tid, 32;
@%p2 bra READ;
st.shared.u32 [%at+4], 7;
{fence}
{tell}
bra DONE;
READ:
{learn}
setp.eq.u32 %p2, %r2, 0;
@%p2 bra READ;
{fence}
ld.shared.u32 %r3, [%at+4];
st.global.u32 [%out], %r3;
DONE:
ret;
"""
STRONG = [
    ("", "st.release.cta.shared.u32 [%at], 1;", "ld.acquire.cta.shared.u32 %r2, [%at];"),
    (
        "fence.sc.cta;",
        "st.volatile.shared.u32 [%at], 1;",
        "ld.volatile.shared.u32 %r2, [%at];",
    ),
    ("membar.cta;", "st.volatile.shared.u32 [%at], 1;", "ld.relaxed.cta.shared.u32 %r2, [%at];"),
    ("", "red.release.cta.shared.add.u32 [%at], 1;", "atom.acquire.shared.or.b32 %r2, [%at], 0;"),
]
UNORDERED = [
    ("", "st.relaxed.cta.shared.u32 [%at], 1;", "ld.acquire.cta.shared.u32 %r2, [%at];"),
    ("", "st.release.cta.shared.u32 [%at], 1;", "ld.relaxed.cta.shared.u32 %r2, [%at];"),
    ("", "red.shared.add.u32 [%at], 1;", "atom.shared.or.b32 %r2, [%at], 0;"),
    ("", "st.shared.u32 [%at], 1;", "ld.acquire.cta.shared.u32 %r2, [%at];"),
]


@pytest.mark.parametrize("order", ORDERS[:4], ids=str)
@pytest.mark.parametrize(("fence", "tell", "learn"), STRONG)
def test_a_flag_orders(fence: str, tell: str, learn: str, order: Any) -> None:
    body = MESSAGE.format(fence=fence, tell=tell, learn=learn)
    assert run(body, num_threads=64, order=order)[0] == 7


@pytest.mark.parametrize("order", [(Timing.EARLY, 0), (Timing.LATE, 0)], ids=str)
@pytest.mark.parametrize(("fence", "tell", "learn"), UNORDERED)
def test_a_flag_that_does_not_order(fence: str, tell: str, learn: str, order: Any) -> None:
    with pytest.raises(HazardError) as caught:
        run(MESSAGE.format(fence=fence, tell=tell, learn=learn), num_threads=64, order=order)
    assert caught.value.rule == "race"


@pytest.mark.parametrize(
    ("first", "second", "races"),
    [
        ("atom.shared.add.u32 %r2, [%at], 1;", "red.shared.add.u32 [%at], 1;", False),
        ("st.volatile.shared.u32 [%at], %tid;", "ld.relaxed.cta.shared.u32 %r2, [%at];", False),
        ("red.shared.add.u32 [%at], 1;", "st.shared.u32 [%at], %tid;", True),
        ("st.shared.u32 [%at], %tid;", "red.shared.add.u32 [%at], 1;", True),
        ("red.shared.add.u32 [%at], 1;", "ld.shared.u32 %r2, [%at];", True),
        ("ld.shared.u32 %r2, [%at];", "red.shared.add.u32 [%at], 1;", True),
        ("ld.volatile.shared.u32 %r2, [%at];", "st.shared.u32 [%at], %tid;", True),
        ("ld.shared.u32 %r2, [%at];", "ld.volatile.shared.u32 %r3, [%at];", False),
    ],
)
def test_strong_accesses_race_weak_ones_only(first: str, second: str, races: bool) -> None:
    body = f"""
    setp.eq.u32 %p3, %tid, 0;
    @%p3 st.shared.u32 [%at], 9;
    bar.sync 0;
    setp.eq.u32 %p1, %tid, 0;
    setp.eq.u32 %p2, %tid, 32;
    @%p1 {first}
    @%p2 {second}
    ret;
    """
    if not races:
        run(body, num_threads=64)
        return
    with pytest.raises(HazardError) as caught:
        run(body, num_threads=64)
    assert caught.value.rule == "race" and caught.value.other is not None


def test_one_atomic_does_not_hide_another() -> None:
    # The last one is ordered before the read, the first one is not.
    body = """
    setp.eq.u32 %p3, %tid, 0;
    @%p3 st.shared.u32 [%at], 9;
    bar.sync 0;
    setp.eq.u32 %p1, %tid, 0;
    @%p1 red.shared.add.u32 [%at], 1;
    @%p1 bra DONE;
    setp.lt.u32 %p1, %tid, 32;
    @%p1 bra DONE;
    setp.eq.u32 %p2, %tid, 32;
    @%p2 red.shared.add.u32 [%at], 1;
    bar.sync 1, 64;
    setp.eq.u32 %p2, %tid, 64;
    @%p2 ld.shared.u32 %r2, [%at];
    DONE:
    ret;
    """
    with pytest.raises(HazardError) as caught:
        run(body, num_threads=96)
    assert caught.value.rule == "race" and caught.value.other.agent == 0


def test_an_atomic_is_no_write_that_the_async_proxy_sees() -> None:
    store = "cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 16;"
    body = """
    setp.ne.u32 %p1, %tid, 0;
    @%p1 bra DONE;
    st.shared.v4.u32 [%at], {1, 2, 3, 4};
    fence.proxy.async.shared::cta;
    red.shared.add.u32 [%at], 1;
    FENCE
    STORE
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group 0;
    DONE:
    ret;
    """.replace("STORE", store)
    fenced = run(body.replace("FENCE", "fence.proxy.async.shared::cta;"))
    np.testing.assert_array_equal(fenced[:4], [2, 2, 3, 4])
    with pytest.raises(HazardError) as caught:
        run(body.replace("FENCE", ""))
    assert caught.value.rule == "R1"


COPIES = """
mul.lo.u32 %r1, %tid, 4;
add.u32 %r2, %at, %r1;
cp.async.ca.shared.global [%r2], [%in], 4;
cp.async.commit_group;
cp.async.ca.shared.global [%r2+512], [%in], 4;
{mark}
cp.async.commit_group;
{wait}
bar.sync 0;
xor.b32 %r3, %r1, 128;
add.u32 %r3, %r3, %at;
ld.shared.u32 %r4, [%r3+{offset}];
st.global.u32 [%mine], %r4;
cp.async.wait_all;
ret;
"""
MARK = "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%full];"


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize(
    ("wait", "offset", "is_over"),
    [
        ("cp.async.wait_group 1;", 0, True),
        ("cp.async.wait_group 1;", 512, False),
        ("cp.async.wait_group 0;", 512, True),
        ("cp.async.wait_all;", 512, True),
        ("", 0, False),
    ],
)
@pytest.mark.parametrize("mark", ["", MARK])
def test_groups_of_cp_async_order_what_they_cover(
    wait: str, offset: int, is_over: bool, mark: str, order: Any
) -> None:
    init = "setp.eq.u32 %p1, %tid, 0; @%p1 mbarrier.init.shared::cta.b64 [%full], 64; bar.sync 0;"
    body = init + COPIES.format(wait=wait, offset=offset, mark=mark)
    source = np.full(2048, 5, dtype=np.uint32)
    if is_over:
        assert (run(body, source, num_threads=64, order=order)[:64] == 5).all()
        return
    with pytest.raises(HazardError) as caught:
        run(body, source, num_threads=64, order=order)
    assert caught.value.rule == "R2"


@pytest.mark.parametrize("fence", ["fence.mbarrier_init.release.cluster;", ""])
def test_a_relaxed_cluster_barrier_shows_fenced_mbarriers(fence: str) -> None:
    body = f"""
    setp.eq.u32 %p1, %tid, 0;
    @%p1 mbarrier.init.shared::cta.b64 [%full], 1;
    {fence}
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.acquire.aligned;
    xor.b32 %r1, %rank, 1;
    mapa.shared::cluster.u32 %r2, %full, %r1;
    @%p1 mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r2];
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.aligned;
    ret;
    """
    if fence:
        run(body, cluster_size=2)
        return
    with pytest.raises(HazardError) as caught:
        run(body, cluster_size=2)
    assert caught.value.rule == "R9"


@pytest.mark.parametrize("arrive", ["", "barrier.cluster.arrive.relaxed.aligned;"])
def test_memory_of_a_peer_that_may_have_left(arrive: str) -> None:
    body = f"""
    st.shared.u32 [%at], %tid;
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    xor.b32 %r1, %rank, 1;
    mapa.shared::cluster.u32 %r2, %at, %r1;
    ld.shared::cluster.u32 %r3, [%r2];
    {arrive}
    {arrive.replace("arrive.relaxed", "wait")}
    ret;
    """
    if arrive:
        run(body, cluster_size=2)
        return
    with pytest.raises(HazardError) as caught:
        run(body, cluster_size=2)
    assert caught.value.rule == "R12"


@pytest.mark.parametrize(
    ("use", "is_refused"),
    [
        ("vote.sync.ballot.b32 %r3, %p2, -1;", False),
        ("redux.sync.add.u32 %r3, %r2, -1;", False),
        ("shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1;", False),
        ("mapa.shared::cluster.u32 %r3, %r2, 0;", False),
        ("vote.sync.ballot.b32 %r3, %p2, -1; st.global.u32 [%mine], %r3;", True),
        ("redux.sync.add.u32 %r3, %r2, -1; st.global.u32 [%mine], %r3;", True),
        ("match.any.sync.b32 %r3, %r2, -1; st.global.u32 [%mine], %r3;", True),
        ("shfl.sync.bfly.b32 %r3, %r2, 1, 31, -1; st.global.u32 [%mine], %r3;", True),
        ("mapa.shared::cluster.u32 %r3, %r2, 0; st.shared::cluster.u32 [%r3], 1;", True),
        ("bar.red.popc.u32 %r3, 0, %p2;", True),
    ],
)
def test_undefined_values_between_lanes_and_in_addresses(use: str, is_refused: bool) -> None:
    # Only one lane reads what nobody wrote.
    body = f"""
    st.shared.u32 [%at], 3;
    mov.u32 %r1, %at;
    setp.eq.u32 %p1, %tid, 9;
    @%p1 add.u32 %r1, %r1, 64;
    ld.shared.u32 %r2, [%r1];
    setp.eq.u32 %p2, %r2, 3;
    {use}
    ret;
    """
    if not is_refused:
        run(body)
        return
    with pytest.raises(HazardError) as caught:
        run(body)
    assert caught.value.rule == "R26"
