"""R35: the async proxy overwrites what threads have read, with and without their proxy fences."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.emulator.clocks import Clock
from deep_gemm.emulator.errors import Access, HazardError, MissingReadFenceError
from deep_gemm.emulator.map_bytes import TensorMap
from deep_gemm.emulator.races import Kind, Ledger, Operation, Races
from tests.emulator.small_kernels import ORDERS, run

WORDS = np.arange(1, 257, dtype=np.uint32)
BARRIERS = """
add.u32 %r20, %full, 8;
mul.lo.u32 %r9, %tid, 4;
add.u32 %r9, %r9, %at;
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], 1;
@%p1 mbarrier.init.shared::cta.b64 [%r20], ARRIVALS;
fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
EXPECT = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 256;"
BULK = """
@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%at], [%in], 256, [%full];
"""
TENSOR = """
@%p1 cp.async.bulk.tensor.1d.shared::cluster.global.mbarrier::complete_tx::bytes
    [%at], [%map, {0}], [%full];
"""
MULTICAST = """
mov.b16 %rs1, 1;
@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
    [%at], [%in], 256, [%full], %rs1;
"""
READ = "ld.shared.u32 %r8, [%r9];"
FENCE = "fence.proxy.async.shared::cta;"
ARRIVE = "mbarrier.arrive.shared::cta.b64 _, [%r20];"
# A bulk store only reads; the group is waited for, so that its end is known.
STORE = """
@%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 256;
@%p1 cp.async.bulk.commit_group;
@%p1 cp.async.bulk.wait_group 0;
"""


def wait(name: str, barrier: str, parity: int) -> str:
    return f"""
    {name}:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [{barrier}], {parity};
    @!%p2 bra {name};
    """


WAIT = wait("WAIT", "%full", 0)
LET_GO = wait("LET_GO", "%r20", 0)


def overwritten(
    between: str, read: str = READ, load: str = BULK, again: str = BULK, arrivals: int = 64
) -> str:
    """Two warps read what a copy has brought, and then thread 0 lets another one overwrite it."""
    return f"""
    {BARRIERS.replace("ARRIVALS", str(arrivals))}
    {EXPECT} {load} {WAIT} {read}
    {between}
    {EXPECT} {again} {wait("AGAIN", "%full", 1)}
    st.global.u32 [%mine], %r8;
    ret;
    """


THEN = f"{ARRIVE} {LET_GO}"
ONE_WARP_ARRIVES = f"bar.warp.sync 0xffffffff; @%p3 {ARRIVE} {LET_GO}"
ELECT = "and.b32 %r10, %tid, 31; setp.eq.u32 %p3, %r10, 0;"
GOOD = {
    "fence and arrival": overwritten(f"{FENCE} {THEN}"),
    "fence of all state spaces": overwritten(f"fence.proxy.async; {THEN}"),
    "fence of the cluster": overwritten(f"fence.proxy.async.shared::cluster; {THEN}"),
    "fence, and one arrival for a warp": overwritten(
        f"{ELECT} {FENCE} {ONE_WARP_ARRIVES}", arrivals=2
    ),
    "fence and bar.sync": overwritten(f"{FENCE} bar.sync 0;"),
    "fence and cluster barrier": overwritten(
        f"{FENCE} barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    ),
    "fence, tensor copy": overwritten(f"{FENCE} {THEN}", again=TENSOR),
    "fence, multicast": overwritten(f"{FENCE} {THEN}", again=MULTICAST),
    "fence behind a strong read": overwritten(
        f"{FENCE} {THEN}", read="ld.volatile.shared.u32 %r8, [%r9];"
    ),
    "only one lane reads, and has a fence": overwritten(
        f"{ELECT} @%p3 {READ} @%p3 {FENCE} {THEN}", read="mov.u32 %r8, 0;"
    ),
    "read by the async proxy": overwritten(THEN, read=f"mov.u32 %r8, 0; {STORE}"),
    "overwritten by threads": overwritten(f"{THEN} st.shared.u32 [%r9], 7; {FENCE} bar.sync 0;"),
    "overwritten by another thread, which has a fence": overwritten(
        f"{THEN} xor.b32 %r11, %tid, 32; mul.lo.u32 %r11, %r11, 4; add.u32 %r11, %r11, %at;"
        f" st.shared.u32 [%r11], 7; {FENCE} bar.sync 0;"
    ),
    "overwritten by cp.async, which has a fence": overwritten(
        f"{THEN} mul.wide.u32 %rd5, %tid, 4; add.u64 %rd5, %rd5, %in;"
        " cp.async.ca.shared.global [%r9], [%rd5], 4; cp.async.commit_group;"
        f" cp.async.wait_group 0; {FENCE} bar.sync 0;"
    ),
}
BAD = {
    "no fence": overwritten(THEN),
    "no fence, bar.sync": overwritten("bar.sync 0;"),
    "no fence, cluster barrier": overwritten(
        "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
    ),
    "no fence, tensor copy": overwritten(THEN, again=TENSOR),
    "no fence, multicast": overwritten(THEN, again=MULTICAST),
    "no fence behind a strong read": overwritten(
        THEN, read="ld.volatile.shared.u32 %r8, [%r9];"
    ),
    "no fence behind ldmatrix": overwritten(
        THEN,
        read="and.b32 %r10, %tid, 7; mul.lo.u32 %r10, %r10, 16; add.u32 %r10, %r10, %at;"
        " ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r8}, [%r10];",
    ),
    "a fence of global memory": overwritten(f"fence.proxy.async.global; {THEN}"),
    "a fence of the generic proxy": overwritten(f"fence.acq_rel.cta; {THEN}"),
    "fence after the arrival": overwritten(f"{ARRIVE} {FENCE} {LET_GO}"),
    "fence before the read": overwritten(f"{FENCE} {READ} {THEN}", read=""),
    "read again after the fence": overwritten(f"{FENCE} {READ} {THEN}"),
    "fence by the arriving lanes": overwritten(
        f"{ELECT} @%p3 {FENCE} {ONE_WARP_ARRIVES}", arrivals=2
    ),
    "fence by all lanes but one": overwritten(
        f"setp.ne.u32 %p3, %tid, 37; @%p3 {FENCE} {THEN}"
    ),
    "fence by the loading warp, behind the wait": overwritten(
        f"{THEN} setp.lt.u32 %p3, %tid, 32; @%p3 {FENCE}"
    ),
    "fence by other lanes of the same words": overwritten(
        f"setp.ge.u32 %p3, %tid, 16; @%p3 {FENCE} {THEN}", read="ld.shared.u32 %r8, [%at];"
    ),
}  # fmt: skip
MAP = TensorMap.from_fields(2, WORDS.ctypes.data, (64,), (), (64,), swizzle=0)


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize("name", GOOD)
def test_a_fence_by_every_reader_is_enough(name: str, order: object) -> None:
    out = run(GOOD[name], WORDS, num_threads=64, order=order, tensor_map=MAP)
    if "one lane" in name:
        np.testing.assert_array_equal(out[[0, 32]], [1, 33])
    elif "async proxy" not in name:
        np.testing.assert_array_equal(out[:64], WORDS[:64])


@pytest.mark.parametrize("name", BAD)
def test_reads_without_a_fence_are_found(name: str) -> None:
    with pytest.raises(MissingReadFenceError, match="^R35: a TMA load writes .*cp.async.bulk.*"
                       r"other access: CTA 0, warp \d, .*ld") as caught:  # fmt: skip
        run(BAD[name], WORDS, num_threads=64, tensor_map=MAP)
    assert caught.value.rule == "R35"


PEER = f"""
{BARRIERS.replace("ARRIVALS", "64")}
{EXPECT}
{BULK} {WAIT}
barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
xor.b32 %r12, %rank, 1;
mapa.shared::cluster.u32 %r13, %r9, %r12;
ld.shared::cluster.u32 %r8, [%r13];
FENCE
barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
{EXPECT} {BULK} {wait("AGAIN", "%full", 1)}
st.global.u32 [%mine], %r8;
ret;
"""


def test_a_fence_behind_reads_of_a_peer_is_one_of_the_cluster() -> None:
    wide = "fence.proxy.async.shared::cluster;"
    out = run(PEER.replace("FENCE", wide), WORDS, num_threads=64, cluster_size=2)
    np.testing.assert_array_equal(out[:64], WORDS[:64])
    with pytest.raises(HazardError, match="^R35"):
        run(PEER.replace("FENCE", FENCE), WORDS, num_threads=64, cluster_size=2)


# Against a search through all that has happened.

NUM_BYTES, NUM_LANES = 3, 2
LANES = st.lists(st.integers(0, NUM_LANES - 1), min_size=1, max_size=NUM_LANES, unique=True)
EVENTS = st.one_of(
    st.tuples(st.just("read"), LANES, st.integers(0, NUM_BYTES - 1), st.booleans()),
    st.tuples(st.just("fence"), LANES, st.just(0), st.just(False)),
    st.tuples(st.just("tell"), st.just([0]), st.just(0), st.just(False)),
    st.tuples(st.just("overwrite"), st.just([0]), st.integers(0, NUM_BYTES - 1), st.just(False)),
)
Event = tuple[str, list[int], int, bool]


def outcome_of_a_search(events: list[Event], byte: int) -> str:
    """What a copy over a byte by one who was told last comes to."""
    told = max((i for i, event in enumerate(events) if event[0] == "tell"), default=-1)
    written = max(
        (i for i, (name, _, at, _) in enumerate(events) if (name, at) == ("overwrite", byte)),
        default=-1,
    )
    reads = [i for i, (name, _, at, _) in enumerate(events) if (name, at) == ("read", byte)]
    if any(read > told for read in reads):
        return "race"
    for read in (read for read in reads if read > written):
        between = events[read:told]
        fenced = {lane for name, lanes, _, _ in between if name == "fence" for lane in lanes}
        if not set(events[read][1]) <= fenced:
            return "R35"
    return ""


@settings(max_examples=400)
@given(st.lists(EVENTS, min_size=3, max_size=20))
def test_finds_what_a_search_finds(events: list[Event]) -> None:
    """One warp reads; another one, which knows what it was told, overwrites now and then."""
    races, own, others, time = Races(NUM_BYTES, 1024, Ledger()), Clock(), Clock(), 1
    own.advance(1, 1)
    done: list[Event] = []
    for name, lanes, at, is_strong in events:
        kind = Kind.STRONG if is_strong else Kind.THREAD
        operation = Operation(kind, 1, time, Access(0, 0))
        if name == "read":
            index = np.full((len(lanes), 1), at)
            races.read(index, operation, own, np.array(lanes))
        elif name == "fence":
            races.fence(np.array(lanes), operation, own)
        elif name == "tell":
            others.advance(1, time)
            time += 1
            own.advance(1, time)
        elif outcome_of_a_search(done, at) != "race":
            overwrite(races, at, others, own)
        else:
            continue
        done.append((name, lanes, at, is_strong))
    for byte in range(NUM_BYTES):
        check_copy(races, byte, others, outcome_of_a_search(done, byte))


def overwrite(races: Races, at: int, clock: Clock, reader: Clock) -> None:
    """A thread of another warp writes a byte, and executes its fence; both warps know of it."""
    store = Operation(Kind.THREAD, 2, clock[2] + 1, Access(1, 1))
    for knows in (clock, reader):
        knows.advance(2, store.time)
    races.write(np.array([[at]]), [store], clock, threads=np.array([32]))
    races.fence(np.array([32]), store, clock)


def check_copy(races: Races, byte: int, clock: Clock, expected: str) -> None:
    load = Operation(Kind.LOAD, 3, 1, Access(1, 2))
    try:
        races.write(np.array([byte]), [load], clock)
    except HazardError as hazard:
        assert hazard.rule == expected
    else:
        assert expected == ""
