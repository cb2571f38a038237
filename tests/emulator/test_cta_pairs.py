"""cta_group::2: one product by two CTAs, and what is reported of pairs."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError
from deep_gemm.emulator.float_formats import E4M3
from deep_gemm.emulator.tma import TensorMap
from tests.emulator import small_kernels
from tests.emulator.tensor_programs import (
    AFTER,
    BEFORE,
    BEGIN,
    DATA_BYTES,
    ORDERS,
    Order,
    allocate,
    fill,
    load,
    run,
    show,
    wait,
)
from tests.emulator.test_umma import B_AT, descriptor, place

# Each CTA has 128 rows of A and 16 of B.
N = 32
A, B = (
    np.random.default_rng(seed).integers(-4, 5, (rows, 32)) for seed, rows in ((1, 256), (2, N))
)
MEMORY = np.zeros((2, DATA_BYTES), dtype=np.uint8)
for cta in range(2):
    place(MEMORY[cta], 0, A[128 * cta : 128 * cta + 128], E4M3, 32, False)
    place(MEMORY[cta], B_AT, B[16 * cta : 16 * cta + 16], E4M3, 32, False)
IDESC = 1 << 4 | (N >> 3) << 17 | (256 >> 4) << 24

CLUSTER = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"
PROGRAM = {
    "begin": f"{BEGIN} {CLUSTER} setp.eq.u32 %p5, %rank, 0;",
    "own data": f"mul.wide.u32 %rd1, %rank, {DATA_BYTES}; add.u64 %in, %in, %rd1;",
    "allocate": allocate(64, 2),
    "fill": fill(DATA_BYTES),
    "together": CLUSTER,
    "issuer": "and.pred %p6, %issues, %p5;",
    "multiply": f"""
        mov.b64 %rd10, {descriptor(0, 0, 256, 32)}; mov.b64 %rd11, {descriptor(B_AT, 0, 256, 32)};
        mov.u32 %r20, {IDESC}; setp.ne.u32 %p7, 0, 0;
        @%p6 tcgen05.mma.cta_group::2.kind::f8f6f4 [%tmem], %rd10, %rd11, %r20, %p7;
    """,
    "mask": "mov.b16 %rs1, 3;",
    "commit": "@%p6 tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster"
    ".multicast::cluster.b64 [%full], %rs1;",
    # So that what is wrong is found at the same place, whichever CTA runs first.
    "issued": CLUSTER,
    "wait": wait(),
    "fence": AFTER,
    "read": load(N),
    "is read": "tcgen05.wait::ld.sync.aligned;",
    "show": show(N),
    "apart": f"{BEFORE} bar.sync 0; {CLUSTER}",
    "free": "@%allocates tcgen05.dealloc.cta_group::2.sync.aligned.b32 %tmem, 64;",
    "end": f"{CLUSTER} ret;",
}


def program(**changes: str) -> str:
    assert changes.keys() <= {name.replace(" ", "_") for name in PROGRAM}
    return "\n".join(changes.get(name.replace(" ", "_"), text) for name, text in PROGRAM.items())


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_rows_of_both_and_columns_of_both(order: Order) -> None:
    out = run(program(), MEMORY, order=order, cluster_size=2)
    result = out.view(np.float32)[: 256 * N].reshape(256, N)
    np.testing.assert_array_equal(result, A @ B.T)


MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "the odd CTA issues": ({"issuer": "not.pred %p5, %p5; and.pred %p6, %issues, %p5;"}, "R34"),
    "both issue": ({"issuer": "mov.pred %p6, %issues;"}, "R34"),
    "only the even CTA is told": ({"mask": "mov.b16 %rs1, 1;"}, "R11"),
    "a CTA that does not exist is told": ({"mask": "mov.b16 %rs1, 7;"}, "R13"),
    "another CTA's columns": (
        {
            "allocate": "selp.u32 %r9, 64, 32, %p5;"
            + allocate(64, 2).replace("[%full+16], 64", "[%full+16], %r9")
        },
        "R34",
    ),
    "the odd CTA does not allocate": (
        {"allocate": allocate(64, 2).replace("@%allocates", "and.pred %p4, %allocates, %p5; @%p4")},
        "R11",
    ),
    "another cta_group": ({"free": PROGRAM["free"].replace("::2", "::1")}, "R34"),
    "the peer's data are not there yet": ({"together": ""}, "R1|R3"),
    "the odd CTA reads without a wait": (
        {"wait": f"@!%p5 bra UNTOLD; {wait()} UNTOLD: bar.sync 0;"},
        "R21",
    ),
    "the odd CTA frees what is in use": (
        {
            "wait": f"@!%p5 bra AWAY; {wait()}",
            "apart": f"AWAY: {BEFORE} bar.sync 0;",
        },
        "R19",
    ),
    "the odd CTA leaves before it is told": (
        {
            "wait": f"@!%p5 bra AWAY; {wait()}",
            "apart": f"AWAY: {BEFORE} bar.sync 0; {CLUSTER}",
        },
        "R12",
    ),
    "a CTA frees what the peer may still read": ({"apart": f"{BEFORE} bar.sync 0;"}, "R19"),
    "only the even CTA frees": (
        {"free": "and.pred %p4, %allocates, %p5;" + PROGRAM["free"].replace("@%allocates", "@%p4")},
        "R11",
    ),
    "M of one CTA": (
        {"multiply": PROGRAM["multiply"].replace(str(IDESC), str(IDESC ^ 20 << 24))},
        "R17",
    ),
    "N that a pair cannot share": (
        {"multiply": PROGRAM["multiply"].replace(str(IDESC), str(IDESC + (1 << 17)))},
        "R17",
    ),
}


@pytest.mark.parametrize("order", ORDERS[:3], ids=str)
@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_reported_as_what_it_is(name: str, order: Order) -> None:
    changes, rule = MISTAKES[name]
    with pytest.raises(HazardError, match=f"^({rule}): "):
        run(program(**changes), MEMORY, order=order, cluster_size=2)


@pytest.mark.parametrize("cluster_size", [1, 3])
def test_clusters_without_pairs(cluster_size: int) -> None:
    with pytest.raises(HazardError, match="^R34: .*no pairs"):
        run(program(), np.zeros((3, DATA_BYTES), np.uint8), cluster_size=cluster_size)


@pytest.mark.parametrize("order", ORDERS[:2], ids=str)
@pytest.mark.parametrize(
    ("waits", "is_found"), [(("%full", "%full+8"), False), (("%full+8",), True), ((), True)]
)
def test_a_cta_that_may_leave_before_a_commit_arrives(
    waits: tuple[str, ...], is_found: bool, order: Order
) -> None:
    """The even CTA tells the odd one twice of a copy of its own; the odd one has to wait for both.

    Both have passed a barrier since the commits were issued, which does not tell that they have
    arrived; nor does the second arrival tell of the first.
    """
    passed = "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;"
    body = f"""
    {BEGIN} {CLUSTER} setp.eq.u32 %p5, %rank, 0;
    @!%p5 bra PEER;
    {allocate(32)} {fill(2048)}
    mapa.shared::cluster.u32 %r9, %full, 1;
    mov.b64 %rd12, {descriptor(0, 0, 128, 0)};
    @%issues tcgen05.cp.cta_group::1.32x128b.warpx4 [%tmem], %rd12;
    @%issues tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%full];
    @%issues tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r9];
    @%issues tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64 [%r9+8];
    {passed}
    {wait(label="OWN")}
    @%allocates tcgen05.dealloc.cta_group::1.sync.aligned.b32 %tmem, 32;
    ret;
    PEER: {passed} {" ".join(wait(at, label=f"TOLD{i}") for i, at in enumerate(waits))} ret;
    """
    with pytest.raises(HazardError, match="^R12: ") if is_found else nullcontext():
        run(body, MEMORY, order=order, cluster_size=2)


LOAD = "cp.async.bulk.tensor.2d{}.shared::cluster.global.mbarrier::complete_tx::bytes{}"


def load_program(name: str, mask: str, place: str, issuers: str) -> str:
    """Loads of 4 rows of 32 bytes, whose bytes the even CTA's mbarrier counts; each shows a word.

    Args:
        name: of the load.
        mask: its operand of ranks, if it has one.
        place: the mbarrier.
        issuers: sets %p6 where a load is issued.
    """
    return f"""
    .reg .pred %issues; setp.eq.u32 %issues, %tid, 0; setp.eq.u32 %p5, %rank, 0;
    @%issues mbarrier.init.shared::cta.b64 [%full], 1;
    fence.mbarrier_init.release.cluster;
    {CLUSTER}
    mapa.shared::cluster.u32 %r9, %full, 0;
    and.pred %p6, %issues, %p5;
    @%p6 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 256;
    {issuers}
    mov.b16 %rs1, 3;
    mul.lo.u32 %r10, %rank, 4;
    @%p6 {name}
        [%at], [%map, {{0, %r10}}], [{place}]{mask};
    @!%p5 bra UNTOLD;
    {wait()}
    UNTOLD: {CLUSTER}
    shl.b32 %r8, %tid, 2; add.u32 %r8, %r8, %at; ld.shared.u32 %r8, [%r8];
    st.global.u32 [%mine], %r8;
    {CLUSTER} ret;
    """


WORDS = np.arange(64, dtype=np.uint32)
ALL = "mov.pred %p6, %issues;"


def run_load(body: str, order: Order) -> np.ndarray:
    tensor_map = TensorMap.from_fields(0, WORDS.ctypes.data, (32, 8), (32,), (32, 4), swizzle=0)
    return small_kernels.run(
        body, WORDS, cluster_size=2, order=order, tensor_map=tensor_map, target="sm_100a"
    )


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_loads_of_both_tell_the_even_cta(order: Order) -> None:
    out = run_load(load_program(LOAD.format(".cta_group::2", ""), "", "%r9", ALL), order)
    assert out[:32].tolist() == WORDS[:32].tolist()
    assert out[1024:1056].tolist() == WORDS[32:].tolist()


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize(
    "modifiers",
    [(".cta_group::2", ".multicast::cluster"), ("", ".multicast::cluster.cta_group::2")],
)
def test_a_load_for_both_tells_the_even_cta(modifiers: tuple[str, str], order: Order) -> None:
    out = run_load(load_program(LOAD.format(*modifiers), ", %rs1", "%full", ""), order)
    assert out[:32].tolist() == WORDS[:32].tolist()
    assert out[1024:1056].tolist() == WORDS[:32].tolist()


@pytest.mark.parametrize("order", ORDERS[:2], ids=str)
def test_a_load_by_itself_does_not_tell_the_peer(order: Order) -> None:
    with pytest.raises(HazardError, match="^R34: a TMA load without .cta_group::2"):
        run_load(load_program(LOAD.format("", ""), "", "%r9", ALL), order)
