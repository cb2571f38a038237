"""Who is measured: our library, the packaged reference and cuBLASLt. One of them per process."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import torch

import deep_gemm
from benchmarks.operands import Operands, mn_major
from deep_gemm.testing.numeric import max_scaled_error
from deep_gemm.testing.reference import fp8_gemm_nt_reference

# The largest of many elements are 6 times the scale, and rounding those to BF16 costs up to 0.024.
# One lost instruction, 32 of K = 16384, would cost 0.2.
PROMOTED_LIMIT = 0.05
# Sums over all of K in the tensor cores' short accumulators. A wrong element is off by several.
FAST_LIMIT = 1.0


@dataclass(frozen=True)
class Case:
    """A call that can be timed, and what it has to compute.

    Attributes:
        launch: writes the product of a and b into d, on the current stream.
        a, b: the operands, with 1x128 and 128x128 scale factors.
        d: [m, n] BF16.
        limit: largest error allowed, as `max_scaled_error` counts.
    """

    launch: Callable[[], object]
    a: tuple[torch.Tensor, torch.Tensor]
    b: tuple[torch.Tensor, torch.Tensor]
    d: torch.Tensor
    limit: float = PROMOTED_LIMIT

    def check(self) -> float:
        """Runs the call on a poisoned output and returns its error.

        Raises:
            AssertionError: the error is over the limit.
        """
        self.d.fill_(torch.nan)
        self.launch()
        error = max_scaled_error(self.d, fp8_gemm_nt_reference(self.a, self.b))
        if error > self.limit:
            raise AssertionError(f"wrong result: max_error {error:.3g}, at most {self.limit}")
        return error


class Peer(Protocol):
    """One library. A variant is one way to call it, and a column of the result."""

    variants: tuple[str, ...]

    def case(self, variant: str, x: Operands) -> Case:
        """A call with everything prepared that a serving engine prepares once."""

    def counts(self, kernel: str) -> bool:
        """Whether this kernel's time is part of the call's."""

    def versions(self) -> dict[str, str]:
        """Library versions, for the result file."""


class Ours:
    """deep_gemm of this checkout: scale factors MN-major, like the reference's, or row-major."""

    variants: tuple[str, ...] = ("ours", "ours_row_major")

    def case(self, variant: str, x: Operands) -> Case:
        a = (x.a, mn_major(x.sfa) if variant == "ours" else x.sfa)
        b = (x.b, x.sfb)
        return Case(lambda: deep_gemm.fp8_gemm_nt(a, b, x.d), a, b, x.d)

    def counts(self, kernel: str) -> bool:
        return True

    def versions(self) -> dict[str, str]:
        return {"deep_gemm": deep_gemm.__version__}


class Reference:
    """The packaged reference, which has our import name and so takes our place in `sys.modules`."""

    variants: tuple[str, ...] = ("reference",)

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._library = import_peer(folder)

    def case(self, variant: str, x: Operands) -> Case:
        library = self._library
        a = (x.a, library.get_mn_major_tma_aligned_tensor(x.sfa))
        b = (x.b, x.sfb)
        # Its own default: N and K are compiled in.
        return Case(lambda: library.fp8_gemm_nt(a, b, x.d, compiled_dims="nk"), a, b, x.d)

    def counts(self, kernel: str) -> bool:
        return "gemm_" in kernel

    def versions(self) -> dict[str, str]:
        found = importlib.metadata.distributions(path=[self._folder])
        return {
            "reference": ", ".join(
                f"{distribution.metadata['Name']} {distribution.version}"
                for distribution in found
                if "gemm" in distribution.metadata["Name"]
            )
        }


class CublasLt:
    """torch._scaled_mm, with block scale factors and, as a ceiling, with one per tensor."""

    variants: tuple[str, ...] = ("cublaslt", "cublaslt_tensor")

    def case(self, variant: str, x: Operands) -> Case:
        if variant == "cublaslt":
            return self._block_scaled(x)
        return self._tensor_scaled(x)

    def _block_scaled(self, x: Operands) -> Case:
        sfa = x.sfa.t().contiguous().t()
        sfb = x.sfb.t()

        def launch() -> torch.Tensor:
            return torch._scaled_mm(
                x.a, x.b.t(), scale_a=sfa, scale_b=sfb, out_dtype=torch.bfloat16, out=x.d
            )

        return Case(launch, (x.a, x.sfa), (x.b, x.sfb), x.d)

    def _tensor_scaled(self, x: Operands) -> Case:
        sf = torch.full((), 2.0**-7, device=x.a.device)

        def launch() -> torch.Tensor:
            return torch._scaled_mm(
                x.a,
                x.b.t(),
                scale_a=sf,
                scale_b=sf,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
                out=x.d,
            )

        a, b = (x.a, sf.expand_as(x.sfa)), (x.b, sf.expand_as(x.sfb))
        return Case(launch, a, b, x.d, FAST_LIMIT)

    def counts(self, kernel: str) -> bool:
        """The product, with what it needs to add up split sums, but nothing of PyTorch's own."""
        return not kernel.startswith(("Memcpy", "Memset")) and "at::native" not in kernel

    def versions(self) -> dict[str, str]:
        return {}


def import_peer(folder: str) -> ModuleType:
    """Imports the deep_gemm in `folder` instead of ours. What was imported of ours still works."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "deep_gemm"]:
        del sys.modules[name]
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    return importlib.import_module("deep_gemm")


def make_peer(name: str, folder: str | None) -> Peer:
    """The peer called `ours`, `reference` (installed in `folder`) or `cublaslt`."""
    if name == "reference":
        assert folder is not None
        return Reference(folder)
    if name == "ours":
        return Ours()
    return CublasLt()
