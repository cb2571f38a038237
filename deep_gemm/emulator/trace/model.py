"""The timing model's constants, in clocks of one H100 SM, and where each comes from.

They make a picture whose proportions are right, no prediction: `config/cost_model.py` predicts.
"""

from __future__ import annotations

from deep_gemm.config.cost_model import CLOCKS_PER_US, IN_TURN_CLOCKS, STORE_CLOCKS

__all__ = [
    "INSTRUCTION_CLOCKS",
    "LOAD_BYTES_PER_CLOCK",
    "LOAD_LATENCY",
    "REMOTE_CLOCKS",
    "STORE_CLOCKS",
    "mma_clocks",
]


def mma_clocks(n: int) -> float:
    """What one m64nNkK takes of the tensor cores at their nominal rate, K being 32 bytes.

    8192 FLOP per clock and SM for FP8, the data sheet's 1979 TFLOPS: 64 x 128 x 32 takes 64 clocks.
    The power limit leaves some 70 % of it when all SMs multiply (TENSOR_CLOCKS_PER_COLUMN of the
    cost model); the trace shows one SM at the full rate.
    """
    return n / 2


INSTRUCTION_CLOCKS = 2 * (IN_TURN_CLOCKS[1] - 2.0)
"""Per PTX instruction of a warp. The cost model's fit has 2.98 clocks per column for a warpgroup
that multiplies and promotes in turn; 2 of them are the tensor cores', the rest is half an FMA per
thread. Each instruction is taken to cost as much as that FMA."""

LOAD_LATENCY = 24_500 * 132 / 3.0e6 * CLOCKS_PER_US
"""From the issue of a copy to its landing, without waiting for its turn. Measured on an H100: 22 to
27 KB in flight on each of 132 SMs reach the 3.0 TB/s of its HBM, which is a latency of 1.08 us by
Little's law. A copy that finds its bytes in L2 is faster; that is not modelled."""

LOAD_BYTES_PER_CLOCK = 46.6
"""What L2 supplies to one SM when all read at once, measured on an H100. A multicast load is paid
for by the SM that issues it."""

REMOTE_CLOCKS = 180.0
"""Until an arrival is seen in another CTA of the cluster: the latency of the network between SMs
that arXiv 2402.13499 measured on an H100."""
