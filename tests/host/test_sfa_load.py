"""Which scale factors of A come by TMA, and which word by word."""

from __future__ import annotations

import pytest
import torch

from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.kernels.arguments import SfaLoad
from deep_gemm.kernels.fp8_gemm import _sfa_map

CONFIG = GemmConfig(64, 64, 4, 1)
M, NUM_K_BLOCKS = 72, 8
STORAGE = torch.zeros(4096)
assert STORAGE.data_ptr() % 16 == 0


@pytest.mark.parametrize(
    ("stride", "offset", "expected"),
    [
        ((8, 1), 0, SfaLoad.TMA_ALONG_K),
        ((12, 1), 4, SfaLoad.TMA_ALONG_K),
        ((1, 72), 0, SfaLoad.TMA_ALONG_M),
        ((1, 76), 8, SfaLoad.TMA_ALONG_M),
        ((8, 1), 1, SfaLoad.WORDS),  # not aligned
        ((9, 1), 0, SfaLoad.WORDS),
        ((1, 74), 0, SfaLoad.WORDS),
        ((16, 2), 0, SfaLoad.WORDS),  # not adjacent
        ((4, 1), 0, SfaLoad.WORDS),  # overlapping rows
        ((0, 1), 0, SfaLoad.WORDS),
        ((1, 68), 0, SfaLoad.WORDS),
        ((1, 0), 0, SfaLoad.WORDS),
    ],
)
def test_tma_takes_what_it_can(stride: tuple[int, int], offset: int, expected: SfaLoad) -> None:
    sfa = STORAGE.as_strided((1, M, NUM_K_BLOCKS), (0, *stride), offset)
    load, box_map = _sfa_map(sfa, CONFIG)
    assert load == expected
    assert (box_map is None) == (expected == SfaLoad.WORDS)
    if box_map is not None:
        along_k = load == SfaLoad.TMA_ALONG_K
        assert box_map.box == ((4, CONFIG.block_m, 1) if along_k else (CONFIG.block_m, 4, 1))
        assert box_map.dims == ((NUM_K_BLOCKS, M, 1) if along_k else (M, NUM_K_BLOCKS, 1))
        assert box_map.strides[0] == 4 * max(stride) and box_map.strides[1] % 16 == 0


@pytest.mark.parametrize(
    ("stride", "expected"),
    [
        ((576, 8, 1), SfaLoad.TMA_ALONG_K),
        ((640, 8, 1), SfaLoad.TMA_ALONG_K),
        ((8, 24, 1), SfaLoad.TMA_ALONG_K),  # groups side by side
        ((576, 1, 72), SfaLoad.TMA_ALONG_M),
        ((72, 1, 216), SfaLoad.TMA_ALONG_M),
        ((578, 8, 1), SfaLoad.WORDS),  # not aligned
        ((578, 1, 72), SfaLoad.WORDS),
        ((0, 8, 1), SfaLoad.WORDS),  # overlapping groups
        ((4, 8, 1), SfaLoad.WORDS),
        ((1728, 24, 3), SfaLoad.WORDS),  # not adjacent
    ],
)
def test_tma_takes_groups_where_each_is_aligned(
    stride: tuple[int, int, int], expected: SfaLoad
) -> None:
    sfa = torch.zeros(3 * 1728).as_strided((3, M, NUM_K_BLOCKS), stride)
    load, box_map = _sfa_map(sfa, CONFIG)
    assert load == expected
    assert (box_map is None) == (expected == SfaLoad.WORDS)
    if box_map is not None:
        step = stride[1] if load == SfaLoad.TMA_ALONG_K else stride[2]
        assert box_map.strides == (4 * step, 4 * stride[0])
        assert box_map.dims[2] == 3 and box_map.box[2] == 1


def test_1d1d_prefers_lines_along_m() -> None:
    """A group of a k-grouped product begins at any k block, which along K is no multiple of 16
    bytes."""
    config = GemmConfig(64, 64, 4, 1, grouping=Grouping.K_GROUPED, gran_n=1)
    either = STORAGE[:1].view(1, 1, 1)
    assert _sfa_map(either, CONFIG)[0] == SfaLoad.TMA_ALONG_K
    assert _sfa_map(either, config)[0] == SfaLoad.TMA_ALONG_M
    k_major = STORAGE[: M * NUM_K_BLOCKS].view(1, M, NUM_K_BLOCKS)
    assert _sfa_map(k_major, config)[0] == SfaLoad.TMA_ALONG_K
    assert _sfa_map(k_major[:, :, ::2], config) == (SfaLoad.WORDS, None)
