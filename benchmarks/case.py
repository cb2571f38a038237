"""A call that can be checked and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from benchmarks.grouped_operands import Part
from deep_gemm.testing.numeric import max_scaled_error
from deep_gemm.tuning.operands import MAX_ERROR, OLD_SCALE

# Sums over all of K in the tensor cores' short accumulators. A wrong element is off by several.
FAST_LIMIT = 1.0


Launch = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A call that can be timed, and what it has to compute.

    Attributes:
        launch: writes the product into d, or adds it, on the current stream.
        d: the output.
        products: the product in FP64, in parts, with the place of each in d.
        accumulates: whether the product is added to what d holds.
        limit: largest error allowed, as `max_scaled_error` counts.
    """

    launch: Launch
    d: torch.Tensor
    products: Callable[[], Iterator[Part]]
    accumulates: bool = False
    limit: float = MAX_ERROR

    def check(self) -> float:
        """Runs the call on an output full of NaN, or of noise to add to, and returns its error.

        Raises:
            AssertionError: the error is over the limit.
        """
        old = torch.randn_like(self.d).mul_(OLD_SCALE) if self.accumulates else None
        self.d.copy_(old) if old is not None else self.d.fill_(torch.nan)
        self.launch()
        error = 0.0
        for where, product in self.products():
            expected = product if old is None else product.add_(old[where])
            error = max(error, max_scaled_error(self.d[where], expected))
        if error > self.limit:
            raise AssertionError(f"wrong result: max_error {error:.3g}, at most {self.limit}")
        return error
