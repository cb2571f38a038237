"""The dense scheduler, compiled for the host: every block once, in a compact order."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import best_band

BLOCKS = [(16, 16), (32, 48), (64, 48), (64, 256), (128, 128), (128, 176), (256, 96), (256, 144)]
# Selection uses clusters of at most two; the scheduler takes any.
CLUSTERS = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 1), (1, 3)]
CONFIGS = [GemmConfig(*block, 4, 1, *cluster) for block in BLOCKS for cluster in CLUSTERS]
NUM_SMS = [1, 2, 3, 7, 78, 131, 132]

each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)

HARNESS = """
#include "scheduler/dense.cuh"

using namespace deep_gemm;

// Writes the blocks of one CTA and returns their number, or capacity + 1 if there are more.
struct Place {
    uint32_t m;
    uint32_t n;
};

template <GemmConfig kConfig>
uint32_t walk(uint32_t m, uint32_t n, uint32_t band, uint32_t cta, uint32_t num_ctas,
              Place* blocks, uint32_t capacity) {
    DenseScheduler<kConfig> scheduler(m, n, 384, band, cta, num_ctas);
    BlockCoordinates block;
    uint32_t count = 0;
    while (scheduler.next_block(block)) {
        if (count == capacity) return capacity + 1;
        const bool is_whole = block.num_k_blocks == 3 && block.first_k_block == 0 &&
                              block.valid_rows == kConfig.block_m &&
                              block.stored_rows == kConfig.block_m;
        if (!is_whole || block.a_batch || block.b_batch || block.d_batch) return capacity + 1;
        blocks[count++] = {block.m, block.n};
    }
    return count;
}

extern "C" {
decltype(&walk<GemmConfig{}>) walks[] = {WALKS};
}
"""
WALK = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_uint32] * 5, ctypes.c_void_p, ctypes.c_uint32)


class Scheduler:
    """The C++ scheduler of every configuration in CONFIGS."""

    def __init__(self, host_compiler: Callable[..., ctypes.CDLL]) -> None:
        walks = [f"walk<GemmConfig{config.initialiser()}>" for config in CONFIGS]
        library = host_compiler(HARNESS.replace("WALKS", ",\n".join(walks)))
        table = (WALK * len(CONFIGS)).in_dll(library, "walks")
        self.walks = dict(zip(CONFIGS, table, strict=True))

    def ctas(
        self, config: GemmConfig, m: int, n: int, band: int, num_ctas: int
    ) -> Iterator[np.ndarray]:
        """The blocks of each CTA, [step, (m, n)]: each a view that the next one overwrites."""
        rows, columns = config.cluster_grid(m, n)
        capacity = -(-rows * columns // (num_ctas // config.cluster_size))
        buffer = np.empty((capacity, 2), np.uint32)
        for cta in range(num_ctas):
            args = (m, n, band, cta, num_ctas, buffer.ctypes.data, capacity)
            count = self.walks[config](*args)
            assert count <= capacity, f"CTA {cta} of {num_ctas} gets more than its share"
            yield buffer[:count]

    def blocks(self, config: GemmConfig, m: int, n: int, band: int, num_ctas: int) -> np.ndarray:
        """The blocks of all CTAs, [cta, step, (m, n)]; -1 where a CTA has no more."""
        walks = [walk.astype(np.int64) for walk in self.ctas(config, m, n, band, num_ctas)]
        blocks = np.full((num_ctas, max(map(len, walks)), 2), -1, np.int64)
        for cta, walk in enumerate(walks):
            blocks[cta, : len(walk)] = walk
        return blocks


@pytest.fixture(scope="module")
def scheduler(host_compiler: Callable[..., ctypes.CDLL]) -> Scheduler:
    return Scheduler(host_compiler)


def grid_of(config: GemmConfig, m: int, n: int, num_sms: int) -> int:
    """CTAs of a launch."""
    rows, columns = config.cluster_grid(m, n)
    return min(num_sms // config.cluster_size, rows * columns) * config.cluster_size


def check_blocks(config: GemmConfig, m: int, n: int, blocks: np.ndarray) -> None:
    """Each block of D once, and outside D no more than the clusters hang over."""
    found = blocks[blocks[..., 0] >= 0]
    size = np.array([config.block_m, config.block_n])
    assert not (found % size).any()
    inside = found[(found < [m, n]).all(axis=1)] // size
    num_rows, num_columns = -(-m // config.block_m), -(-n // config.block_n)
    times = np.bincount(inside[:, 0] * num_columns + inside[:, 1], minlength=num_rows * num_columns)
    assert (times == 1).all()
    rows, columns = config.cluster_grid(m, n)
    assert len(found) == rows * columns * config.cluster_size


def check_clusters(config: GemmConfig, m: int, n: int, blocks: np.ndarray) -> None:
    """The CTAs of a cluster walk together, side by side; clusters share the work evenly."""
    clusters = blocks.reshape(-1, config.cluster_size, *blocks.shape[1:])
    leaders = clusters[:, :1]
    busy = clusters[..., 0] >= 0
    assert (busy == busy[:, :1]).all()
    counts = busy[:, 0].sum(axis=1)
    assert counts.max() - counts.min() <= 1
    ranks = np.arange(config.cluster_size)
    places = np.stack([ranks % config.cluster_m, ranks // config.cluster_m], axis=1)
    offsets = places * [config.block_m, config.block_n]
    assert (clusters == leaders + offsets[None, :, None])[busy].all()
    assert (leaders < [m, n]).all(), "a cluster lies wholly outside D"


def in_order(config: GemmConfig, m: int, n: int, blocks: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rows and columns of the clusters, in the order in which they are handed out."""
    leaders = blocks[:: config.cluster_size].transpose(1, 0, 2).reshape(-1, 2)
    rows, columns = config.cluster_grid(m, n)
    order = leaders[: rows * columns]
    assert (order >= 0).all() and (leaders[rows * columns :] == -1).all()
    height, width = config.block_m * config.cluster_m, config.block_n * config.cluster_n
    return order[:, 0] // height, order[:, 1] // width


def check(
    scheduler: Scheduler, config: GemmConfig, m: int, n: int, band: int, num_ctas: int
) -> None:
    blocks = scheduler.blocks(config, m, n, band, num_ctas)
    check_blocks(config, m, n, blocks)
    check_clusters(config, m, n, blocks)
    row, column = in_order(config, m, n, blocks)
    step = np.diff(row // band)
    assert (step >= 0).all(), "bands come one after the other"
    assert (np.diff(column)[step == 0] >= 0).all(), "a band is walked column by column"


@each_config
def test_each_block_once(scheduler: Scheduler, config: GemmConfig) -> None:
    heights = [1, config.block_m, 2 * config.block_m + 1, 1000]
    for m, n, num_sms in product(heights, [1, 16, 300, 2112], NUM_SMS):
        if num_sms >= config.cluster_size:
            rows, _ = config.cluster_grid(m, n)
            for band in {1, 2, max(1, rows - 1), rows, rows + 5}:
                check(scheduler, config, m, n, band, grid_of(config, m, n, num_sms))


@given(
    config=st.sampled_from(CONFIGS),
    m=st.integers(1, 5000),
    n=st.integers(1, 5000),
    band=st.integers(1, 400),
    num_clusters=st.integers(1, 200),
)
def test_each_block_once_of_any_shape(
    scheduler: Scheduler, config: GemmConfig, m: int, n: int, band: int, num_clusters: int
) -> None:
    check(scheduler, config, m, n, band, num_clusters * config.cluster_size)


@each_config
def test_a_grid_may_be_larger_than_the_work(scheduler: Scheduler, config: GemmConfig) -> None:
    m, n, size = config.block_m, config.block_n, config.cluster_size
    blocks = scheduler.blocks(config, m, n, 1, 10 * size)
    assert (blocks[size:] == -1).all()
    check_blocks(config, m, n, blocks)


# As large as one dimension may be, and as large as D fits the memory of a GPU.
@pytest.mark.parametrize("cluster", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize(
    ("m", "n"), [(2**31 - 1, 16), (16, 2**31 - 1), (2**24 + 1, 2**11), (2**17 + 1, 2**18 + 1)]
)
def test_large_sizes_do_not_overflow(
    scheduler: Scheduler, m: int, n: int, cluster: tuple[int, int]
) -> None:
    config = GemmConfig(256, 144, 4, 1, *cluster)
    band = best_band(GemmProblem(m, n, 128), config)
    num_rows, num_columns = -(-m // 256), -(-n // 144)
    seen = np.zeros(num_rows * num_columns, bool)
    total = 0
    for walk in scheduler.ctas(config, m, n, band, 132):
        inside = walk[(walk < [m, n]).all(axis=1)]
        seen[inside[:, 0] // np.uint32(256) * np.uint32(num_columns) + inside[:, 1] // 144] = True
        total += len(inside)
    assert seen.all() and total == seen.size


def touched(scheduler: Scheduler, config: GemmConfig, m: int, n: int, band: int) -> int:
    """Rows of A and of B that the blocks in flight together need, summed over the waves."""
    num_ctas = grid_of(config, m, n, 132)
    row, column = in_order(config, m, n, scheduler.blocks(config, m, n, band, num_ctas))
    wave = np.arange(len(row)) // (num_ctas // config.cluster_size)
    num_rows = len(np.unique(wave * (row.max() + 1) + row))
    num_columns = len(np.unique(wave * (column.max() + 1) + column))
    height, width = config.block_m * config.cluster_m, config.block_n * config.cluster_n
    return num_rows * height + num_columns * width


IN_PAIRS_AT_MOST = [config for config in CONFIGS if config.cluster_size <= 2]


@pytest.mark.parametrize("config", IN_PAIRS_AT_MOST, ids=lambda config: config.name)
def test_the_best_band_touches_fewest_bytes(scheduler: Scheduler, config: GemmConfig) -> None:
    """Fewer than walking D row by row or column by column, wherever there are two full waves."""
    num_compared = 0
    for m, n in product([512, 1500, 3000, 4096, 8192], [576, 1000, 2112, 4096, 7168, 24576]):
        rows, columns = config.cluster_grid(m, n)
        if 2 * 132 <= rows * columns * config.cluster_size <= 30_000:
            band = best_band(GemmProblem(m, n, 7168), config)
            best = touched(scheduler, config, m, n, band)
            others = min(touched(scheduler, config, m, n, other) for other in (1, rows))
            assert best <= 1.03 * others, f"{m=} {n=} {band=} of {rows}: {best / others:.2f}x"
            num_compared += 1
    assert num_compared >= 9
