"""Who is measured: our library, the packaged reference and cuBLASLt. One of them per process."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType
from typing import Protocol

import torch

import deep_gemm
from benchmarks.case import FAST_LIMIT, MAX_ERROR, Case, Launch
from benchmarks.grouped_calls import grouped_case, our_variants
from benchmarks.grouped_operands import GroupedOperands, Part
from benchmarks.operands import Operands
from benchmarks.problems import AnyProblem, GroupedProblem
from deep_gemm.testing.random_operands import Scaled, mn_major
from deep_gemm.testing.reference import fp8_gemm_nt_reference

AnyOperands = Operands | GroupedOperands


class Peer(Protocol):
    """One library. A variant is one way to call it, and a column of the result."""

    def variants(self, problem: AnyProblem) -> tuple[str, ...]:
        """The ways to compute a problem; none if it cannot."""

    def case(self, variant: str, x: AnyOperands) -> Case:
        """A call with everything prepared that a serving engine prepares once."""

    def counts(self, kernel: str) -> bool:
        """Whether this kernel's time is part of the call's."""

    def versions(self) -> dict[str, str]:
        """Library versions, for the result file."""


class Ours:
    """deep_gemm of this checkout: scale factors MN-major, like the reference's, or row-major."""

    def variants(self, problem: AnyProblem) -> tuple[str, ...]:
        if isinstance(problem, GroupedProblem):
            return our_variants(problem)
        return ("ours", "ours_row_major")

    def case(self, variant: str, x: AnyOperands) -> Case:
        if isinstance(x, GroupedOperands):
            return grouped_case(deep_gemm, variant, x)
        a = (x.a, mn_major(x.sfa) if variant == "ours" else x.sfa)
        b = (x.b, x.sfb)
        return dense_case(lambda: deep_gemm.fp8_gemm_nt(a, b, x.d), a, b, x.d)

    def counts(self, kernel: str) -> bool:
        return True

    def versions(self) -> dict[str, str]:
        return {"deep_gemm": deep_gemm.__version__}


class Reference:
    """The packaged reference, which has our import name and so takes our place in `sys.modules`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._library = import_peer(folder)

    def variants(self, problem: AnyProblem) -> tuple[str, ...]:
        return ("reference",)

    def case(self, variant: str, x: AnyOperands) -> Case:
        library = self._library
        if isinstance(x, GroupedOperands):
            return grouped_case(library, variant, x)
        a = (x.a, library.get_mn_major_tma_aligned_tensor(x.sfa))
        b = (x.b, x.sfb)
        # Its own default: N and K are compiled in.
        launch = partial(library.fp8_gemm_nt, a, b, x.d, compiled_dims="nk")
        return dense_case(launch, a, b, x.d)

    def counts(self, kernel: str) -> bool:
        return True

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

    def variants(self, problem: AnyProblem) -> tuple[str, ...]:
        return () if isinstance(problem, GroupedProblem) else ("cublaslt", "cublaslt_tensor")

    def case(self, variant: str, x: AnyOperands) -> Case:
        assert isinstance(x, Operands)
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

        return dense_case(launch, (x.a, x.sfa), (x.b, x.sfb), x.d)

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
        return dense_case(launch, a, b, x.d, FAST_LIMIT)

    def counts(self, kernel: str) -> bool:
        """The product, with what it needs to add up split sums, but nothing of PyTorch's own."""
        return not kernel.startswith(("Memcpy", "Memset")) and "at::native" not in kernel

    def versions(self) -> dict[str, str]:
        return {}


def dense_case(
    launch: Launch, a: Scaled, b: Scaled, d: torch.Tensor, limit: float = MAX_ERROR
) -> Case:
    """A call that writes a @ b.T, with 1x128 and 128x128 scale factors, into d."""

    def products() -> Iterator[Part]:
        yield (), fp8_gemm_nt_reference(a, b)

    return Case(launch, d, products, limit=limit)


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
