"""The epilogue, run on the host: csrc/epilogue/store_block.cuh over a csrc/ptx that keeps a log.

The log is played back as the hardware documents stmatrix and TMA: D must come out whole.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deep_gemm.config.gemm_config import MMA_M, GemmConfig
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.sm90 import BLOCK_N
from tests.host.layouts import accumulator_fragment, tma_swizzle

FLAGS = (f"-I{Path(__file__).parent / 'fake_ptx'}", "-Wno-unknown-pragmas")
SHAPES = [(block_m, 1 if block_m <= 64 else 2) for block_m in (16, 32, 64, 128, 256)]
CONFIGS = [
    config
    for block_m, num_math_warpgroups in SHAPES
    for block_n in BLOCK_N
    for rounds in (1, 2, 3, 4)
    if not broken_rules(
        config := GemmConfig(block_m, block_n, 2, num_math_warpgroups, num_store_rounds=rounds)
    )
]

each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)

HARNESS = """
#define DG_DEVICE inline
#include <cstring>

#include "epilogue/store_block.cuh"

using namespace deep_gemm;

// Runs store_block in every math thread, one after the other. Writes the log, with addresses as
// offsets into the staging memory, and returns its length.
//   accum   [thread][wave][register]
template <GemmConfig kConfig>
int64_t store(const float* accum, uint32_t m, uint32_t n, uint32_t rows, uint32_t columns,
              Event* log) {
    using Accum = const float[kConfig.num_waves()][kConfig.block_n / 2];
    alignas(1024) static uint8_t d[kConfig.num_math_warpgroups][kConfig.slabs_per_round()]
                                  [kConfig.kMmaM * kConfig.d_swizzle_bytes()];
    const TensorMap map{};
    events.clear();
    for (int thread = 0; thread < 128 * kConfig.num_math_warpgroups; ++thread) {
        threadIdx.x = thread;
        store_block<kConfig>(d[thread / 128], &map, BlockCoordinates{m, n}, rows, columns,
                             reinterpret_cast<const Accum*>(accum)[thread], thread / 128);
    }
    for (Event& event : events) {
        if (event.kind == 'S' || event.kind == 'T') {
            event.values[0] -= reinterpret_cast<int64_t>(d);
        }
    }
    std::memcpy(log, events.data(), events.size() * sizeof(Event));
    return events.size();
}

extern "C" {
decltype(&store<GemmConfig{64, 16, 2, 1, 1, 1, 1}>) stores[] = {STORES};
}
"""
STORE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_uint32] * 4, ctypes.c_void_p)

Log = np.ndarray
Store = Callable[[GemmConfig, tuple[int, int], tuple[int, int]], Log]


def elements(config: GemmConfig) -> np.ndarray:
    """The number in the block of what each math thread holds: [thread, wave, register]."""
    rows, columns = accumulator_fragment(config.block_n)
    waves = np.arange(config.num_waves)[None, :, None]
    first = [MMA_M * config.num_waves * i for i in range(config.num_math_warpgroups)]
    slices = [rows[:, None] + MMA_M * waves + row for row in first]
    return np.concatenate([row * config.block_n + columns[:, None] for row in slices])


@pytest.fixture(scope="module")
def store(host_compiler: Callable[..., ctypes.CDLL]) -> Store:
    """`store(config, origin, shape)`: the log of storing the block at `origin` of such a D."""
    stores = [f"store<GemmConfig{config.initialiser()}>" for config in CONFIGS]
    library = host_compiler(HARNESS.replace("STORES", ",\n".join(stores)), *FLAGS)
    functions = dict(zip(CONFIGS, (STORE * len(CONFIGS)).in_dll(library, "stores"), strict=True))

    def store(config: GemmConfig, origin: tuple[int, int], shape: tuple[int, int]) -> Log:
        accum = elements(config).astype(np.float32)
        log = np.empty((100_000, 7), np.int64)
        count = functions[config](accum.ctypes.data, *origin, *shape, log.ctypes.data)
        return log[:count]

    return store


def of_kind(log: Log, kind: str) -> np.ndarray:
    return log[log[:, 1] == ord(kind)]


def rounds_of(config: GemmConfig, log: Log) -> list[Log]:
    """The log, round by round: a round of a thread ends with its second barrier, or its commit."""
    parts: list[list[Log]] = [[] for _ in range(config.num_store_rounds)]
    for thread in range(128 * config.num_math_warpgroups):
        events = log[log[:, 0] == thread]
        last = "C" if thread % 128 == 0 else "B"
        ends = np.flatnonzero(events[:, 1] == ord(last))[
            0 if last == "C" else 1 :: 1 + (last == "B")
        ]
        assert len(ends) == config.num_store_rounds and ends[-1] == len(events) - 1
        for part, piece in zip(parts, np.split(events, ends[:-1] + 1), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def stmatrix(config: GemmConfig, log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Row addresses [warp, matrix, row, instruction], and the 8 elements of each row."""
    calls = of_kind(log, "S").reshape(config.num_math_warpgroups * 4, 32, -1, 7)
    addresses = calls[..., 2].reshape(len(calls), 4, 8, -1)
    # Lane l holds row l / 4, columns 2 (l % 4) and + 1, of matrix i in its register i.
    pairs = calls[..., 3:].reshape(len(calls), 8, 4, -1, 4)
    halves = np.stack([pairs & 0xFFFF, pairs >> 16], axis=3)
    elements = halves.transpose(0, 5, 1, 4, 2, 3).reshape(*addresses.shape, 8)
    return addresses, elements


def staging(config: GemmConfig, log: Log) -> np.ndarray:
    """Staging memory after a round's stmatrix, as 16-bit elements; each must be written once."""
    addresses, values = stmatrix(config, log)
    places = addresses[..., None] // 2 + np.arange(8)
    memory = np.full(config.mma_rows * config.block_n // config.num_store_rounds, -1)
    memory[places] = values
    assert (np.bincount(places.ravel()) == 1).all() and (memory >= 0).all()
    return memory


def play_back(config: GemmConfig, log: Log, shape: tuple[int, int]) -> np.ndarray:
    """D after all TMA stores, with -1 where nothing was stored; no element is stored twice."""
    width = config.d_swizzle_bytes
    y, x = np.ogrid[: min(config.block_m, MMA_M), : width // 2]
    d = np.full(shape, -1)
    for part in rounds_of(config, log):
        memory = staging(config, part)
        for source, column, row in of_kind(part, "T")[:, 2:5]:
            assert source % (8 * width) == 0, "a box starts where the swizzle pattern does"
            box = memory[tma_swizzle(source + y * width + x * 2, width) // 2]
            target = d[row : row + len(box), column : column + width // 2]
            assert target.size and (target == -1).all()
            target[:] = box[: target.shape[0], : target.shape[1]]
    return d


@each_config
def test_stmatrix_has_no_bank_conflicts(store: Store, config: GemmConfig) -> None:
    addresses, _ = stmatrix(config, store(config, (0, 0), (config.block_m, config.block_n)))
    assert (addresses % 16 == 0).all()
    assert (np.sort(addresses // 16 % 8, axis=2) == np.arange(8)[None, None, :, None]).all()


@each_config
def test_each_element_is_stored_once_and_nothing_outside(store: Store, config: GemmConfig) -> None:
    height, width = config.block_m, config.block_n
    block = np.arange(height * width).reshape(height, width)
    for rows, columns in [(height, width), (1, 8), (height // 2 + 3, width), (height, width - 8)]:
        shape = (3 * height, 2 * width)
        clipped = (height + rows, width + columns)
        d = play_back(config, store(config, (height, width), clipped), clipped)
        assert (d[height:, width:] == block[:rows, :columns]).all()
        assert (d >= 0).sum() == rows * columns
        inside = play_back(config, store(config, (height, width), shape), shape)
        assert (inside[height : 2 * height, width:] == block).all()
        assert (inside >= 0).sum() == height * width


@each_config
def test_a_block_outside_d_stores_nothing(store: Store, config: GemmConfig) -> None:
    height, width = config.block_m, config.block_n
    for origin in [(height, 0), (0, width), (height, width)]:
        assert not len(of_kind(store(config, origin, (height, width)), "T"))


@each_config
def test_writes_and_stores_are_ordered(store: Store, config: GemmConfig) -> None:
    """Wait for the last stores to have read, barrier, write, fence, barrier, store, commit."""
    log = store(config, (0, 0), (config.block_m, config.block_n))
    for thread in range(128 * config.num_math_warpgroups):
        kinds = "".join(map(chr, log[log[:, 0] == thread, 1]))
        expected = "WBS+FBT+C" if thread % 128 == 0 else "BS+FB"
        rounds = f"({expected}){{{config.num_store_rounds}}}"
        assert re.fullmatch(rounds, kinds), f"thread {thread}: {kinds}"
    barriers = of_kind(log, "B")
    assert (barriers[:, 3] == 128).all()
    assert (barriers[:, 2] == 1 + barriers[:, 0] // 128).all(), "0 is __syncthreads'"
