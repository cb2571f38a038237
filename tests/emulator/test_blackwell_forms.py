"""Forms of instructions that kernels for sm_100a and sm_103a have; FP32 in pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.emulator import run as emulator
from tests.emulator.lanes import run

KERNEL = """\
.version 9.0
.target {target}
.address_size 64
.extern .shared .align 1024 .b8 mine[];
.entry k(.param .align 64 .b8 map_0[128], .param .u64 out_0)
.maxntid 256, 1, 1
.minnctapersm 1
.explicitcluster
.reqnctapercluster 2, 1, 1
{{
.reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<40>; .reg .f32 %f<9>; .reg .b64 %d<9>;
{text};
ret;
}}
"""
LOAD = "[%r0], [%d1, {%r2, %r3}], [%r4]"
FORMS = [
    "stmatrix.sync.aligned.x2.m8n8.shared.b16 [%r4], {%r0, %r1}",
    "stmatrix.sync.aligned.x4.m8n8.shared.b16.trans [%r4], {%r0, %r1, %r2, %r3}",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
    f".multicast::cluster.L2::cache_hint {LOAD}, %h1, %d2",
    "cp.async.bulk.tensor.2d.cta_group::2.shared::cluster.global.mbarrier::complete_tx::bytes"
    f".L2::cache_hint {LOAD}, %d2",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
    f".multicast::cluster.cta_group::2 {LOAD}, %h1",
    "griddepcontrol.wait",
    "griddepcontrol.launch_dependents",
    "tcgen05.alloc.cta_group::2.sync.aligned.shared::cta.b32 [%r0], %r1",
    "tcgen05.dealloc.cta_group::2.sync.aligned.b32 %r0, 512",
    "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned",
    "tcgen05.cp.cta_group::2.32x128b.warpx4 [%r0], %d0",
    "tcgen05.cp.cta_group::1.warpx2::02_13.64x128b [%r0], %d0",
    "tcgen05.mma.cta_group::2.kind::mxf8f6f4.block_scale [%r0], %d0, %d1, %r1, [%r2], [%r3], %p0",
    "tcgen05.mma.cta_group::1.kind::mxf8f6f4.block_scale.block32.collector::a::lastuse"
    " [%r0], %d0, %d1, %r1, [%r2], [%r3], %p0",
    "tcgen05.mma.cta_group::1.kind::f8f6f4 [%r0], %d0, %d1, %r1, {%r2, %r3, %r4, %r5}, %p0",
    "tcgen05.mma.cta_group::1.kind::f16.collector::a::fill [%r0], [%r1], %d1, %r1, %p0",
    "tcgen05.commit.cta_group::2.mbarrier::arrive::one.shared::cluster.multicast::cluster.b64"
    " [%r0], %h1",
    "tcgen05.commit.cta_group::1.mbarrier::arrive::one.b64 [%d0]",
    "tcgen05.ld.sync.aligned.16x256b.x1.b32{%r1,%r2,%r3,%r4},[%r9]",
    "tcgen05.fence::before_thread_sync",
    "add.rn.f32x2 %d0, %d1, %d2",
]


@pytest.mark.parametrize("target", ["sm_100a", "sm_103a"])
@pytest.mark.parametrize("text", FORMS)
def test_forms_are_known(text: str, target: str) -> None:
    program = emulator.load(KERNEL.format(target=target, text=text), "k")
    assert (len(program.steps), program.kernel.max_threads) == (2, 256)


def both(values: list[float]) -> int:
    return int(np.array(values, dtype=np.float32).view(np.uint64)[0])


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
PAIR = st.lists(FLOATS, min_size=2, max_size=2)


@given(a=PAIR, b=PAIR, c=PAIR)
def test_two_floats_at_once_are_each_by_itself(
    a: list[float], b: list[float], c: list[float]
) -> None:
    for opcode, sources in {
        "add.rn": (a, b),
        "mul": (a, b),
        "sub": (a, b),
        "fma.rn": (a, b, c),
    }.items():
        names = ", ".join(f"%{{}}{i}" for i in range(len(sources) + 1))
        (pairs,) = run(f"{opcode}.f32x2 {names.format(*['rd'] * 4)}", *([both(x)] for x in sources))
        single = [
            run(f"{opcode}.f32 {names.format(*['f'] * 4)}", *([x[i]] for x in sources))[0]
            for i in range(2)
        ]
        assert pairs == both(single)
