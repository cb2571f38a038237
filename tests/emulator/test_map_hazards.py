"""Tensor maps without their fences or changed in use, each beside a healthy neighbour."""

from __future__ import annotations

import pytest

from deep_gemm.emulator.errors import MapInUseError, MissingMapFenceError
from tests.emulator.map_kernels import (
    ACQUIRE,
    COPY_OUT,
    HEAD,
    HEALTHY,
    LOAD,
    RELEASE,
    REPLACE,
    SHOW,
    WAIT,
    aligned,
    check,
    launch,
)
from tests.emulator.small_kernels import ORDERS

HAZARDS = {
    "no release": HEALTHY.replace(RELEASE, "bar.sync 0;"),
    "no acquire": HEALTHY.replace(ACQUIRE, ""),
    "acquire of another map": HEALTHY.replace("[%rd9], 128", "[%rd9+128], 128"),
    "written since": HEALTHY.replace(ACQUIRE, f"{ACQUIRE} @%p1 st.global.u32 [%rd9+124], 0;"),
    "a plain fence": HEALTHY.replace("fence.proxy.tensormap::generic.release.gpu", "fence.sc.gpu"),
    "released before the change": HEALTHY.replace(
        f"{REPLACE} {RELEASE}", f"{RELEASE} {REPLACE} bar.sync 0;"
    ),
    "prefetched": HEALTHY.replace(ACQUIRE, "").replace(
        LOAD, "@%p1 cp.async.bulk.prefetch.tensor.2d.L2.global [%rd9, {0, 0}];"
    ),
}


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize("name", HAZARDS)
def test_a_map_without_its_fences(name: str, order: object) -> None:
    assert HAZARDS[name] != HEALTHY
    with pytest.raises(MissingMapFenceError, match=r"^R31.*kernel k, CTA 0, warp 0"):
        launch(HAZARDS[name], order)


def test_an_earlier_launch_needs_no_release_but_an_acquire() -> None:
    out = aligned(2048)
    launch(f"{HEAD} {COPY_OUT} ret;", out=out)
    with pytest.raises(MissingMapFenceError, match=r"^R31.*by this CTA before"):
        launch(f"{HEAD} {LOAD} {WAIT} ret;", out=out)


# Warp 1 changes the map, warp 0 uses it; how the one tells the other stands in TOLD.
TWO_WARPS = f"""
{HEAD}
setp.ge.u32 %p3, %tid, 32;
sub.u32 %r7, %tid, 32;
@!%p3 bra USER;
mov.u32 %tid, %r7;
{COPY_OUT}
fence.proxy.tensormap::generic.release.gpu;
PRODUCED
bra DONE;
USER:
CONSUMED
{ACQUIRE} {LOAD} {WAIT} {SHOW}
DONE:
ret;
"""
# Time enough for the other warp to go first, which orders nothing.
SPIN = """
mov.u32 %r6, 0;
SPIN:
nanosleep.u32 20;
add.u32 %r6, %r6, 1;
setp.lt.u32 %p5, %r6, 50;
@%p5 bra SPIN;
"""
FLAG = """
setp.eq.u32 %p4, %tid, 0;
bar.warp.sync 0xffffffff;
@%p4 st.relaxed.gpu.global.u32 [%out+2048], 1;
"""
POLL = """
POLL:
ld.relaxed.gpu.global.u32 %r6, [%out+2048];
setp.eq.u32 %p5, %r6, 0;
@%p5 bra POLL;
"""


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("means", [("bar.arrive 1, 64;", "bar.sync 1, 64;"), (FLAG, POLL)])
def test_another_warp_uses_the_map(means: tuple[str, str], order: object) -> None:
    body = TWO_WARPS.replace("PRODUCED", means[0]).replace("CONSUMED", means[1])
    check(launch(body, order, num_threads=64), row=0)


def test_another_warp_uses_the_map_unordered() -> None:
    """By chance, the other warp comes first in every order; nothing says so."""
    body = TWO_WARPS.replace("PRODUCED", "").replace("CONSUMED", SPIN)
    with pytest.raises(MissingMapFenceError, match=r"^R31.*release before the acquire"):
        launch(body, num_threads=64)


def test_each_cta_acquires_for_itself() -> None:
    """CTA 1 uses what CTA 0 has released; an acquire by CTA 0 does not count for it."""
    cluster = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    body = f"""
    {HEAD}
    setp.ne.u32 %p3, %rank, 0;
    @%p3 bra MET;
    {COPY_OUT} {RELEASE} {ACQUIRE}
    MET: {cluster} OWN {LOAD} {WAIT} {SHOW} {cluster} ret;
    """
    check(launch(body.replace("OWN", ACQUIRE), cluster_size=2), row=0)
    with pytest.raises(MissingMapFenceError, match=r"^R31.*CTA 1"):
        launch(body.replace("OWN", ""), cluster_size=2)


def test_clusters_of_one_launch() -> None:
    """The second cluster finds the map that the first one has written, released or not."""
    body = f"""
    {HEAD}
    setp.ne.u32 %p3, %ctaid.x, 0;
    @%p3 bra USER;
    {COPY_OUT} OWN
    ret;
    USER: {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;
    """
    check(launch(body.replace("OWN", RELEASE), num_clusters=2), row=0)
    with pytest.raises(MissingMapFenceError, match=r"^R31.*CTA 1.*other access: CTA 0"):
        launch(body.replace("OWN", ""), num_clusters=2)


CHANGE = "@%p1 tensormap.replace.tile.global_address.global.b1024.b64 [%rd9], %in;"
IN_FLIGHT = {
    "load": HEALTHY.replace(WAIT, f"AGAIN {WAIT}"),
    "store": f"""
    {HEAD} {COPY_OUT} {RELEASE} {ACQUIRE}
    shl.b32 %r9, %tid, 2; add.u32 %r9, %r9, %at; st.shared.u32 [%r9], %tid;
    fence.proxy.async.shared::cta; bar.sync 0;
    @%p1 cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd9, {{0, 0}}], [%at];
    @%p1 cp.async.bulk.commit_group; AGAIN @%p1 cp.async.bulk.wait_group.read 0; LATER ret;
    """,
    "reduction": f"""
    {HEAD} {COPY_OUT} {RELEASE} {ACQUIRE}
    shl.b32 %r9, %tid, 2; add.u32 %r9, %r9, %at; st.shared.u32 [%r9], %tid;
    fence.proxy.async.shared::cta; bar.sync 0;
    @%p1 cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [%rd9, {{0, 0}}], [%at];
    @%p1 cp.async.bulk.commit_group; AGAIN @%p1 cp.async.bulk.wait_group 0; LATER ret;
    """,
}
IN_FLIGHT["load"] = IN_FLIGHT["load"].replace("ret;", "LATER ret;")


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", IN_FLIGHT)
def test_a_map_changed_under_a_copy(name: str, order: object) -> None:
    launch(IN_FLIGHT[name].replace("AGAIN", "").replace("LATER", CHANGE), order)
    with pytest.raises(MapInUseError, match=r"^R32.*tensormap\.replace.*other access.*bulk"):
        launch(IN_FLIGHT[name].replace("AGAIN", CHANGE).replace("LATER", ""), order)


def by_warps(first: str, second: str, between: str) -> str:
    """Warp 1 does `first`, warp 0 `second`, with their numbers of threads from 0 on."""
    return f"""
    {HEAD}
    setp.ge.u32 %p3, %tid, 32;
    and.b32 %tid, %tid, 31;
    @!%p3 bra SECOND;
    {first} {between.replace("sync", "arrive")}
    ret;
    SECOND: {between} {second} ret;
    """


def test_an_acquire_by_another_warp_of_the_cta() -> None:
    """It counts, if the user knows of it."""
    out = aligned(2048)
    launch(f"{HEAD} {COPY_OUT} ret;", out=out)
    use = f"{LOAD} {WAIT} {SHOW}"
    check(launch(by_warps(ACQUIRE, use, "bar.sync 1, 64;"), num_threads=64, out=out), row=0)
    with pytest.raises(MissingMapFenceError, match="^R31.*by this CTA before"):
        launch(by_warps(ACQUIRE, SPIN + use, ""), num_threads=64, out=out)


def test_a_release_by_another_warp() -> None:
    """It releases what its warp knows to be written."""
    use = f"fence.proxy.tensormap::generic.release.gpu; {ACQUIRE} {LOAD} {WAIT} {SHOW}"
    check(launch(by_warps(COPY_OUT, use, "bar.sync 1, 64;"), num_threads=64), row=0)
    with pytest.raises(MissingMapFenceError, match="^R31.*release before the acquire"):
        launch(by_warps(COPY_OUT, SPIN + use, ""), num_threads=64)


@pytest.mark.parametrize(("offset", "is_released"), [(0, True), (128, False)])
def test_cp_fenceproxy_releases_its_own_map_only(offset: int, is_released: bool) -> None:
    """The map at %rd9 is stored word by word; a copy of it goes to the same place or behind."""
    body = f"""
    {HEAD} {COPY_OUT}
    add.u32 %r3, %r1, %at;
    st.shared.u32 [%r3+1024], %r2;
    bar.sync 0;
    add.u64 %rd7, %rd9, {offset};
    tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned
        [%rd7], [%at+1024], 128;
    {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;
    """
    if is_released:
        check(launch(body), row=0)
        return
    with pytest.raises(MissingMapFenceError, match=r"^R31.*other access.*st\.global"):
        launch(body)


# The map's bytes go through shared memory at %at + 1024, and from there in one bulk copy.
BULK = f"""
{HEAD}
shl.b32 %r1, %tid, 2;
cvt.u64.u32 %rd5, %r1;
add.u64 %rd6, %map, %rd5;
ld.param.u32 %r2, [%rd6];
add.u32 %r3, %r1, %at;
st.shared.u32 [%r3+1024], %r2;
fence.proxy.async.shared::cta;
bar.sync 0;
COPY
@%p1 cp.async.bulk.wait_group 0;
{RELEASE} {ACQUIRE} {LOAD}
MORE
@%p1 cp.async.bulk.wait_group 0;
{WAIT} {SHOW}
ret;
"""
BULK_COPY = """
@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd9], [%at+1024], 128;
@%p1 cp.async.bulk.commit_group;
"""


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_maps_written_by_bulk_copies(order: object) -> None:
    body = BULK.replace("COPY", BULK_COPY)
    healthy = body.replace("MORE", "")
    check(launch(healthy, order), row=0)
    early = healthy.replace(f"@%p1 cp.async.bulk.wait_group 0;\n{RELEASE}", RELEASE)
    assert early != healthy
    # Before anything is written there, the place may hold an older map: a copy in flight.
    out = aligned(2048)
    launch(f"{HEAD} {COPY_OUT} ret;", out=out)
    with pytest.raises(MissingMapFenceError, match=r"^R31.*other access.*bulk\.global"):
        launch(early, order, out=out)
    with pytest.raises(MapInUseError, match=r"^R32.*bulk\.global.*other access.*bulk\.tensor"):
        launch(body.replace("MORE", BULK_COPY), order)
