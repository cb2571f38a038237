"""The PTX programs of tests/emulator/programs and what each is run on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from goldens.case import ProgramCase, as_bytes, program
from goldens.machines import Bytes, Launch

ROWS = 96
"""Threads of a program that computes row by row: three CTAs of one warp."""

PAIRS = {"num_ctas": 4, "cluster_size": 2}

INTEGER_EDGES = [0, 1, 2, 31, 32, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0x12345678]
SHIFTS = [0, 1, 7, 8, 15, 16, 31, 32, 33, 63, 64, 65, 255, 256, 257, 0xFFFFFFFF]
FLOAT_EDGES = [
    *(0, 0x80000000, 1, 0x80000001, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800001),
    *(0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001),
    # Ties of BF16 and what is just beside them, also where rounding overflows.
    *(0x3F808000, 0x3F818000, 0x3F808001, 0x3F817FFF, 0x7F7F8000, 0x7F7F7FFF, 0x00008000),
    *(0x4F000000, 0xCF000000, 0x4EFFFFFF, 0x3F000000, 0x3FC00000, 0x40200000, 0x33800000),
]


def _mixed(rng: np.random.Generator, edges: list[int], share: float = 0.6) -> NDArray[np.uint32]:
    """[ROWS] random words, a share of them edges."""
    words = rng.integers(0, 2**32, ROWS, dtype=np.uint32)
    at_edge = rng.random(ROWS) < share
    words[at_edge] = rng.choice(np.array(edges, dtype=np.uint32), int(at_edge.sum()))
    return words


def _integers_32() -> Bytes:
    rng = np.random.default_rng(20)
    columns = [_mixed(rng, INTEGER_EDGES) for _ in range(3)]
    return as_bytes(np.stack([*columns, _mixed(rng, SHIFTS, 0.9)], axis=1))


def _integers_64() -> Bytes:
    rng = np.random.default_rng(21)
    columns = [_mixed(rng, INTEGER_EDGES) for _ in range(6)]
    return as_bytes(np.stack([*columns, _mixed(rng, SHIFTS, 0.9), _mixed(rng, SHIFTS, 1)], axis=1))


def _integers_16() -> Bytes:
    rng = np.random.default_rng(22)
    edges = [0, 1, 0x7FFF8000, 0xFFFF, 0x80007FFF, 0x00FF0100, 0xFFFF0001]
    columns = [_mixed(rng, edges), _mixed(rng, edges), _mixed(rng, SHIFTS, 0.8)]
    return as_bytes(np.stack(columns, axis=1))


def _floats() -> Bytes:
    """Edges, any bits, and numbers near each other, where sums cancel and FMA rounds once."""
    rng = np.random.default_rng(23)
    columns = [_mixed(rng, FLOAT_EDGES, 0.5) for _ in range(3)]
    near = rng.standard_normal((ROWS // 3, 3)).astype(np.float32)
    near[::2, 2] = -near[::2, 0] * near[::2, 1]
    table = np.stack([*columns, _mixed(rng, SHIFTS + INTEGER_EDGES)], axis=1)
    table[::3, :3] = near.view(np.uint32)
    return as_bytes(table)


def _by_row(
    name: str, inputs: Callable[[], Bytes], row_bytes: int, awaits: str = ""
) -> ProgramCase:
    """A program in which each thread computes one row from one row."""

    def make() -> Launch:
        return Launch(program(name), inputs(), ROWS * row_bytes, num_ctas=ROWS // 32)

    return ProgramCase(name, make, awaits)


def _single(
    name: str,
    input_words: int,
    output_bytes: int,
    awaits: str = "",
    largest: int = 2**32,
    **launch: int,
) -> ProgramCase:
    """A program on random words."""

    def make() -> Launch:
        rng = np.random.default_rng(24)
        words = rng.integers(0, largest, max(input_words, 4), dtype=np.uint32)
        return Launch(program(name), as_bytes(words), output_bytes, **launch)

    return ProgramCase(name, make, awaits)


CASES = [
    _by_row("integers_32", _integers_32, 176),
    _by_row("integers_64", _integers_64, 240),
    _by_row("integers_16", _integers_16, 72),
    _by_row("predicates", _integers_32, 24),
    _by_row("negated_predicates", _integers_32, 4, "negated predicates as operands"),
    _by_row("conversions", _integers_32, 104),
    _by_row("floats", _floats, 76),
    _by_row("float_comparisons", _floats, 12),
    _by_row("bytes_and_logic", _integers_32, 36, "lop3, prmt"),
    _by_row("bit_counts", _integers_32, 24, "popc, clz, brev, bfind"),
    _by_row("fields", _integers_32, 32, "bfe, shf"),
    _by_row("signed_division", _integers_32, 16, "div.s32, rem.s32"),
    _by_row("float_to_integer", _floats, 28, "cvt between FP32 and integers"),
    _by_row("bf16", _floats, 20, "cvt of bf16"),
    _by_row("f16", _floats, 12, "cvt of f16"),
    _by_row("fp8", _floats, 8, "cvt of e4m3x2 and e5m2x2"),
    _by_row("float_functions", _floats, 40, "ex2, lg2, rcp, sqrt, rsqrt, div of FP32"),
    _single("shuffles_idx", 64, 640),
    _single("shuffles", 64, 2048, "shfl.sync but idx, and segments", largest=64),
    _single("divergence", 64, 1536, num_threads=64),
    _single("memory_widths", 1024, 64 * 160, num_threads=64, smem_bytes=4096),
    _single("stmatrix_x4", 128, 512, smem_bytes=512),
    _single("matrix_moves", 128, 4096, "ldmatrix, stmatrix but x4", smem_bytes=512),
    _single("mbarrier_phases", 0, 64 + 32 * 20, smem_bytes=1024),
    _single("mbarrier_states", 0, 32, "mbarriers by state", smem_bytes=1024),
    _single("named_barriers", 128, 1024, num_threads=128, smem_bytes=1024),
    _single("barrier_arrive", 128, 1024, "bar.arrive, bar.red", num_threads=128, smem_bytes=1024),
    _single("cp_async", 384, 1536, smem_bytes=2048),
    _single("cp_async_groups", 384, 1536, "groups of cp.async", smem_bytes=2048),
    _single("cluster_barriers", 0, 6144, num_threads=64, smem_bytes=1024, **PAIRS),
    _single(
        "cluster_memory", 1024, 8192, "a peer's memory", num_threads=64, smem_bytes=1024, **PAIRS
    ),
    _single("bulk_copies", 512, 3072, "bulk copies", smem_bytes=2048, **PAIRS),
    _single("votes_and_atomics", 32, 1024, "votes, redux, match, red"),
]
