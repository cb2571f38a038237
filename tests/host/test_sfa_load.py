"""Which scale factors of A come by TMA, and which word by word."""

from __future__ import annotations

import pytest
import torch

from deep_gemm.config.gemm_config import GemmConfig
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
        elements = box_map.box[0] * box_map.box[1]
        assert elements == CONFIG.block_m * 4 and all(step % 16 == 0 for step in box_map.strides)
