"""The one module of version 1's package of this name that engines import: `utils`."""

from __future__ import annotations

from deep_gemm.jit_kernels import utils

__all__ = ["utils"]
