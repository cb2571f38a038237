"""TMA in programs, of 1 to 5 dimensions: loads, multicast, stores and sums, element by element."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import pytest
import torch

from deep_gemm.emulator.tma import TensorMap
from tests.emulator.small_kernels import OUT_WORDS, run

UINT8, UINT32, FLOAT32, BFLOAT16 = 0, 2, 7, 9
BYTES = {UINT8: 1, UINT32: 4, FLOAT32: 4, BFLOAT16: 2}
SWIZZLES = {0: 48, 1: 32, 2: 64, 3: 128}
"""Bytes of a row of the box, by CUtensorMapSwizzle."""

Place = tuple[int, ...]

PROLOGUE = """
setp.eq.u32 %p1, %tid, 0;
@%p1 mbarrier.init.shared::cta.b64 [%full], 1;
fence.mbarrier_init.release.cluster;
barrier.cluster.arrive.aligned;
barrier.cluster.wait.aligned;
"""


def each_word(num_words: int, move: str) -> str:
    """Lets the warp's threads do `move` for all words: %r9 in shared memory, %rd9 beside it."""
    return f"""
    mov.u32 %r1, %tid;
    LOOP:
    shl.b32 %r2, %r1, 2;
    add.u32 %r9, %r2, %at;
    cvt.u64.u32 %rd9, %r2;
    setp.lt.u32 %p3, %r1, {num_words};
    {move}
    add.u32 %r1, %r1, 32;
    @%p3 bra LOOP;
    """


@dataclass(frozen=True)
class Case:
    """A box that lies across the edges of a tensor.

    Attributes:
        dims: of the tensor beyond dimension 0.
        box: likewise.
        corner: where the box starts, dimension 0 in units of 16 bytes.
        padding: bytes behind each row.
    """

    dims: Place
    box: Place
    corner: Place
    padding: int = 16

    def __str__(self) -> str:
        return "x".join(map(str, self.box)) + "_at_" + "_".join(map(str, self.corner))

    def tensor_map(self, dtype: int, swizzle: int, address: int) -> TensorMap:
        """Rows have one granule more than the box has."""
        size, row_bytes = BYTES[dtype], SWIZZLES[swizzle]
        strides, stride = [], row_bytes + 16 + self.padding
        for outer in self.dims:
            strides.append(stride)
            stride = stride * outer + 16 * self.padding
        dims = (row_bytes + 16) // size, *self.dims
        return TensorMap.from_fields(
            dtype, address, dims, strides, (row_bytes // size, *self.box), swizzle
        )

    def coordinates(self, dtype: int) -> Place:
        return self.corner[0] * 16 // BYTES[dtype], *self.corner[1:]


def elements(tensor_map: TensorMap, corner: Place) -> Iterator[tuple[int, int]]:
    """(number in the box, byte in the tensor) of each element of a box inside of the tensor."""
    for number, backwards in enumerate(product(*(range(n) for n in reversed(tensor_map.box)))):
        index = [start + i for start, i in zip(corner, reversed(backwards), strict=True)]
        if all(0 <= i < size for i, size in zip(index, tensor_map.dims, strict=True)):
            steps = tensor_map.element_bytes, *tensor_map.strides
            yield number, sum(i * step for i, step in zip(index, steps, strict=True))


def swizzled(dense: np.ndarray, swizzle: int) -> np.ndarray:
    """Bytes of a box as they lie in shared memory: chunks of each 128 bytes change places."""
    if swizzle == 0:
        return dense
    chunks = np.resize(dense, (-(-dense.size // 128), 8, 16))
    result = np.zeros_like(chunks)
    lines, places = np.indices(chunks.shape[:2])
    result[lines, places ^ lines % (SWIZZLES[swizzle] // 16)] = chunks
    return result.reshape(-1)


def span(tensor_map: TensorMap) -> int:
    """Bytes of a tensor, rounded up to words."""
    outer = zip(tensor_map.dims[1:], tensor_map.strides, strict=True)
    row_bytes = tensor_map.dims[0] * tensor_map.element_bytes
    return -(-(sum((size - 1) * stride for size, stride in outer) + row_bytes) // 4) * 4


def tma(instruction: str, corner: Place) -> str:
    at = ", ".join(map(str, corner))
    return f"{instruction}.{len(corner)}d", f"[%map, {{{at}}}]"


LOADS = [
    Case((), (), (0,)),
    Case((), (), (-1,)),
    Case((5,), (8,), (1, 2)),
    Case((5,), (8,), (-1, -3)),
    Case((5, 3), (4, 2), (0, 0, 0)),
    Case((5, 3), (4, 2), (1, 3, 2)),
    Case((5, 3), (4, 4), (2, -1, -2)),
    Case((5, 3), (8, 4), (0, 5, 0)),
    Case((3, 3, 3), (2, 2, 2), (1, 2, 2, 2)),
    Case((3, 3, 3), (4, 2, 2), (-1, 1, -1, 2)),
    Case((2, 3, 2, 3), (2, 2, 2, 2), (1, 1, 2, -1, 2)),
]


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("dtype", [UINT8, UINT32, BFLOAT16])
@pytest.mark.parametrize("case", LOADS, ids=str)
def test_loads_with_multicast(case: Case, dtype: int, swizzle: int) -> None:
    """Rank 1 loads into both CTAs; both see the same bytes, with zeros outside of the tensor."""
    source = np.random.default_rng(0).integers(1, 2**32, 4096, dtype=np.uint32)
    tensor_map = case.tensor_map(dtype, swizzle, source.ctypes.data)
    corner, num_bytes = case.coordinates(dtype), tensor_map.box_bytes
    name, box = tma("cp.async.bulk.tensor", corner)
    show = (
        "@%p3 ld.shared.u32 %r8, [%r9]; add.u64 %rd9, %rd9, %rd1; @%p3 st.global.u32 [%rd9], %r8;"
    )
    body = f"""
    {PROLOGUE}
    @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%full], {num_bytes};
    setp.ne.u32 %p4, %rank, 1;
    mov.b16 %rs1, 3;
    @%p4 bra WAIT;
    @%p1 {name}.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
        [%at], {box}, [%full], %rs1;
    WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%full], 0;
    @!%p2 bra WAIT;
    mul.wide.u32 %rd1, %rank, 4096; add.u64 %rd1, %rd1, %out;
    {each_word(num_bytes // 4, show)}
    barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
    ret;
    """
    out = run(body, source, cluster_size=2, tensor_map=tensor_map)
    size, there = BYTES[dtype], source.view(np.uint8)
    expected = np.zeros(num_bytes, dtype=np.uint8)
    for number, byte in elements(tensor_map, corner):
        expected[number * size :][:size] = there[byte : byte + size]
    for found in (out[:1024], out[1024:]):
        image = found.view(np.uint8)[:num_bytes]
        assert (image == swizzled(expected, swizzle)[:num_bytes]).all()


STORES = [case for case in LOADS if min(case.corner) >= 0]


def values(dtype: int, count: int, seed: int) -> np.ndarray:
    """Bytes of numbers whose sums have to be rounded, some of them subnormal."""
    rng = np.random.default_rng(seed)
    if dtype == UINT32:
        return rng.integers(0, 2**32, count, dtype=np.uint32).view(np.uint8)
    tiny = rng.random(count) < 0.1
    floats = rng.standard_normal(count) * np.where(tiny, 2.0**-130, 2.0 ** rng.integers(-9, 9))
    floats = torch.from_numpy(floats.astype(np.float32))
    if dtype == BFLOAT16:
        return floats.bfloat16().view(torch.uint8).numpy()
    return floats.numpy().view(np.uint8)


def summed(dtype: int, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """old + new, rounded to nearest, as bytes."""
    if dtype == UINT32:
        return (old.view(np.uint32) + new.view(np.uint32)).view(np.uint8)
    torch_type = {FLOAT32: torch.float32, BFLOAT16: torch.bfloat16}[dtype]
    wide = [torch.from_numpy(part.copy()).view(torch_type).double() for part in (old, new)]
    return (wide[0] + wide[1]).to(torch_type).view(torch.uint8).numpy()


@pytest.mark.parametrize("swizzle", SWIZZLES)
@pytest.mark.parametrize("dtype", [UINT32, FLOAT32, BFLOAT16])
@pytest.mark.parametrize("adds", [False, True], ids=["store", "add"])
@pytest.mark.parametrize("case", STORES, ids=str)
def test_stores_and_sums(case: Case, adds: bool, dtype: int, swizzle: int) -> None:
    """What is inside of the tensor is written, and nothing else, not even between its rows."""
    size = BYTES[dtype]
    out = values(dtype, OUT_WORDS * 4 // size, 1).view(np.uint32)
    before = out.view(np.uint8).copy()
    tensor_map = case.tensor_map(dtype, swizzle, out.ctypes.data)
    assert span(tensor_map) <= out.nbytes
    corner, num_bytes = case.coordinates(dtype), tensor_map.box_bytes
    box_values = values(dtype, num_bytes // size, 2)
    image = swizzled(np.pad(box_values, (0, -num_bytes % 128)), swizzle)
    name, box = tma("cp.reduce.async.bulk.tensor" if adds else "cp.async.bulk.tensor", corner)
    name += ".global.shared::cta" + ".add" * adds + ".tile.bulk_group"
    fill = "add.u64 %rd9, %rd9, %in; @%p3 ld.global.u32 %r8, [%rd9]; @%p3 st.shared.u32 [%r9], %r8;"
    body = f"""
    setp.eq.u32 %p1, %tid, 0;
    {each_word(image.size // 4, fill)}
    fence.proxy.async.shared::cta;
    bar.sync 0;
    @%p1 {name} {box}, [%at];
    @%p1 cp.async.bulk.commit_group;
    @%p1 cp.async.bulk.wait_group 0;
    ret;
    """
    run(body, image.view(np.uint32), tensor_map=tensor_map, out=out)
    expected = before.copy()
    written = 0
    for number, byte in elements(tensor_map, corner):
        new, old = box_values[number * size :][:size], before[byte : byte + size]
        expected[byte : byte + size] = summed(dtype, old, new) if adds else new
        written += 1
    assert (out.view(np.uint8) == expected).all()
    assert written < prod(tensor_map.box) or max(corner) == 0


def test_sums_in_bf16_round_to_nearest_even() -> None:
    """1 + half a unit stays, 1 + a unit + half goes up; subnormals are kept on both sides."""
    old = [1.0, 1.0 + 2**-7, 1.0, -1.0, 2.0**-133, 2.0**-126, 3.0, 0.0]
    new = [2.0**-8, 2.0**-8, 2.0**-8 + 2**-15, -(2.0**-8), 2.0**-133, -(2.0**-133), -3.0, -0.0]
    sums = [1.0, 1.0 + 2**-6, 1.0 + 2**-7, -1.0, 2.0**-132, 2.0**-126 - 2**-133, 0.0, 0.0]
    old_codes, new_codes, expected = (
        np.frombuffer(torch.tensor(v).bfloat16().view(torch.uint8).numpy().tobytes(), "u4")
        for v in (old, new, sums)
    )
    out = np.zeros(OUT_WORDS, dtype=np.uint32)
    out[:4] = old_codes
    tensor_map = TensorMap.from_fields(BFLOAT16, out.ctypes.data, (8,), (), (8,), 0)
    body = """
    setp.eq.u32 %p1, %tid, 0;
    @%p1 ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in];
    @%p1 st.shared.v4.u32 [%at], {%r1, %r2, %r3, %r4};
    fence.proxy.async.shared::cta;
    @%p1 cp.reduce.async.bulk.tensor.1d.global.shared::cta.add.bulk_group [%map, {0}], [%at];
    @%p1 cp.async.bulk.commit_group;
    @%p1 cp.async.bulk.wait_group 0;
    ret;
    """
    run(body, new_codes, tensor_map=tensor_map, out=out)
    assert (out[:4] == expected).all()
