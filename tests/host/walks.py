"""The schedulers of grouped products, walked by a warp on the host."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.kernels.arguments import GemmArguments, GroupedLayout, KGroupMapsArguments
from tests.host.cuda_on_host import CUDA_ON_HOST, CUDA_ON_HOST_FLAGS

FLAGS = (f"-I{Path(__file__).parent / 'fake_warp'}", *CUDA_ON_HOST_FLAGS)

Config = GemmConfig | Sm100GemmConfig

PAIRS = [Sm100GemmConfig(block_n, 4, cluster_m=2) for block_n in (48, 96, 256)]
M_GROUPED: list[Config] = [
    *(
        GemmConfig(block_m, block_n, 4, 1, *cluster, grouping=Grouping.M_GROUPED)
        for block_m, block_n in ((16, 48), (32, 16), (64, 256), (128, 144), (256, 96))
        for cluster in ((1, 1), (2, 1), (1, 2))
    ),
    *(replace(pair, grouping=Grouping.M_GROUPED) for pair in PAIRS),
]
K_GROUPED: list[Config] = [
    *(
        GemmConfig(
            *(block_m, block_n, 4, 1, *cluster), grouping=Grouping.K_GROUPED, gran_n=1, d_bytes=4
        )
        for block_m, block_n in ((16, 48), (64, 112), (128, 160), (256, 16))
        for cluster in ((1, 1), (2, 1), (1, 2))
    ),
    *(replace(pair, grouping=Grouping.K_GROUPED) for pair in PAIRS),
]


def in_cxx(scheduler: str, config: Config) -> str:
    """A scheduler of a configuration."""
    return f"{scheduler}<{type(config).__name__}{config.initialiser()}>"


SCHEDULERS = [
    *(in_cxx("RowIdScheduler", config) for config in M_GROUPED),
    *(in_cxx("GroupRowsScheduler", config) for config in M_GROUPED),
    *(in_cxx("KGroupedScheduler", config) for config in K_GROUPED),
]

HARNESS = f"""
{CUDA_ON_HOST}
#include "warp.cuh"

#include <cstring>

#include "kernels/k_group_maps.cuh"
#include "scheduler/group_rows.cuh"
#include "scheduler/k_grouped.cuh"
#include "scheduler/row_ids.cuh"
#include "sm100/gemm_config.cuh"

using namespace deep_gemm;

// Writes the blocks of one CTA and returns their number, capacity + 1 if there are more; -1 if the
// lanes of the warp do not always meet, -2 if they disagree.
template <typename Scheduler>
int64_t walk(const GemmArguments& args, uint32_t cta, uint32_t num_ctas, BlockCoordinates* blocks,
             int64_t capacity) {{
    int64_t count = 0;
    bool agreed = true;
    const bool converged = run_warp([&] {{
        Scheduler scheduler(args, cta, num_ctas);
        BlockCoordinates block;
        int64_t mine = 0;
        while (mine <= capacity && scheduler.next_block(block)) {{
            if (mine < capacity) {{
                if (ptx::lane_idx() == 0) blocks[mine] = block;
                agreed &= std::memcmp(&blocks[mine], &block, sizeof(block)) == 0;
            }}
            ++mine;
        }}
        if (ptx::lane_idx() == 0) count = mine;
        agreed &= mine == count;
    }});
    return !converged ? -1 : !agreed ? -2 : count;
}}

extern "C" {{
decltype(&walk<{SCHEDULERS[0]}>) walks[] = {{
    {", ".join(f"walk<{scheduler}>" for scheduler in SCHEDULERS)}}};
int block_bytes = sizeof(BlockCoordinates);

// Whether the warps of all groups converged.
bool make_group_maps(const KGroupMapsArguments& args) {{
    bool converged = true;
    for (blockIdx.x = 0; blockIdx.x < args.num_groups; ++blockIdx.x) {{
        converged &= run_warp([&] {{ k_group_maps(args); }});
    }}
    return converged;
}}
}}
"""
WALK = ctypes.CFUNCTYPE(
    *(ctypes.c_int64, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32),
    *(ctypes.c_void_p, ctypes.c_int64),
)
MAKE_GROUP_MAPS = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
CAPACITY = 1 << 15
"""More blocks than any test has for one CTA."""


@dataclass(frozen=True)
class Blocks:
    """Blocks that were handed out, as BlockCoordinates has them, one array per field."""

    m: np.ndarray
    n: np.ndarray
    a_batch: np.ndarray
    b_batch: np.ndarray
    d_batch: np.ndarray
    first_k_block: np.ndarray
    num_k_blocks: np.ndarray
    valid_rows: np.ndarray
    stored_rows: np.ndarray
    shares_b: np.ndarray

    def __len__(self) -> int:
        return len(self.m)

    def table(self) -> np.ndarray:
        """[block, field]."""
        return np.stack([getattr(self, field.name) for field in fields(self)], axis=1)

    @classmethod
    def of(cls, table: np.ndarray) -> Blocks:
        """The inverse of `table`."""
        return cls(*table.T)

    @classmethod
    def together(cls, parts: Sequence[Blocks]) -> Blocks:
        return cls.of(np.concatenate([part.table() for part in parts]))


class Schedulers:
    """All of SCHEDULERS, compiled."""

    def __init__(self, host_compiler: Callable[..., ctypes.CDLL]) -> None:
        library = host_compiler(HARNESS, *FLAGS)
        self._walks = (WALK * len(SCHEDULERS)).in_dll(library, "walks")
        self._make_group_maps = MAKE_GROUP_MAPS(("make_group_maps", library))
        self._buffer = np.empty((CAPACITY, len(fields(Blocks))), np.uint32)
        size = ctypes.c_int.in_dll(library, "block_bytes").value
        assert size == self._buffer[0].nbytes, "Blocks must have the fields of BlockCoordinates"

    def walk(self, config: Config, args: GemmArguments, cta: int, num_ctas: int) -> Blocks:
        """The blocks of one CTA."""
        name = {
            Grouping.M_GROUPED: "GroupRowsScheduler",
            Grouping.K_GROUPED: "KGroupedScheduler",
        }[config.grouping]
        if config.grouping is Grouping.M_GROUPED and args.layout == GroupedLayout.ROW_IDS:
            name = "RowIdScheduler"
        walk = self._walks[SCHEDULERS.index(in_cxx(name, config))]
        address = ctypes.addressof(args)
        count = walk(address, cta, num_ctas, self._buffer.ctypes.data, CAPACITY)
        assert count != -1, "the lanes of a warp part ways"
        assert count != -2, "the lanes of a warp see different blocks"
        assert count <= CAPACITY, f"CTA {cta} of {num_ctas} has more than {CAPACITY} blocks"
        return Blocks.of(self._buffer[:count].astype(np.int64))

    def make_group_maps(self, args: KGroupMapsArguments) -> None:
        """Runs the kernel that makes the groups' tensor maps."""
        assert self._make_group_maps(ctypes.addressof(args)), "the lanes of a warp part ways"

    def walk_all(self, config: Config, args: GemmArguments, num_ctas: int) -> list[Blocks]:
        """The blocks of each CTA of a grid. The CTAs of a cluster walk side by side.

        Those of an m-grouped product share B only where they say so; pairs always do.
        """
        ctas = [self.walk(config, args, cta, num_ctas) for cta in range(num_ctas)]
        for first in range(0, num_ctas, config.cluster_size):
            leader = ctas[first]
            for rank in range(config.cluster_size):
                got = ctas[first + rank]
                assert (got.num_k_blocks == leader.num_k_blocks).all()
                assert (got.shares_b == leader.shares_b).all()
                if config.grouping is Grouping.M_GROUPED and config.cluster_m > 1:
                    shares = got.shares_b == 1
                    assert shares.all() or not isinstance(config, Sm100GemmConfig)
                    assert (got.b_batch == leader.b_batch)[shares].all()
                    assert (got.n == leader.n)[shares].all()
                    continue
                expected = leader.table()
                expected[:, 0] += rank % config.cluster_m * config.block_m
                expected[:, 1] += rank // config.cluster_m * config.block_n
                assert (got.table() == expected).all()
        return ctas


def check_columns(config: Config, n: int, blocks: Blocks) -> np.ndarray:
    """The blocks' columns of blocks. They hang over the edge by less than a cluster."""
    assert not (blocks.n % config.block_n).any()
    most = -(-n // config.block_n) + config.cluster_size - 1
    assert (blocks.n < most * config.block_n).all()
    return blocks.n // config.block_n


def arguments(values: np.ndarray, field: str, **others: int) -> GemmArguments:
    """Kernel arguments with the address of `values` in `field`."""
    args = GemmArguments.allocate()
    for name, value in {field: values.ctypes.data, **others}.items():
        setattr(args, name, value)
    return args
