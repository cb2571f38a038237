"""Draws how the blocks of a psum layout are dealt to CTAs: python tools/draw_blocks.py PATH

The blocks are those that the scheduler itself hands out (csrc/scheduler/group_rows.cuh), walked by
a small kernel in the emulator; `docs/grouped.md` shows the picture.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deep_gemm import align, ceil_div
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GemmArguments, GroupedLayout
from deep_gemm.runtime.launch import KernelLaunch
from deep_gemm.runtime.plan import make_plan

SIZES = (150, 20, 0, 90)
ALIGNMENT = 32
M, N = 320, 512
CONFIG = GemmConfig(64, 128, 4, 1, grouping=Grouping.M_GROUPED)
BAND = 2
NUM_CTAS = 5
MAX_BLOCKS = 32

COLOURS = ("#8ecae6", "#ffd166", "#a7d7a0", "#f4a6a0", "#cdb4db")
PADDING_COLOUR = "#dddddd"

KERNEL = f"""\
#include "scheduler/group_rows.cuh"

using namespace deep_gemm;

constexpr GemmConfig kConfig{CONFIG.initialiser()};

// Writes [num_ctas, {MAX_BLOCKS}, 5], zeros behind each CTA's last block.
extern "C" __global__ void deal_blocks(const __grid_constant__ GemmArguments args) {{
    GroupRowsScheduler<kConfig> scheduler(args, blockIdx.x, gridDim.x);
    uint32_t* out = static_cast<uint32_t*>(args.d) + blockIdx.x * {MAX_BLOCKS} * 5;
    BlockCoordinates block;
    for (; scheduler.next_block(block); out += 5) {{
        if (ptx::lane_idx() > 0) continue;
        out[0] = block.m;
        out[1] = block.n;
        out[2] = block.b_batch;
        out[3] = block.valid_rows;
        out[4] = block.stored_rows;
    }}
}}
"""


class Block(NamedTuple):
    """A block as it was dealt.

    Attributes:
        cta: whose it is.
        turn: its place among the CTA's blocks.
        row: first row of D.
        column: first column of D.
        group: whose B it is multiplied by.
        valid_rows: rows that hold a product.
        stored_rows: rows that are written.
    """

    cta: int
    turn: int
    row: int
    column: int
    group: int
    valid_rows: int
    stored_rows: int


def row_ends(sizes: tuple[int, ...], alignment: int) -> list[int]:
    """The psum layout of groups of these sizes."""
    ends: list[int] = []
    for size in sizes:
        ends.append((align(ends[-1], alignment) if ends else 0) + size)
    return ends


def dealt_blocks() -> list[Block]:
    """Every CTA's blocks, as the scheduler finds them."""
    ends = torch.tensor(row_ends(SIZES, ALIGNMENT), dtype=torch.int32)
    out = torch.zeros(NUM_CTAS, MAX_BLOCKS, 5, dtype=torch.int32)
    arguments = GemmArguments.allocate()
    arguments.m, arguments.n, arguments.k = M, N, 128
    arguments.band, arguments.num_groups = BAND, len(SIZES)
    arguments.layout, arguments.alignment = GroupedLayout.ROW_ENDS, ALIGNMENT
    arguments.clears_padding = True
    launch = KernelLaunch(
        kernel=build(KernelSource("deal_blocks", KERNEL, "deal_blocks", "90a")),
        arguments=arguments,
        maps=(),
        pointers=(("grouped_layout", ends.nbytes), ("d", out.nbytes)),
        grid=NUM_CTAS,
        num_threads=32,
        smem_bytes=0,
        cluster_size=1,
    )
    addresses = (ends.data_ptr(), out.data_ptr())
    make_plan(launch, addresses, out.device).launch(*addresses)
    return [
        Block(cta, turn, *block)
        for cta, blocks in enumerate(out.tolist())
        for turn, block in enumerate(blocks)
        if block[4] > 0
    ]


def draw(blocks: list[Block], path: Path) -> None:
    """D with its groups on the left, and who computes which block."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text stays text, and the same blocks give the same file.
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "deep_gemm",
        "font.sans-serif": ["DejaVu Sans"],
    }
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(figsize=(9, 6.4), layout="constrained")
        for block in blocks:
            _draw_block(axes, block)
        _draw_groups(axes)
        _decorate(axes)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)


def _draw_block(axes: Any, block: Block) -> None:
    from matplotlib.patches import Rectangle

    corner, width = (block.column, block.row), CONFIG.block_n
    outline = {"edgecolor": "black", "linewidth": 0.8}
    axes.add_patch(Rectangle(corner, width, block.stored_rows, facecolor=PADDING_COLOUR))
    axes.add_patch(Rectangle(corner, width, block.valid_rows, facecolor=COLOURS[block.cta]))
    axes.add_patch(Rectangle(corner, width, block.stored_rows, fill=False, **outline))
    label = f"{'abcde'[block.cta]}{block.turn + 1}"
    centre = (block.column + width / 2, block.row + block.valid_rows / 2)
    axes.text(*centre, label, ha="center", va="center", fontsize=10)


def _draw_groups(axes: Any) -> None:
    for group, (size, end) in enumerate(zip(SIZES, row_ends(SIZES, ALIGNMENT), strict=True)):
        first = end - size
        axes.plot(
            [-8, -8], [first, end], color="black", linewidth=3, clip_on=False, solid_capstyle="butt"
        )
        tiles = ceil_div(align(end, ALIGNMENT) - first, CONFIG.block_m)
        content = f"{size} rows, {tiles} tile(s)" if size else "no rows, no tile"
        text = f"group {group} ends at {end}\n{content}"
        axes.text(-14, (first + end) / 2, text, ha="right", va="center", fontsize=8)


def _decorate(axes: Any) -> None:
    used = align(row_ends(SIZES, ALIGNMENT)[-1], ALIGNMENT)
    axes.axhspan(used, M, facecolor="none", edgecolor="#bbbbbb", hatch="///", linewidth=0)
    box = {"facecolor": "white", "edgecolor": "none"}
    axes.text(N / 2, (used + M) / 2, "never written", ha="center", va="center", bbox=box)
    axes.set_xlim(0, N)
    axes.set_ylim(M, 0)
    axes.set_xticks(range(0, N + 1, CONFIG.block_n))
    axes.set_yticks(range(0, M + 1, ALIGNMENT))
    axes.yaxis.set_label_position("right")
    axes.yaxis.tick_right()
    axes.set_xlabel("column of D")
    axes.set_ylabel("row of D")
    title = (
        f"Alignment {ALIGNMENT}; blocks of {CONFIG.block_m} x {CONFIG.block_n}, in bands of {BAND} "
        f"rows of blocks;\n{NUM_CTAS} CTAs: b3 is the third block of CTA b; grey becomes zero"
    )
    axes.set_title(title, fontsize=10)


if __name__ == "__main__":
    draw(dealt_blocks(), Path(sys.argv[1]))
