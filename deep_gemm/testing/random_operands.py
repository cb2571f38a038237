"""Seeded FP8 operands with their scale factors, made by the casts' plain definition."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from deep_gemm.testing.quantize_reference import cast_blocks_reference
from deep_gemm.utils.math import align, ceil_div

Scaled = tuple[torch.Tensor, torch.Tensor]
"""FP8 data and FP32 scale factors, both row-major."""

_GRAN = 128
_CAST_NUMEL = 1 << 26
"""FP32 numbers that are cast at a time: 256 MiB, of which the cast makes several copies."""


class RandomOperands:
    """Normally distributed operands, the same ones for the same seed and order of calls."""

    def __init__(self, seed: int, device: torch.device | str) -> None:
        self.device = device
        self._generator = torch.Generator(device).manual_seed(seed)

    def by_token(self, rows: int, k: int) -> Scaled:
        """[rows, k] with 1x128 scale factors."""
        return self._cast(1, rows, k)

    def by_block(self, rows: int, k: int) -> Scaled:
        """[rows, k] with 128x128 scale factors."""
        return self._cast(_GRAN, rows, k)

    def normal(self, *shape: int) -> torch.Tensor:
        """FP32 of this shape."""
        return torch.randn(*shape, generator=self._generator, device=self.device)

    def _cast(self, gran: int, rows: int, k: int) -> Scaled:
        step = align(ceil_div(_CAST_NUMEL, k), _GRAN)
        parts = [
            cast_blocks_reference(self.normal(min(step, rows - first), k), gran, _GRAN, False)
            for first in range(0, rows, step)
        ]
        # FP8 is joined by its bytes: not every torch does it for the type itself.
        data = torch.cat([data.view(torch.uint8) for data, _ in parts])
        return data.view(torch.float8_e4m3fn), torch.cat([sf for _, sf in parts])


def stacked(parts: Sequence[Scaled]) -> Scaled:
    """Operands of one shape, with a dimension for their number in front."""
    data = torch.stack([data.view(torch.uint8) for data, _ in parts])
    return data.view(torch.float8_e4m3fn), torch.stack([sf for _, sf in parts])


def side_by_side(parts: Sequence[Scaled]) -> Scaled:
    """Operands of a k-grouped product: data flat, one group's [rows, k_i] behind the other's."""
    data = torch.cat([data.view(torch.uint8).flatten() for data, _ in parts])
    return data.view(torch.float8_e4m3fn), torch.cat([sf for _, sf in parts], dim=1)


def mn_major(sf: torch.Tensor) -> torch.Tensor:
    """A copy of scale factors [..., mn, num_k_blocks], MN-major, aligned to 16 bytes for TMA."""
    *batch, rows, columns = sf.shape
    padded = sf.new_empty(*batch, columns, align(rows, 4)).mT[..., :rows, :]
    return padded.copy_(sf)


def split(total: int, parts: int, low: int, high: int, generator: random.Random) -> list[int]:
    """Whole numbers between low and high, evenly distributed but for what their sum asks for."""
    sizes = [generator.randint(low, high) for _ in range(parts)]
    while missing := total - sum(sizes):
        step = 1 if missing > 0 else -1
        movable = [index for index, size in enumerate(sizes) if low <= size + step <= high]
        sizes[generator.choice(movable)] += step
    return sizes
