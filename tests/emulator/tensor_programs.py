"""Programs of tcgen05, in pieces: one CTA of four warps, or a pair of such CTAs.

Shared memory, from %at on: DATA_BYTES that the program copies from [%in]. The address of tensor
memory is at %full + 16, in %tmem after ALLOCATE.
"""

from __future__ import annotations

import numpy as np

from deep_gemm.emulator.asynchrony import Timing
from tests.emulator import small_kernels

Order = tuple[Timing, int]
ORDERS = [(Timing.EARLY, 0), (Timing.LATE, 0), (Timing.RANDOM, 0), (Timing.RANDOM, 1)]
NUM_THREADS = 128
DATA_BYTES = 33792
SMEM_BYTES = 1024 + DATA_BYTES

# %p1: the thread that issues; %p0: its warp.
BEGIN = """
.reg .b32 %tmem, %own, %word<128>; .reg .pred %issues, %allocates;
setp.eq.u32 %issues, %tid, 0;
setp.lt.u32 %allocates, %tid, 32;
@%issues mbarrier.init.shared::cta.b64 [%full], 1;
@%issues mbarrier.init.shared::cta.b64 [%full+8], 1;
fence.mbarrier_init.release.cluster;
"""


def allocate(columns: int = 512, group: int = 1) -> str:
    return f"""
    @%allocates tcgen05.alloc.cta_group::{group}.sync.aligned.shared::cta.b32 [%full+16], {columns};
    bar.sync 0;
    ld.shared.u32 %tmem, [%full+16];
    shr.u32 %r1, %tid, 5;
    shl.b32 %r1, %r1, 21;
    add.u32 %own, %tmem, %r1;
    """


def fill(num_bytes: int) -> str:
    """Copies bytes from [%in] to [%at], for the async proxy; 16 bytes of a thread at a time."""
    return f"""
    shl.b32 %r2, %tid, 4;
    cvt.u64.u32 %rd2, %r2;
    FILL:
    add.u64 %rd3, %in, %rd2;
    ld.global.v4.u32 {{%r3, %r4, %r5, %r6}}, [%rd3];
    add.u32 %r7, %at, %r2;
    st.shared.v4.u32 [%r7], {{%r3, %r4, %r5, %r6}};
    add.u32 %r2, %r2, {16 * NUM_THREADS};
    cvt.u64.u32 %rd2, %r2;
    setp.lt.u32 %p3, %r2, {num_bytes};
    @%p3 bra FILL;
    fence.proxy.async.shared::cta;
    bar.sync 0;
    """


def wait(barrier: str = "%full", parity: int = 0, label: str = "WAIT") -> str:
    return f"""
    {label}:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [{barrier}], {parity};
    @!%p2 bra {label};
    """


BEFORE = "tcgen05.fence::before_thread_sync;"
AFTER = "tcgen05.fence::after_thread_sync;"


def commit(barrier: str = "%full", guard: str = "@%issues") -> str:
    return (
        f"{guard} tcgen05.commit.cta_group::1.mbarrier::arrive::one.shared::cluster.b64"
        f" [{barrier}];"
    )


def words(count: int) -> str:
    return "{" + ", ".join(f"%word{i}" for i in range(count)) + "}"


def load(columns: int, at: str = "%own", shape: str = "32x32b", times: int | None = None) -> str:
    return f"tcgen05.ld.sync.aligned.{shape}.x{times or columns}.b32 {words(columns)}, [{at}];"


def show(count: int, first: int = 0) -> str:
    """Thread t of CTA r writes register i to word r * 128 * count + t * count + i of the output."""
    stores = " ".join(f"st.global.u32 [%rd5+{4 * i}], %word{first + i};" for i in range(count))
    return f"""
    mad.lo.u32 %r8, %rank, {NUM_THREADS}, %tid;
    mul.wide.u32 %rd4, %r8, {4 * count};
    add.u64 %rd5, %out, %rd4;
    {stores}
    """


def end(columns: int = 512, group: int = 1) -> str:
    return f"""
    {BEFORE}
    bar.sync 0;
    @%allocates tcgen05.dealloc.cta_group::{group}.sync.aligned.b32 %tmem, {columns};
    ret;
    """


def run(
    body: str,
    source: np.ndarray | None = None,
    *,
    out_words: int = 128 * 128,
    order: Order = ORDERS[0],
    cluster_size: int = 1,
) -> np.ndarray:
    """The output of a program after it has run: uint32 [out_words], all ones before."""
    return small_kernels.run(
        body,
        source,
        num_threads=NUM_THREADS,
        cluster_size=cluster_size,
        order=order,
        out=np.full(out_words, 0xFFFFFFFF, dtype=np.uint32),
        target="sm_100a",
        smem_bytes=SMEM_BYTES,
    )
