"""The picture of docs/grouped.md: what it shows are whole groups, each block once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from draw_blocks import ALIGNMENT, CONFIG, SIZES, N, dealt_blocks, draw, row_ends

from deep_gemm import align

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


def test_every_row_of_every_group_is_dealt_once() -> None:
    dealt = Counter(
        (row, block.column, block.group, row - block.row < block.valid_rows)
        for block in dealt_blocks()
        for row in range(block.row, block.row + block.stored_rows)
    )
    expected = Counter(
        (row, column, group, row < end)
        for group, end in enumerate(row_ends(SIZES, ALIGNMENT))
        for row in range(end - SIZES[group], align(end, ALIGNMENT))
        for column in range(0, N, CONFIG.block_n)
    )
    assert dealt == expected


def test_the_same_blocks_give_the_same_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / name for name in ("first.svg", "second.svg")]
    for path in paths:
        draw(dealt_blocks(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
