"""Shares of tiles in which short blocks count as longer ones: each tile once, no share too long."""

from __future__ import annotations

from ctypes import c_uint32, c_void_p

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.runtime.launch import KernelLaunch
from deep_gemm.runtime.plan import make_plan

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

THREADS = 64
LEAST = 4

TEXT = f"""
#include "scheduler/tile_shares.cuh"
using namespace deep_gemm;
struct Arguments {{
    const uint32_t* tiles;
    uint32_t* positions;
    uint32_t num_blocks;
}};
extern "C" __global__ void __launch_bounds__({THREADS}, 1)
    tile_shares(const __grid_constant__ Arguments args) {{
    __shared__ ShareStorage<{THREADS}> storage;
    TilePosition position[2];
    const auto count = [&](uint32_t block) {{ return args.tiles[block]; }};
    find_share<{THREADS}, {LEAST}>(storage, count, args.num_blocks, blockIdx.x, gridDim.x,
                                   position);
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {{
        args.positions[4 * blockIdx.x + 2 * i] = position[i].block;
        args.positions[4 * blockIdx.x + 2 * i + 1] = position[i].tile;
    }}
}}
"""


class Arguments(KernelArguments):
    _fields_ = (("tiles", c_void_p), ("positions", c_void_p), ("num_blocks", c_uint32))


def shares(tiles: list[int], num_ctas: int) -> torch.Tensor:
    """[CTAs, 2, 2]: from which block and tile, up to which, each CTA goes."""
    given = torch.tensor(tiles, dtype=torch.int32)
    found = torch.full((num_ctas, 2, 2), -1, dtype=torch.int32)
    arguments = Arguments.allocate()
    arguments.num_blocks = len(tiles)
    pointers = (("tiles", 4 * len(tiles)), ("positions", 16 * num_ctas))
    kernel = build(KernelSource("tile_shares", TEXT, "tile_shares", "90a"))
    launch = KernelLaunch(kernel, arguments, (), pointers, num_ctas, THREADS, 0, 1)
    addresses = [given.data_ptr(), found.data_ptr()]
    make_plan(launch, addresses, given.device).launch(*addresses)
    return found


@settings(max_examples=12)
@example([0, 0], 2)
@example([1] * 40 + [30], 3)
@example([0] * 70 + [5] + [0] * 70, 2)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=150), st.integers(1, 4))
def test_every_tile_is_in_one_share(tiles: list[int], num_ctas: int) -> None:
    found = shares(tiles, num_ctas)
    assert (found[1:, 0] == found[:-1, 1]).all()
    # From the first tile on, however many empty blocks come before, up to the end.
    first, last = found[0, 0].tolist(), found[-1, 1].tolist()
    assert sum(tiles[: first[0]]) == 0 and first[1] == 0
    assert last == [len(tiles), 0]
    costs = torch.tensor([max(n, LEAST) if n else 0 for n in tiles])
    limit = costs.sum().item() / num_ctas + LEAST
    for begin, end in found.tolist():
        work = [
            (n if block < end[0] else end[1]) - (begin[1] if block == begin[0] else 0)
            for block, n in enumerate(tiles)
            if begin[0] <= block <= end[0]
        ]
        assert all(n >= 0 for n in work)
        # Of a share, whole blocks cost at least LEAST each, and parts of others what they have.
        whole = [max(n, LEAST) for n in work[1:-1] if n]
        assert sum(whole) <= limit
