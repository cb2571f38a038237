"""Kernels of a few instructions on one cluster, with an input and an output in global memory."""

from __future__ import annotations

import struct

import numpy as np

from deep_gemm.emulator import run as emulator
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.emulator.tma import TensorMap
from tests.emulator.maps import with_maps

ORDERS = [(Timing.EARLY, 0), (Timing.LATE, 0), *((Timing.RANDOM, seed) for seed in range(4))]
SMEM_BYTES = 8192
OUT_WORDS = 2048

# Every kernel has these in %out, %in and %map, and its thread in %tid, its CTA in %rank. `mine` is
# shared memory of the CTA: data from 1024 on, and an mbarrier at `full`.
_HEAD = """\
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 mine[];
.entry k(.param .align 64 .b8 map_0[128], .param .u64 out_0, .param .u64 in_0)
{
.reg .pred %p<16>; .reg .b16 %rs<16>; .reg .b32 %r<64>; .reg .f32 %f<32>; .reg .b64 %rd<64>;
.reg .b32 %tid, %rank, %full, %at; .reg .b64 %out, %in, %map, %mine;
ld.param.u64 %out, [out_0];
ld.param.u64 %in, [in_0];
mov.b64 %map, map_0;
mov.u32 %tid, %tid.x;
mov.u32 %rank, %cluster_ctarank;
mov.u32 %full, mine;
add.u32 %at, %full, 1024;
mul.wide.u32 %rd0, %tid, 4;
mul.wide.u32 %rd1, %rank, 4096;
add.u64 %rd1, %rd1, %rd0;
add.u64 %mine, %out, %rd1;
"""


def run(
    body: str,
    source: np.ndarray | None = None,
    *,
    num_threads: int = 32,
    cluster_size: int = 1,
    num_clusters: int = 1,
    order: tuple[Timing, int] = (Timing.EARLY, 0),
    tensor_map: TensorMap | None = None,
    out: np.ndarray | None = None,
    pdl: bool = False,
    target: str = "sm_90a",
    smem_bytes: int = SMEM_BYTES,
) -> np.ndarray:
    """The output, uint32 [2048], after the kernel has run; before, it is all ones.

    Args:
        body: of the kernel; thread t of CTA r has its word of the output at [%mine].
        source: what [%in] holds.
        num_threads: of a CTA.
        cluster_size: number of CTAs in a cluster.
        num_clusters: of the grid.
        order: timing and seed.
        tensor_map: what %map is the address of.
        out: the output, if it is not to start with all ones.
        pdl: the launch may start before the grid before is over.
        target: architecture.
        smem_bytes: shared memory of a CTA.
    """
    data = np.zeros(4, dtype=np.uint32) if source is None else np.ascontiguousarray(source)
    result = np.full(OUT_WORDS, 0xFFFFFFFF, dtype=np.uint32) if out is None else out
    program = emulator.load(f"{_HEAD.replace('sm_90a', target)}{body}\n}}\n", "k")
    timing, seed = order
    parameters = bytes(128) + struct.pack("<QQ", result.ctypes.data, data.ctypes.data)
    emulator.run(
        program,
        grid=num_clusters * cluster_size,
        cluster_size=cluster_size,
        num_threads=num_threads,
        smem_bytes=smem_bytes,
        parameters=with_maps(parameters, {} if tensor_map is None else {0: tensor_map}),
        extents=[(array.ctypes.data, array.nbytes) for array in (result, data)],
        timing=timing,
        seed=seed,
        pdl=pdl,
    )
    return result
