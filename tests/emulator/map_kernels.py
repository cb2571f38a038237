"""A small kernel that copies a tensor map to global memory, changes it there and loads by it."""

from __future__ import annotations

import numpy as np

from deep_gemm.emulator.tma import TensorMap
from tests.emulator.small_kernels import ORDERS, run

UINT32 = 2
COLUMNS, ROWS = 8, 64


def rows_map(source: np.ndarray, rows: int = ROWS, **changes: object) -> TensorMap:
    """Of uint32 [rows, 8], boxes of 4 rows."""
    fields = {
        "dtype": UINT32,
        "address": source.ctypes.data,
        "dims": (COLUMNS, rows),
        "strides": (4 * COLUMNS,),
        "box": (COLUMNS, 4),
        "swizzle": 0,
    }
    return TensorMap.from_fields(**{**fields, **changes})


def aligned(num_words: int) -> np.ndarray:
    """Zeroed uint32 [num_words], at a multiple of 128 bytes."""
    memory = np.zeros(num_words + 32, dtype=np.uint32)
    return memory[-memory.ctypes.data % 128 // 4 :][:num_words]


# The map lies at %rd9, in the output.
HEAD = """
setp.eq.u32 %p1, %tid, 0;
add.u64 %rd9, %out, 3072;
@%p1 mbarrier.init.shared::cta.b64 [%full], 1;
@%p1 mbarrier.init.shared::cta.b64 [%full+8], 1;
fence.mbarrier_init.release.cluster;
bar.sync 0;
"""
COPY_OUT = """
shl.b32 %r1, %tid, 2;
cvt.u64.u32 %rd5, %r1;
add.u64 %rd6, %map, %rd5;
add.u64 %rd7, %rd9, %rd5;
ld.param.u32 %r2, [%rd6];
st.global.u32 [%rd7], %r2;
"""
REPLACE = """
bar.sync 0;
add.u64 %rd8, %in, 256;
@%p1 tensormap.replace.tile.global_address.global.b1024.b64 [%rd9], %rd8;
"""
RELEASE = "fence.proxy.tensormap::generic.release.gpu; bar.sync 0;"
ACQUIRE = "fence.proxy.tensormap::generic.acquire.gpu [%rd9], 128;"
LOAD = """
@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], 128;
@%p1 cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes
    [%at], [%rd9, {0, 0}], [%full];
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
HEALTHY = f"{HEAD} {COPY_OUT} {REPLACE} {RELEASE} {ACQUIRE} {LOAD} {WAIT} {SHOW} ret;"
SOURCE = np.arange(1000, 1000 + ROWS * COLUMNS, dtype=np.uint32)


def launch(body: str, order: object = ORDERS[0], out: np.ndarray | None = None, **options: object):
    source = aligned(SOURCE.size)
    source[:] = SOURCE
    out = aligned(2048) if out is None else out
    return run(body, source, order=order, out=out, tensor_map=rows_map(source), **options)


def check(out: np.ndarray, row: int = 8) -> None:
    assert (out[:32] == SOURCE[row * COLUMNS :][:32]).all()
