"""Tensor maps that kernels copy and change, and that TMA then uses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from deep_gemm.emulator.errors import TmaArgumentError, UnknownOpcodeError
from deep_gemm.emulator.map_bytes import decode
from tests.emulator.map_kernels import (
    ACQUIRE,
    COPY_OUT,
    HEAD,
    HEALTHY,
    LOAD,
    RELEASE,
    REPLACE,
    SHOW,
    SOURCE,
    WAIT,
    aligned,
    check,
    launch,
    rows_map,
)
from tests.emulator.small_kernels import ORDERS, run


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_map_changed_in_global_memory(order: object) -> None:
    check(launch(HEALTHY, order))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_map_changed_in_shared_memory(order: object) -> None:
    """As CUTLASS does: copy, change, then copy out and release in one instruction."""
    body = f"""
    {HEAD}
    shl.b32 %r1, %tid, 2;
    cvt.u64.u32 %rd5, %r1;
    add.u64 %rd6, %map, %rd5;
    ld.param.u32 %r2, [%rd6];
    add.u32 %r3, %r1, %at;
    st.shared.u32 [%r3+1024], %r2;
    bar.sync 0;
    add.u32 %r4, %at, 1024;
    cvt.u64.u32 %rd4, %r4;
    add.u64 %rd8, %in, 512;
    @%p1 tensormap.replace.tile.global_address.shared::cta.b1024.b64 [%rd4], %rd8;
    @%p1 tensormap.replace.tile.global_dim.shared::cta.b1024.b32 [%r4], 1, 3;
    bar.warp.sync 0xffffffff;
    tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned
        [%rd9], [%r4], 128;
    {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;
    """
    out = launch(body, order)
    assert (out[:24] == SOURCE[128:152]).all()
    assert not out[24:32].any(), "the map has 3 rows"


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_a_map_built_from_zeros(order: object) -> None:
    """As Triton does: every field is set; strides are in bytes, the rank is given less 1."""
    fields = [
        ("global_address", "b64", "%in"),
        ("rank", "b32", "1"),
        ("box_dim", "b32", "0, 8"),
        ("box_dim", "b32", "1, 4"),
        ("global_dim", "b32", "0, 8"),
        ("global_dim", "b32", "1, 64"),
        ("global_stride", "b64", "0, %rd4"),
        ("element_stride", "b32", "0, 1"),
        ("element_stride", "b32", "1, 1"),
        ("elemtype", "b32", "2"),
        ("interleave_layout", "b32", "0"),
        ("swizzle_mode", "b32", "1"),
        ("fill_mode", "b32", "0"),
    ]
    replace = "\n".join(
        f"@%p1 tensormap.replace.tile.{name}.b1024.{kind} [%rd9], {value};"
        for name, kind, value in fields
    )
    body = f"""
    {HEAD} mov.b64 %rd4, 64; {replace} {RELEASE} {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;
    """
    out = launch(body, order)
    rows = SOURCE.reshape(-1, 16)[:4, :8].reshape(-1, 2, 4)
    # The box starts at a multiple of 1024: rows 4 to 7 of 32 bytes have their halves swapped.
    assert (out[:32].reshape(-1, 2, 4) == rows).all()


COPIES = {
    "ld.global.v4": """
    setp.lt.u32 %p3, %tid, 8;
    shl.b32 %r1, %tid, 4;
    cvt.u64.u32 %rd5, %r1;
    add.u64 %rd6, %map, %rd5;
    add.u64 %rd7, %rd9, %rd5;
    @%p3 ld.v4.u32 {%r2, %r3, %r4, %r5}, [%rd6];
    @%p3 st.global.v4.b32 [%rd7+256], {%r2, %r3, %r4, %r5};
    @%p3 ld.global.v4.u32 {%r6, %r7, %r8, %r9}, [%rd7+256];
    @%p3 st.global.v4.b32 [%rd7], {%r6, %r7, %r8, %r9};
    """,
    "bytes": """
    mov.u32 %r1, %tid;
    cvt.u64.u32 %rd5, %r1;
    add.u64 %rd6, %map, %rd5;
    add.u64 %rd7, %rd9, %rd5;
    ld.param.u8 %r2, [%rd6]; st.global.u8 [%rd7], %r2;
    ld.param.u8 %r2, [%rd6+32]; st.global.u8 [%rd7+32], %r2;
    ld.param.u8 %r2, [%rd6+64]; st.global.u8 [%rd7+64], %r2;
    ld.param.u8 %r2, [%rd6+96]; st.global.u8 [%rd7+96], %r2;
    """,
    "asynchronous": f"""
    {COPY_OUT.replace("[%rd7]", "[%rd7+256]")}
    add.u64 %rd7, %rd7, 256;
    add.u32 %r3, %r1, %at;
    cp.async.ca.shared.global [%r3+2048], [%rd7], 4;
    cp.async.wait_all;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    add.u32 %r3, %at, 2048;
    @%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd9], [%r3], 128;
    @%p1 cp.async.bulk.commit_group;
    @%p1 cp.async.bulk.wait_group 0;
    """,
}


@pytest.mark.parametrize("order", ORDERS, ids=str)
@pytest.mark.parametrize("name", COPIES)
def test_a_map_is_copied_by(name: str, order: object) -> None:
    body = f"{HEAD} {COPIES[name]} {RELEASE} {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;"
    check(launch(body, order), row=0)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_maps_of_an_earlier_launch(order: object) -> None:
    """The issue's two kernels: one prepares the maps, the next acquires and uses them."""
    out = aligned(2048)
    source = aligned(SOURCE.size)
    source[:] = SOURCE
    tensor_map = rows_map(source)
    run(f"{HEAD} {COPY_OUT} {REPLACE} ret;", source, order=order, out=out, tensor_map=tensor_map)
    assert decode(out[768:800].tobytes()) == dataclasses.replace(
        tensor_map, address=source.ctypes.data + 256
    )
    use = f"{HEAD} {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;"
    for _ in range(2):
        out[:32] = 0
        run(use, source, order=order, out=out)
        check(out)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_stores_and_reductions_use_changed_maps(order: object) -> None:
    """A store, then a sum on top of it, at the map's new address: rows 8 and on."""
    body = f"""
    {HEAD} {COPY_OUT} {REPLACE} {RELEASE} {ACQUIRE}
    shl.b32 %r9, %tid, 2; add.u32 %r9, %r9, %at; st.shared.u32 [%r9], %tid;
    fence.proxy.async.shared::cta; bar.sync 0;
    @%p1 cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd9, {{0, 0}}];
    @%p1 prefetch.tensormap [%rd9];
    @%p1 cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%rd9, {{0, 0}}], [%at];
    @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;
    @%p1 cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group
        [%rd9, {{0, 1}}], [%at];
    @%p1 cp.async.bulk.commit_group; @%p1 cp.async.bulk.wait_group 0;
    ret;
    """
    source = aligned(SOURCE.size)
    run(body, source, order=order, out=aligned(2048), tensor_map=rows_map(source))
    expected = np.zeros_like(source)
    expected[64:96] += np.arange(32, dtype=np.uint32)
    expected[72:104] += np.arange(32, dtype=np.uint32)
    assert (source == expected).all()


def test_where_maps_may_lie() -> None:
    healthy = f"{HEAD} {LOAD.replace('%rd9', '%map')} {WAIT} {SHOW} ret;"
    check(launch(healthy), row=0)
    for place in ("%map+64", "%mine_", "%out"):
        setup = "cvta.shared.u64 %rd3, %rd2;" if place == "%mine_" else ""
        base = {"%map+64": "add.u64 %rd3, %map, 64;", "%out": "mov.b64 %rd3, %out;"}
        setup = base.get(place, "cvt.u64.u32 %rd2, %at; " + setup)
        with pytest.raises(TmaArgumentError, match="^R18"):
            launch(f"{HEAD} {setup} {LOAD.replace('%rd9', '%rd3')} {WAIT} ret;")
    with pytest.raises(TmaArgumentError, match=r"^R18.*64-aligned"):
        launch(f"{HEAD} add.u64 %rd3, %map, 32; prefetch.tensormap [%rd3]; ret;")


def test_a_map_without_rows_may_be_prefetched() -> None:
    """Of a group that has none: the map is illegal, but never used."""
    empty = "@%p1 tensormap.replace.tile.global_dim.global.b1024.b32 [%rd9], 1, 0;"
    body = f"{HEAD} {COPY_OUT} bar.sync 0; {empty} {RELEASE} {ACQUIRE} prefetch.tensormap [%rd9];"
    launch(f"{body} ret;")
    with pytest.raises(TmaArgumentError, match=r"^R14.*sizes.*\(8, 0\)"):
        launch(f"{body} {LOAD} {WAIT} ret;")


@pytest.mark.parametrize(
    "text",
    [
        "tensormap.replace.tile.global_dim.global.b1024.b32 [%out], %r1;",
        "tensormap.replace.tile.global_dim.global.b1024.b32 [%out], %r1, %r2;",
        "tensormap.replace.tile.global_dim.global.b1024.b32 [%out], 5, %r2;",
        "tensormap.replace.tile.global_dim.global.b1024.b64 [%out], 1, %rd2;",
        "tensormap.replace.tile.global_address.global.b1024.b32 [%out], %r1;",
        "tensormap.replace.tile.elemtype.global.b1024.b32 [%out], %r1;",
        "tensormap.replace.tile.elemtype.global.b1024.b32 [%out], 13;",
        "tensormap.replace.tile.swizzle_mode.global.b1024.b32 [%out], 4;",
        "tensormap.replace.tile.swizzle_atomicity.global.b1024.b32 [%out], 1;",
        "tensormap.replace.im2col.rank.global.b1024.b32 [%out], 1;",
        "fence.proxy.tensormap::generic.acquire.gpu [%out], 64;",
        "fence.proxy.tensormap::generic.acq_rel.gpu;",
        "prefetch.global.tensormap [%out];",
    ],
)
def test_unknown_forms(text: str) -> None:
    """ptxas refuses them for sm_90a, too."""
    with pytest.raises(UnknownOpcodeError, match=r"line \d+"):
        run(f"{text} ret;")


def test_a_change_of_what_is_no_map() -> None:
    ones = aligned(2048)
    ones += 1
    with pytest.raises(TmaArgumentError, match="^R18"):
        run("tensormap.replace.tile.rank.global.b1024.b32 [%out], 1; ret;", out=ones)
