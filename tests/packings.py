"""Cases of the packing kernels, and the check that each of them passes on any device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from deep_gemm.kernels.pack_ue8m0 import k_grouped_pack_fp32_into_ue8m0, pack_fp32_into_ue8m0
from deep_gemm.testing.layout_reference import pack_k_grouped_ue8m0, pack_ue8m0
from tests.transposes import GUARD, GUARD_BYTES, random_bits


@dataclass(frozen=True)
class Packing:
    """FP32 scale factors [*batch, ceil(mn / gran_mn), k], and how they lie in memory.

    Attributes:
        mn: rows of the packed scale factors.
        k: columns of the others.
        strides: of the others' rows and columns, in words.
        out_stride: words from column to column of the packed ones; 0 for aligned ones.
        batch: matrices, in three dimensions; 0 for two dimensions.
        batch_gap: words behind each matrix of the source.
        offset: words before its first.
        gran_mn: rows that share a scale factor.
    """

    mn: int
    k: int
    strides: tuple[int, int]
    out_stride: int = 0
    batch: int = 0
    batch_gap: int = 0
    offset: int = 0
    gran_mn: int = 1

    def __str__(self) -> str:
        batch = f"{self.batch}x" if self.batch else ""
        layout = ",".join(map(str, (*self.strides, self.out_stride, self.batch_gap, self.offset)))
        return f"{batch}{self.mn}x{self.k}-{layout}-per{self.gran_mn}"


def row_major(mn: int, k: int, **others: int) -> Packing:
    return Packing(mn, k, (k, 1), **others)


def column_major(mn: int, k: int, **others: int) -> Packing:
    return Packing(mn, k, (1, mn), **others)


EDGES = [
    *(row_major(n, 35 - n) for n in range(1, 35)),
    *(column_major(n, 35 - n) for n in range(1, 35)),
    *(row_major(mn, 8) for mn in (31, 32, 33, 63, 64, 65)),
    *(row_major(36, k) for k in (124, 128, 132)),
]

LAYOUTS = [
    # gaps of whole vectors, then odd ones, along K and along MN
    Packing(70, 12, (16, 1)),
    Packing(70, 13, (16, 1)),
    Packing(70, 12, (13, 1)),
    Packing(70, 12, (1, 72)),
    Packing(70, 13, (1, 71)),
    # addresses that are no multiples of 16 bytes
    Packing(64, 16, (16, 1), offset=1),
    Packing(64, 16, (1, 64), offset=2),
    # neither dimension contiguous, the same row again and again
    Packing(40, 9, (22, 2)),
    Packing(40, 8, (0, 1)),
    # columns that begin anywhere
    Packing(41, 8, (8, 1), out_stride=41),
    Packing(40, 8, (8, 1), out_stride=47),
    # batches: aligned, with gaps, odd ones, of nothing but one element each
    Packing(34, 12, (12, 1), batch=3),
    Packing(20, 12, (12, 1), batch=5, batch_gap=8),
    Packing(20, 12, (12, 1), batch=5, batch_gap=3),
    Packing(20, 12, (1, 20), batch=3),
    Packing(21, 5, (5, 1), batch=3),
    Packing(1, 1, (1, 1), batch=7),
    # rows that share one
    Packing(130, 8, (8, 1), gran_mn=128),
    Packing(130, 7, (7, 1), gran_mn=128, batch=2),
    Packing(70, 8, (1, 4), gran_mn=32),
    Packing(70, 8, (8, 1), gran_mn=3),
]


def powers_of_two(count: int, device: str, seed: int = 0) -> torch.Tensor:
    """Every power of two that FP32 has as a normal number, and zero."""
    generator = torch.Generator(device).manual_seed(seed)
    bits = torch.randint(0, 255, (count,), dtype=torch.int32, device=device, generator=generator)
    return (bits << 23).view(torch.float32)


def some_of_everything(count: int, device: str, seed: int = 0) -> torch.Tensor:
    """Half of them powers of two, half of them any bits: NaN, negative numbers and so on."""
    anything = random_bits(4 * count, device, seed).view(torch.float32)
    return torch.where(anything.view(torch.int32) % 3 > 0, anything, powers_of_two(count, device))


def check(case: Packing, device: str) -> None:
    """The packed scale factors are right to the bit, and not a word beside them has changed."""
    rows = -(-case.mn // case.gran_mn)
    batch = (case.batch,) if case.batch else ()
    stride_mn, stride_k = case.strides
    stride_batch = (rows - 1) * stride_mn + (case.k - 1) * stride_k + 1
    # Matrices begin where rows may be read in vectors, unless a gap says otherwise.
    stride_batch = -(-stride_batch // 4) * 4 + case.batch_gap
    values = some_of_everything(case.offset + max(case.batch, 1) * stride_batch, device)
    shape, strides = (*batch, rows, case.k), (stride_batch, stride_mn, stride_k)
    sf = values.as_strided(shape, strides[-len(shape) :], case.offset)

    words = -(-case.k // 4)
    column = case.out_stride or -(-case.mn // 4) * 4
    guard = GUARD_BYTES // 4
    pattern = int.from_bytes(bytes([GUARD] * 4), "little", signed=True)
    size = 2 * guard + max(case.batch, 1) * words * column
    buffer = torch.full((size,), pattern, dtype=torch.int32, device=device)
    place = ((*batch, case.mn, words), (words * column, 1, column)[-len(shape) :], guard)
    expected = buffer.clone()
    expected.as_strided(*place).copy_(pack_ue8m0(sf, case.mn, case.gran_mn))
    pack_fp32_into_ue8m0(sf, buffer.as_strided(*place), case.gran_mn)
    differs = (buffer != expected).nonzero()
    assert not len(differs), f"{len(differs)} words differ, first {int(differs[0])}"


@dataclass(frozen=True)
class KGroupedPacking:
    """Scale factors of groups along K, [sum(ceil(k_i / gran_k)), mn]."""

    ks: tuple[int, ...]
    mn: int
    gran_k: int = 128
    row_stride: int = 0

    def __str__(self) -> str:
        ks = ",".join(map(str, self.ks)) if len(self.ks) < 9 else f"{len(self.ks)}groups"
        return f"{self.mn}x{ks}-per{self.gran_k}-{self.row_stride}"


K_GROUPED = [
    KGroupedPacking((512,), 4),
    KGroupedPacking((128, 0, 256, 0, 0, 384, 640, 0), 36),
    KGroupedPacking((0, 0, 128), 12),
    KGroupedPacking((128, 0, 0), 12),
    KGroupedPacking((96, 32, 160, 128, 0, 544), 20, gran_k=32),
    KGroupedPacking((100, 1, 129, 513), 8),
    KGroupedPacking((128, 384), 8, row_stride=12),
    KGroupedPacking((128, 384), 8, row_stride=9),
    KGroupedPacking(tuple(128 * (i % 3) for i in range(32)), 4),
    KGroupedPacking(tuple(128 * (i % 5) for i in range(33)), 4),
    KGroupedPacking(tuple(128 * (i % 2) for i in range(70)), 4),
]


def k_grouped_source(case: KGroupedPacking, device: str) -> torch.Tensor:
    rows = sum(-(-k // case.gran_k) for k in case.ks)
    stride = case.row_stride or case.mn
    return some_of_everything(rows * stride, device).as_strided((rows, case.mn), (stride, 1))


def check_k_grouped(case: KGroupedPacking, device: str, spare_words: int = 0) -> None:
    """Right to the bit, nothing beside it has changed, and rows to spare are zero."""
    sf = k_grouped_source(case, device)
    expected = pack_k_grouped_ue8m0(sf, case.ks, case.gran_k)
    words = expected.shape[0] + spare_words
    buffer = random_bits(4 * (words + 2) * case.mn, device, 1).view(torch.int32).view(-1, case.mn)
    wanted = buffer.clone()
    wanted[1 : 1 + len(expected)] = expected
    wanted[1 + len(expected) : -1] = 0
    sizes = torch.tensor(case.ks, dtype=torch.int32, device=device)
    k_grouped_pack_fp32_into_ue8m0(sf, buffer[1:-1], sizes, case.gran_k)
    assert torch.equal(buffer, wanted)


def ends_of(ks: Sequence[int], alignment: int) -> list[int]:
    """The psum layout: where each group ends, if each begins at the next aligned place."""
    ends, begin = [], 0
    for k in ks:
        ends.append(begin + k)
        begin = -(-ends[-1] // alignment) * alignment
    return ends
