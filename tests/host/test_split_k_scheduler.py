"""The dense scheduler where a cluster splits K, compiled for the host: who multiplies what."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.config.gemm_config import SF_GROUP, GemmConfig

HARNESS = """
#include "scheduler/dense.cuh"

using namespace deep_gemm;

// Writes m, n, first_k_block and num_k_blocks of one CTA's blocks; returns the number of blocks.
template <GemmConfig kConfig>
uint32_t walk(uint32_t m, uint32_t n, uint32_t k, uint32_t cta, uint32_t num_ctas,
              uint32_t* blocks, uint32_t capacity) {
    DenseScheduler<kConfig> scheduler(m, n, k, 1, cta, num_ctas);
    BlockCoordinates block;
    uint32_t count = 0;
    while (scheduler.next_block(block) && count < capacity) {
        const uint32_t values[] = {block.m, block.n, block.first_k_block, block.num_k_blocks};
        for (uint32_t value : values) *blocks++ = value;
        ++count;
    }
    return count;
}

extern "C" {
decltype(&walk<CONFIG>) walks[] = {WALKS};
}
"""
CONFIGS = [GemmConfig(64, 16 * parts, 4, 1, cluster_k=parts) for parts in range(1, 9)]
WALK = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_uint32] * 5, ctypes.c_void_p, ctypes.c_uint32)


@pytest.fixture(scope="module")
def walks(host_compiler: Callable[..., ctypes.CDLL]) -> list[Callable[..., int]]:
    literals = [f"GemmConfig{config.initialiser()}" for config in CONFIGS]
    text = HARNESS.replace("CONFIG", literals[0])
    text = text.replace("WALKS", ",\n".join(f"walk<{literal}>" for literal in literals))
    return list((WALK * len(CONFIGS)).in_dll(host_compiler(text), "walks"))


@given(
    parts=st.integers(1, 8),
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    k=st.integers(1, 40_000) | st.integers(2**31 - 10_000, 2**31 - 1),
    num_clusters=st.integers(1, 10),
)
def test_every_k_block_of_every_block_once(
    walks: list[Callable[..., int]], parts: int, m: int, n: int, k: int, num_clusters: int
) -> None:
    config = CONFIGS[parts - 1]
    num_blocks = -(-m // config.block_m) * -(-n // config.block_n)
    shares: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for cta in range(num_clusters * parts):
        buffer = np.zeros((num_blocks + 1, 4), np.uint32)
        args = (m, n, k, cta, num_clusters * parts, buffer.ctypes.data, num_blocks + 1)
        for row, column, first, count in buffer[: walks[parts - 1](*args)].tolist():
            shares.setdefault((row, column), []).append((first, count))
    assert len(shares) == num_blocks
    num_k_blocks = -(-k // 128)
    for share in shares.values():
        # CTAs of a cluster have consecutive numbers, and parts lie in their order.
        assert len(share) == parts and share[0][0] == 0
        ends = [first + count for first, count in share]
        assert [first for first, _ in share[1:]] == ends[:-1] and ends[-1] == num_k_blocks
        assert all(first % SF_GROUP == 0 or count == 0 for first, count in share)
        groups = [-(-count // SF_GROUP) for _, count in share]
        assert max(groups) - min(groups) <= 1
