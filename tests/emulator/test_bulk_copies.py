"""Bulk copies and reductions: what they move, in all timings, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from deep_gemm.emulator.errors import HazardError, UnknownOpcodeError
from deep_gemm.emulator.float_formats import BF16
from deep_gemm.emulator.tma import TensorMap
from tests.emulator.small_kernels import ORDERS, run

WORDS = np.arange(1, 257, dtype=np.uint32)
INIT = """
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], 1;
fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""
EXPECT = "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 128;"
LOAD = """
@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%at], [%in], 128, [%full];
"""
MULTICAST = """
@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
    [%at], [%in], 128, [%full], %rs1;
"""
WAIT = """
WAIT:
mbarrier.try_wait.parity.shared::cta.b64 %p2, [%full], 0;
@!%p2 bra WAIT;
"""
SHOW = """
shl.b32 %r9, %tid, 2;
add.u32 %r9, %r9, %at;
ld.shared.u32 %r8, [%r9];
st.global.u32 [%mine], %r8;
"""
FILL = "shl.b32 %r9, %tid, 2; add.u32 %r9, %r9, %at; st.shared.u32 [%r9], %r8;"
FENCE = "fence.proxy.async.shared::cta; bar.sync 0;"
DONE = "@%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;"
CLUSTER = "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;"


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_from_global_memory(order: object) -> None:
    out = run(f"{INIT} {EXPECT} {LOAD} {WAIT} {SHOW} ret;", WORDS, order=order)
    assert (out[:32] == WORDS[:32]).all()


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_to_both_ctas(order: object) -> None:
    body = f"""
    {INIT} {EXPECT}
    setp.eq.u32 %p3, %rank, 1;
    mov.b16 %rs1, 3;
    @%p3 bra DONE;
    {MULTICAST}
    DONE: {WAIT} {SHOW} {CLUSTER} ret;
    """
    out = run(body, WORDS, order=order, cluster_size=2)
    assert (out[:32] == WORDS[:32]).all()
    assert (out[1024:1056] == WORDS[:32]).all()


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_to_a_peer(order: object) -> None:
    body = f"""
    {INIT} {EXPECT}
    mul.lo.u32 %r8, %rank, 100;
    add.u32 %r8, %r8, %tid;
    {FILL} {FENCE}
    xor.b32 %r1, %rank, 1;
    add.u32 %r2, %at, 1024;
    mapa.shared::cluster.u32 %r3, %r2, %r1;
    mapa.shared::cluster.u32 %r4, %full, %r1;
    @%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes
        [%r3], [%at], 128, [%r4];
    {WAIT}
    ld.shared.u32 %r8, [%r9+1024];
    st.global.u32 [%mine], %r8;
    {CLUSTER}
    ret;
    """
    out = run(body, order=order, cluster_size=2)
    assert out[:32].tolist() == list(range(100, 132))
    assert out[1024:1056].tolist() == list(range(32))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_to_global_memory(order: object) -> None:
    store = "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;"
    body = f"setp.eq.u32 %p1, %tid, 0; mov.u32 %r8, %tid; {FILL} {FENCE} {store} {DONE} ret;"
    assert run(body, order=order)[:33].tolist() == [*range(32), 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("add.u32", lambda old, new: old + new),
        ("min.s32", lambda old, new: np.minimum(old.view("i4"), new.view("i4")).view("u4")),
        ("max.u32", np.maximum),
        ("and.b32", np.bitwise_and),
        ("xor.b32", np.bitwise_xor),
    ],
)
def test_reductions_into_global_memory(name: str, bits: object) -> None:
    out = np.random.default_rng(1).integers(0, 2**32, 2048, dtype=np.uint32)
    old = out.copy()
    op, _, kind = name.partition(".")
    reduce = f"cp.reduce.async.bulk.global.shared::cta.bulk_group.{op}.{kind} [%out], [%at], 128"
    body = f"setp.eq.u32 %p1, %tid, 0; mov.u32 %r8, %tid; {FILL} {FENCE} @%p1 {reduce}; {DONE} ret;"
    run(body, out=out)
    assert (out[:32] == bits(old[:32], np.arange(32, dtype=np.uint32))).all()
    assert (out[32:] == old[32:]).all()


FLOAT32, FLOAT16, BFLOAT16, INT32 = 7, 6, 9, 3


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT16, BFLOAT16])
def test_boxes_are_added(dtype: int, order: object) -> None:
    """By both CTAs, 8 x 32 bytes at (0, 2) of a tensor of 4 rows, the rest of it outside."""
    size = 4 if dtype == FLOAT32 else 2
    columns = 64 // size
    before = np.arange(4 * columns, dtype=np.float32).reshape(4, columns)
    encoded = {
        FLOAT32: lambda v: v,
        FLOAT16: lambda v: v.astype(np.float16),
        BFLOAT16: lambda v: BF16.encode(v),
    }[dtype]
    out = np.zeros(2048, dtype=np.uint32)
    out[:64] = np.ascontiguousarray(encoded(before)).view(np.uint32).reshape(-1)
    tensor_map = TensorMap.from_fields(
        dtype, out.ctypes.data, (columns, 4), (64,), (32 // size, 8), swizzle=0
    )
    one = {FLOAT32: 0x3F800000, FLOAT16: 0x3C003C00, BFLOAT16: 0x3F803F80}[dtype]
    body = f"""
    setp.eq.u32 %p1, %tid, 0;
    mov.u32 %r8, {one};
    {FILL}
    st.shared.u32 [%r9+128], %r8;
    {FENCE}
    @%p1 cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group
        [%map, {{0, 2}}], [%at];
    {DONE}
    ret;
    """
    run(body, cluster_size=2, order=order, tensor_map=tensor_map, out=out)
    before[2:, : 32 // size] += 2
    expected = np.ascontiguousarray(encoded(before)).view(np.uint32).reshape(-1)
    assert (out[:64] == expected).all()
    assert not out[64:].any()


REFUSED = {
    "size": (f"{INIT} {EXPECT} {LOAD.replace('128', '120')} ret;", "R14"),
    "destination": (f"{INIT} {EXPECT} {LOAD.replace('[%at]', '[%at+8]')} ret;", "R14"),
    "source": (f"{INIT} {EXPECT} {LOAD.replace('[%in]', '[%in+8]')} ret;", "R14"),
    "no mbarrier": (f"setp.eq.u32 %p1, %tid, 0; {LOAD} ret;", "R9"),
    "read before the wait": (f"{INIT} {EXPECT} {LOAD} {SHOW} {WAIT} ret;", "R2"),
    "too many bytes expected": (
        f"{INIT} {EXPECT.replace('128', '144')} {LOAD} {WAIT} {SHOW} ret;",
        "R11",
    ),
    "unfenced source": (
        f"{INIT} mov.u32 %r8, %tid; {FILL} bar.sync 0;"
        " @%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;"
        f"{DONE} ret;",
        "R1",
    ),
    "unwritten source": (
        "setp.eq.u32 %p1, %tid, 0;"
        " @%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;"
        f"{DONE} ret;",
        "R26",
    ),
    "source overwritten": (
        f"setp.eq.u32 %p1, %tid, 0; mov.u32 %r8, %tid; {FILL} {FENCE}"
        " @%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128;"
        f" bar.sync 0; st.shared.u32 [%r9], 0; {DONE} ret;",
        "R4",
    ),
    "no wait": (
        f"setp.eq.u32 %p1, %tid, 0; mov.u32 %r8, %tid; {FILL} {FENCE}"
        " @%p1 cp.async.bulk.global.shared::cta.bulk_group [%out], [%at], 128; ret;",
        "R4",
    ),
    "to itself": (
        f"{INIT} mov.u32 %r8, %tid; {FILL} {FENCE} add.u32 %r2, %at, 1024;"
        " @%p1 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes"
        " [%r2], [%at], 128, [%full]; ret;",
        "R14",
    ),
    "no such CTA": (
        f"{INIT} {EXPECT} mov.b16 %rs1, 4;{MULTICAST} ret;",
        "R13",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_copies(name: str) -> None:
    body, rule = REFUSED[name]
    with pytest.raises(HazardError, match=f"^{rule}"):
        run(body, WORDS, order=ORDERS[1])


@pytest.mark.parametrize(
    "text",
    [
        "cp.async.bulk.shared::cluster.global.strange [%at], [%in], 128, [%full];",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f16x2 [%out], [%at], 128;",
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.mul.u32 [%out], [%at], 128;",
        "cp.async.wait_group.read 0;",
        "cp.async.bulk.tensor.3d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
        " [%at], [%map, {0, 0, 0}], [%full];",
        "cp.async.bulk.tensor.2d.global.shared::cta.tile::scatter4.bulk_group"
        " [%map, {0, 0, 0, 0, 0}], [%at];",
        "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3"
        " {%f1, %f2, %f3, %f4}, %rd1, %rd2, 1, 2, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16"
        " {%f1, %f2, %f3, %f4}, %rd1, %rd2, 1, 1, 1, 0, 1;",
        "wgmma.mma_async.sync.aligned.m64n8k32.f16.e4m3.e4m3 {%r1, %r2}, %rd1, %rd2, 1, 1, 1;",
    ],
)
def test_unknown_forms(text: str) -> None:
    with pytest.raises(UnknownOpcodeError, match=r"line \d+"):
        run(f"{text} ret;")
