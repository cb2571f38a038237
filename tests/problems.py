"""The sizes that the host and compile tiers sweep over."""

from __future__ import annotations

# (N, K): DeepSeek-V3's, as the benchmark's table has them, and some that divide nothing.
PROJECTIONS = [
    *((2112, 7168), (576, 7168), (24576, 1536), (32768, 512), (7168, 16384), (4096, 7168)),
    *((7168, 2048), (1000, 1168), (16, 16), (129_280, 7168)),
]

# M: powers of two with their neighbours, and odd ones between.
ROWS = sorted(
    {2**i + step for i in range(14) for step in (-1, 0, 1)}.difference({0, 8193})
    | {48, 77, 96, 144, 192, 200, 300, 384, 555, 700, 777, 1500, 3000, 5000, 6000, 7777}
)
