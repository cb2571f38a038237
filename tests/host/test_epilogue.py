"""The epilogue, run on the host: csrc/epilogue/{stage,store}_block.cuh over a csrc/ptx that keeps a
log.

The log is played back as the hardware documents stmatrix, shared memory and TMA: D must come out
whole.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm.config.gemm_config import MMA_M, GemmConfig, Grouping
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.sm90 import BLOCK_N
from tests.host.layouts import accumulator_fragment, tma_swizzle

FLAGS = (f"-I{Path(__file__).parent / 'fake_ptx'}", "-Wno-unknown-pragmas")
SHAPES = [(block_m, 1 if block_m <= 64 else 2) for block_m in (16, 32, 64, 128, 256)]


def legal_configs(**fields: object) -> list[GemmConfig]:
    configs = [
        GemmConfig(block_m, block_n, 2, warpgroups, num_store_rounds=rounds, **fields)
        for block_m, warpgroups in SHAPES
        for block_n in BLOCK_N
        for rounds in (1, 2, 3, 4)
    ]
    return [config for config in configs if not broken_rules(config)]


BF16 = legal_configs()
FP32 = legal_configs(d_bytes=4)[::3]
M_GROUPED = [
    *legal_configs(grouping=Grouping.M_GROUPED)[::4],
    *legal_configs(grouping=Grouping.M_GROUPED, d_bytes=4)[::8],
]
CONFIGS = BF16 + FP32 + M_GROUPED

each_config = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
each_bf16_config = pytest.mark.parametrize("config", BF16, ids=lambda config: config.name)

HARNESS = """
#define DG_DEVICE inline
#include <cstring>

#include "epilogue/stage_block.cuh"
#include "epilogue/store_block.cuh"

using namespace deep_gemm;

// Stages a block in every math thread and stores it in every lane that does, one after the other.
// Threads of the store role follow those of the math role, a warp for each math warpgroup. Writes
// the log, with addresses as offsets into the staging memory, into D and into the barriers, and
// returns its length.
//   accum   [thread][wave][register]
//   valid, stored   the block's rows
template <GemmConfig kConfig>
int64_t store(const float* accum, uint32_t m, uint32_t n, uint32_t rows, uint32_t columns,
              uint32_t valid, uint32_t stored, uint32_t accumulates, uint32_t batch, Event* log) {
    using Accum = float[kConfig.num_waves()][kConfig.block_n / 2];
    static SharedStorage<kConfig> smem;
    GemmArguments args{};
    args.m = rows;
    args.n = columns;
    args.accumulates = accumulates;
    args.d_stride_m = columns * kConfig.d_bytes;
    args.d_stride_batch = rows * args.d_stride_m;
    const BlockCoordinates block{
        .m = m, .n = n, .d_batch = batch, .valid_rows = valid, .stored_rows = stored};
    constexpr int kMathThreads = 128 * kConfig.num_math_warpgroups;
    events.clear();
    for (int thread = 0; thread < kMathThreads; ++thread) {
        threadIdx.x = thread;
        Accum mine;
        std::memcpy(mine, reinterpret_cast<const Accum*>(accum)[thread], sizeof(mine));
        const int first_row = thread / 128 * kConfig.num_waves() * kConfig.kMmaM;
        if (valid < stored) clear_padding<kConfig>(mine, static_cast<int>(valid) - first_row);
        BlockStaging<kConfig>(smem, thread / 128).stage(mine);
    }
    for (int lane = 0; lane < 32 * kConfig.num_math_warpgroups; ++lane) {
        threadIdx.x = kMathThreads + lane;
        typename StorePipeline<kConfig>::State state;
        for (int round = 0; round < kConfig.num_store_rounds; ++round) {
            BlockStore<kConfig>(smem, args, lane / 32).store(block, round, state);
            state.advance();
        }
    }
    for (Event& event : events) {
        if (std::strchr("STRVG", event.kind)) {
            event.values[0] -= reinterpret_cast<int64_t>(smem.d);
        } else if (std::strchr("WA", event.kind)) {
            event.values[0] -= ptx::shared_address(smem.store_barriers);
        }
    }
    std::memcpy(log, events.data(), events.size() * sizeof(Event));
    return events.size();
}

extern "C" {
decltype(&store<FIRST>) stores[] = {STORES};
}
"""
STORE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, *[ctypes.c_uint32] * 8, ctypes.c_void_p)

Log = np.ndarray
Store = Callable[..., Log]


def elements(config: GemmConfig) -> np.ndarray:
    """The number in the block of what each math thread holds: [thread, wave, register]."""
    rows, columns = accumulator_fragment(config.block_n)
    waves = np.arange(config.num_waves)[None, :, None]
    first = [MMA_M * config.num_waves * i for i in range(config.num_math_warpgroups)]
    slices = [rows[:, None] + MMA_M * waves + row for row in first]
    return np.concatenate([row * config.block_n + columns[:, None] for row in slices])


@pytest.fixture(scope="module")
def store(host_compiler: Callable[..., ctypes.CDLL]) -> Store:
    """`store(config, origin, shape)`: the log of storing the block at `origin` of such a D.

    Further arguments are the numbers of valid and of stored rows, all of them unless given, and
    whether the block is added to D, and the batch.
    """
    stores = [f"store<GemmConfig{config.initialiser()}>" for config in CONFIGS]
    text = HARNESS.replace("FIRST", f"GemmConfig{CONFIGS[0].initialiser()}")
    library = host_compiler(text.replace("STORES", ",\n".join(stores)), *FLAGS)
    functions = dict(zip(CONFIGS, (STORE * len(CONFIGS)).in_dll(library, "stores"), strict=True))

    def store(
        config: GemmConfig,
        origin: tuple[int, int],
        shape: tuple[int, int],
        rows: tuple[int, int] | None = None,
        accumulates: bool = False,
        batch: int = 0,
    ) -> Log:
        accum = elements(config).astype(np.float32)
        log = np.empty((200_000, 7), np.int64)
        rows = rows or (config.block_m, config.block_m)
        place = (*origin, *shape, *rows, accumulates, batch)
        count = functions[config](accum.ctypes.data, *place, log.ctypes.data)
        return log[:count]

    return store


def of_kind(log: Log, kind: str) -> np.ndarray:
    return log[log[:, 1] == ord(kind)]


def rounds_of(config: GemmConfig, log: Log) -> list[Log]:
    """The log, round by round: a round begins with a wait of each thread."""
    parts: list[list[Log]] = [[] for _ in range(config.num_store_rounds)]
    for thread in range((128 + 32) * config.num_math_warpgroups):
        events = log[log[:, 0] == thread]
        begins = np.flatnonzero(events[:, 1] == ord("W"))
        assert len(begins) == config.num_store_rounds and begins[0] == 0
        for part, piece in zip(parts, np.split(events, begins[1:]), strict=True):
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
    """Staging memory after a round's writes, by elements; each must be written once."""
    if config.d_bytes == 4:
        writes = of_kind(log, "V")
        places, values = writes[:, 2, None] // 4 + np.arange(2), writes[:, 3:5]
    else:
        addresses, values = stmatrix(config, log)
        places = addresses[..., None] // 2 + np.arange(8)
    memory = np.full(config.mma_rows * config.block_n // config.num_store_rounds, -1)
    memory[places] = values
    assert (np.bincount(places.ravel()) == 1).all() and (memory >= 0).all()
    return memory


def play_back(
    config: GemmConfig, log: Log, shape: tuple[int, int], kind: str = "T", d_batch: int = 0
) -> np.ndarray:
    """Batch `d_batch` of D after all TMA stores and copies, with -1 where nothing was stored; no
    element is stored twice, and none in another batch."""
    width, size = config.d_swizzle_bytes, config.d_bytes
    y, x = np.ogrid[: min(config.block_m, MMA_M), : width // size]
    d = np.full(shape, -1)
    for part in rounds_of(config, log):
        memory = staging(config, part)
        for source, column, row, batch in of_kind(part, kind)[:, 2:6]:
            assert source % (8 * width) == 0, "a box starts where the swizzle pattern does"
            box = memory[tma_swizzle(source + y * width + x * size, width) // size]
            target = d[row : row + len(box), column : column + width // size]
            assert target.size and (target == -1).all() and batch == d_batch
            target[:] = box[: target.shape[0], : target.shape[1]]
        for source, destination in of_kind(part, "G")[:, 2:4]:
            assert 0 <= destination - d_batch * d.size * size < d.size * size
            first = destination // size - d_batch * d.size
            target = d.reshape(-1)[first : first + 16 // size]
            assert source % 16 == destination % 16 == 0 and (target == -1).all()
            target[:] = memory[source // size : (source + 16) // size]
    return d


@each_bf16_config
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


@pytest.mark.parametrize("config", [*BF16[::9], *FP32[::9]], ids=lambda config: config.name)
def test_an_accumulating_block_is_added(store: Store, config: GemmConfig) -> None:
    shape = (config.block_m, config.block_n)
    log = store(config, (0, 0), shape, accumulates=True)
    assert not len(of_kind(log, "T"))
    assert (play_back(config, log, shape, kind="R").ravel() == np.arange(np.prod(shape))).all()


@settings(max_examples=300)
@given(
    config=st.sampled_from(M_GROUPED),
    row=st.integers(0, 300),
    column=st.integers(0, 2),
    rows=st.tuples(st.integers(0, 256), st.integers(1, 256)),
    behind=st.integers(0, 300),
    columns=st.integers(1, 100),
    batch=st.integers(0, 3),
)
def test_rows_of_others_are_not_written_and_padding_is_zero(
    store: Store,
    config: GemmConfig,
    row: int,
    column: int,
    rows: tuple[int, int],
    behind: int,
    columns: int,
    batch: int,
) -> None:
    """Of any block: its first rows, zeros below them, and nothing around. D ends `behind` rows
    below it, and `columns` times 16 bytes right of where it begins."""
    stored = min(rows[1], config.block_m)
    valid = min(rows[0], stored)
    first_column = column * config.block_n
    shape = row + stored + behind, first_column + columns * 16 // config.d_bytes
    log = store(config, (row, first_column), shape, (valid, stored), batch=batch)
    d = play_back(config, log, shape, d_batch=batch)
    block = np.arange(config.block_m * config.block_n).reshape(config.block_m, config.block_n)
    block[valid:] = 0
    expected = np.full(shape, -1)
    inside = expected[row : row + stored, first_column : first_column + config.block_n]
    inside[:] = block[:stored, : inside.shape[1]]
    assert (d == expected).all()


FULL, EMPTY = 0, 8
"""Where a math warpgroup's barriers lie in its 16 bytes."""


@each_config
def test_writes_and_stores_are_ordered(store: Store, config: GemmConfig) -> None:
    """Math warps: wait for the staging memory, write, fence, arrive. Store warps: wait for that,
    store, commit, wait until it is read, arrive. A lane arrives for its warp."""
    log = store(config, (0, 0), (config.block_m, config.block_n))
    num_math_threads = 128 * config.num_math_warpgroups
    for thread in range((128 + 32) * config.num_math_warpgroups):
        events = log[log[:, 0] == thread]
        kinds = "".join(map(chr, events[:, 1]))
        stages = thread < num_math_threads
        writes = "V+" if config.d_bytes == 4 else "S+"
        work = f"{writes}F" if stages else "T+CD" if thread % 32 == 0 else ""
        arrival = "A" if thread % 32 == 0 else ""
        rounds = f"(W{work}Y{arrival}{'Y' if stages else ''}){{{config.num_store_rounds}}}"
        assert re.fullmatch(rounds, kinds), f"thread {thread}: {kinds}"

        warpgroup = thread // 128 if stages else (thread - num_math_threads) // 32
        waits, arrivals = (of_kind(events, kind)[:, 2] - 16 * warpgroup for kind in "WA")
        assert (waits == (EMPTY if stages else FULL)).all()
        assert (arrivals == (FULL if stages else EMPTY)).all()
        # A producer waits for the phase before the one that it fills.
        phases = (np.arange(config.num_store_rounds) + stages) % 2
        assert (of_kind(events, "W")[:, 3] == phases).all()
