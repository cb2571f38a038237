"""Kernels of grouped, 1D1D and FP32 products: they compile, spill nothing and fit the SM; and what
costs a grouped main loop its speed stays out of it.

There are hundreds of candidates, so those are compiled that selection takes in a coarse sweep.
"""

from __future__ import annotations

import functools
import re
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.legality import broken_rules
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.config.sm90 import stages_and_rounds
from deep_gemm.jit import source as jit_source
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate, generate_k_group_maps
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.jit.source import forget_headers, include_root
from tests.compile.sass import disassemble, main_loop, wgmmas
from tests.compile.test_compilers import label, nvrtc_libraries
from tests.compile.test_kernels import check_registers

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

M_GROUPED, K_GROUPED = Grouping.M_GROUPED, Grouping.K_GROUPED

# (N, K) of the benchmark's tables and one small one; rows per group, from decoding to training.
PROJECTIONS = [(6144, 7168), (7168, 3072), (4096, 7168), (7168, 2048), (4096, 4096), (576, 512)]
ROWS = [1, 8, 16, 17, 32, 64, 96, 128, 192, 512, 2048, 8192]
WEIGHTS = [(4096, 7168), (7168, 2048), (2112, 7168), (24576, 1536), (576, 4096), (128, 128)]
DEPTHS = [128, 1024, 4096, 16384]
NUM_PARTS = 12


def swept_problems() -> Iterator[GemmProblem]:
    """Contiguous and masked products, and weight gradients of one expert and of many."""
    for m, (n, k), groups, alignment, d_bytes in product(
        ROWS, PROJECTIONS, (1, 4, 32), (1, 128), (2, 4)
    ):
        yield GemmProblem(
            *(m, n, k),
            grouping=M_GROUPED,
            num_groups=groups,
            alignment=alignment,
            d_bytes=d_bytes,
        )
    for (m, n), k, groups, d_bytes in product(WEIGHTS, DEPTHS, (1, 4, 16), (2, 4)):
        yield GemmProblem(
            *(m, n, k), grouping=K_GROUPED, num_groups=groups, gran_n=1, d_bytes=d_bytes
        )
    for (m, n), k, d_bytes in product([*WEIGHTS, (64, 7168), (16, 4096)], DEPTHS, (2, 4)):
        yield GemmProblem(m, n, k, gran_n=1, d_bytes=d_bytes)
    for m, (n, k) in product(ROWS, PROJECTIONS):
        yield GemmProblem(m, n, k, d_bytes=4)


@functools.cache
def swept_configs() -> frozenset[GemmConfig]:
    """What selection takes in the sweep."""
    return frozenset(select(problem).config for problem in swept_problems())


def widest(block_m: int, block_n: int, **kind: object) -> GemmConfig:
    """A tile with the most stages that fit."""
    warpgroups = 1 if block_m <= 64 else 2
    shape = GemmConfig(block_m, block_n, 3, warpgroups, **kind)  # type: ignore[arg-type]
    stages, rounds = stages_and_rounds(shape)[-1]
    return replace(shape, num_stages=stages, num_store_rounds=rounds)


LOOPS = [
    widest(128, 192, grouping=M_GROUPED),
    widest(256, 128, grouping=M_GROUPED),
    widest(64, 128, grouping=M_GROUPED),
    widest(32, 128, grouping=M_GROUPED),
    widest(128, 192, grouping=M_GROUPED, cluster_n=2),
    widest(256, 96, grouping=K_GROUPED, gran_n=1, d_bytes=4),
    widest(128, 128, grouping=K_GROUPED, gran_n=1, d_bytes=4),
]
OTHERS = [
    widest(16, 16, grouping=M_GROUPED, d_bytes=4),
    widest(128, 160, grouping=M_GROUPED, d_bytes=4),
    widest(128, 128, gran_n=1, d_bytes=4, cluster_m=2),
    widest(64, 96, gran_n=1),
]
each_loop = pytest.mark.parametrize("config", LOOPS, ids=lambda config: config.name)


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_what_selection_takes_compiles_without_spills(part: int) -> None:
    """Slow code, which ptxas warns of (C7510, C7514), is an error of the compile."""
    configs = [
        config for config in swept_configs() if zlib.crc32(config.name.encode()) % NUM_PARTS == part
    ]
    assert configs
    for config in configs:
        kernel = build(generate(config, "90a"))
        check_registers(config, kernel)
        assert kernel.static_smem_bytes == 0


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
@pytest.mark.parametrize("config", [*LOOPS, *OTHERS], ids=lambda config: config.name)
def test_every_nvrtc_compiles_it_without_spills(library: Library, config: GemmConfig) -> None:
    assert not broken_rules(config)
    check_registers(config, Nvrtc(library).compile(generate(config, "90a")))


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
def test_every_nvrtc_compiles_the_maps_of_groups(library: Library) -> None:
    kernel = Nvrtc(library).compile(generate_k_group_maps("90a"))
    assert kernel.spill_bytes == kernel.static_smem_bytes == 0


def between_wgmmas(config: GemmConfig, folder: Path) -> tuple[int, int, int]:
    """Of the main loop, from its first WGMMA to its last: moves to uniform registers; votes and
    warp barriers; and k blocks."""
    code = disassemble(select_compiler().compile(generate(config, "90a")).cubin, folder)
    loop = main_loop(code)
    places = [i for i, line in enumerate(loop) if wgmmas([line])]
    lines = loop[places[0] : places[-1]]

    def count(pattern: str) -> int:
        return len([line for line in lines if re.search(rf"\b({pattern})\b", line)])

    num_k_blocks = len(places) // (4 * config.num_waves)
    return count("R2UR"), count("WARPSYNC|VOTE|VOTEU|BSYNC|BSSY"), num_k_blocks


@each_loop
def test_the_main_loop_stays_in_uniform_registers(config: GemmConfig, tmp_path: Path) -> None:
    """A block that another warp has read costs it nothing: csrc/scheduler/block_ring.cuh.

    ptxas may keep a ring's stage or a scale factor of B where it has more room: that is one move in
    a k block, where a descriptor is two for each of its four WGMMAs. Likewise it may vote once on
    its way round.
    """
    moves, stops, num_k_blocks = between_wgmmas(config, tmp_path)
    dense = replace(config, grouping=Grouping.DENSE)
    dense_moves, dense_stops, _ = between_wgmmas(dense, tmp_path)
    assert stops < dense_stops + num_k_blocks
    assert moves <= dense_moves + num_k_blocks


@pytest.mark.parametrize("config", [LOOPS[0], LOOPS[2]], ids=lambda config: config.name)
def test_a_loop_that_is_left_behind_a_wait_costs_it(
    config: GemmConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the test above is there to find; it cost up to 5 % of the time on an H100. Two headers
    keep it away, each in its way."""
    csrc = tmp_path / "csrc"
    shutil.copytree(include_root(), csrc)
    edits = (
        ("scheduler/block_ring.cuh", "if (is_last) return false;", ""),
        ("scheduler/block_ring.cuh", "return true;", "return !is_last;"),
        ("epilogue/stage_block.cuh", "__syncwarp();  // else", "// else"),
    )
    for header, before, after in edits:
        text = (csrc / header).read_text()
        assert text.count(before) == 1, "the edit no longer fits"
        (csrc / header).write_text(text.replace(before, after))
    monkeypatch.setattr(jit_source, "include_root", lambda: csrc)
    forget_headers()
    try:
        moves, stops, num_k_blocks = between_wgmmas(config, tmp_path)
    finally:
        monkeypatch.undo()
        forget_headers()
    assert moves > 8 * num_k_blocks and stops >= num_k_blocks
