"""What a fake engine is given: a device, sizes and operands, and how its results are checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

import deep_gemm
from deep_gemm import align
from tests.grouped_calls import (
    check_contiguous,
    check_masked,
    check_values,
    finish,
    output,
    run_contiguous,
    run_masked,
    valid_rows,
)
from tests.grouped_operands import (
    Layout,
    Operand,
    exact_operand,
    generator_of,
    poison,
    random_operand,
    row_ends,
    row_ids,
    sf_layouts,
)

ALIGNMENT = 128

Call = Callable[..., object]


@dataclass(frozen=True)
class Site:
    """Where an engine runs, and how large its model is.

    Attributes:
        device: "cuda", or "cpu" for the emulator.
        exact: operands have exact sums, so that every bit of a result is known; else they are
            normal values, and results are compared with FP64.
        tokens: rows of a dense problem.
        n: columns of an output, a multiple of 64.
        k: a multiple of 128.
        rows: each expert's, one of them none.
        arch: architecture of the device.
    """

    device: str
    exact: bool
    tokens: int
    n: int
    k: int
    rows: tuple[int, ...]
    arch: str = "90a"

    @property
    def keeps_fp32(self) -> bool:
        """What engines pass as `disable_ue8m0_cast`: FP32 scale factors stay what they are."""
        return self.arch == "90a"

    def operand(self, shape: Sequence[int], gran_mn: int = 1, seed: int = 0) -> Operand:
        make = exact_operand if self.exact else random_operand
        return make(shape, gran_mn, self.device, seed)

    @property
    def activations(self) -> Operand:
        return self.operand((self.tokens, self.k))

    @property
    def weight(self) -> Operand:
        return self.operand((self.n, self.k), 128, seed=1)

    @property
    def experts(self) -> Operand:
        return self.operand((len(self.rows), self.n, self.k), 128, seed=1)

    # One product

    def run_dense(
        self, call: Call, m: int, n: int, dtype: torch.dtype = torch.bfloat16
    ) -> torch.Tensor:
        """What a call writes into a guarded output."""
        out = output(m, n, dtype, torch.device(self.device))
        call(out.view)
        finish(out)
        return out.view

    def check_linear(self, call: Call, sf_layout: str = "MN-major aligned") -> None:
        """`call(a, b, out)` with the scale factors of A in a layout is a linear layer."""
        (x, sfa), b = self.activations, self.weight
        a = x, sf_layouts(sfa)[sf_layout]
        d = self.run_dense(lambda out: call(a, b, out), self.tokens, self.n)
        self.check_dense(d, (x, sfa), b)

    def check_dense(self, d: torch.Tensor, a: Operand, b: Operand, gran_n: int = 128) -> None:
        check_values(d, lambda gemm: gemm(a, b, gran_n=gran_n), self.exact)

    def normal(self, rows: int, seed: int) -> torch.Tensor:
        """[rows, k] BF16, what a layer has before it is quantised."""
        generator = generator_of(self.device, seed)
        shape = rows, self.k
        return torch.randn(shape, dtype=torch.bfloat16, device=self.device, generator=generator)

    def check_quantized(self, call: Call, a: Operand, b: Operand) -> None:
        """`call(a, b, out)` of operands that casts have made, whose sums are not exact."""
        d = self.run_dense(lambda out: call(a, b, out), a[0].shape[0], b[0].shape[0])
        check_values(d, lambda gemm: gemm(a, b), exact=False)

    # Experts, one behind the other

    def by_ids(self, alignment: int = ALIGNMENT, m: int | None = None) -> Layout:
        return row_ids(list(enumerate(self.rows)), alignment, len(self.rows), m)

    def by_ends(self, alignment: int = ALIGNMENT, behind: int = ALIGNMENT) -> Layout:
        return row_ends(self.rows, alignment, behind)

    def unpermuted(self, layout: Layout) -> Operand:
        """A with NaN in rows of no group, as workspace that nobody initialised may hold."""
        a = self.operand((len(layout.row_groups), self.k))
        return poison(a, layout.row_groups < 0)

    def check_experts(
        self,
        call: Call,
        layout: Layout,
        sf_layout: str = "MN-major aligned",
        a: Operand | None = None,
    ) -> None:
        """`call(a, b, out, grouped_layout)` computes the experts' products; padding is zero."""
        (x, sfa), b = a or self.unpermuted(layout), self.experts
        laid_out = x, sf_layouts(sfa)[sf_layout]
        d = run_contiguous(laid_out, b, layout, call=lambda *args, **_: call(*args))
        check_contiguous(d, (x, sfa), b, layout, self.exact)

    # Experts, each with rows of its own

    @property
    def m_max(self) -> int:
        return align(max(self.rows), ALIGNMENT)

    def batched(self, m_max: int) -> Operand:
        """A with NaN in rows from each expert's last on."""
        a = self.operand((len(self.rows), m_max, self.k))
        return poison(a, ~valid_rows(self.rows, m_max))

    def check_batched(
        self,
        call: Call,
        sf_layout: str = "MN-major aligned",
        m_max: int | None = None,
        expected_m: int | None = None,
    ) -> None:
        """`call(a, b, out, masked_m, expected_m)` computes the first rows of each expert."""
        m_max = m_max or self.m_max
        (x, sfa), b = self.batched(m_max), self.experts
        laid_out = x, sf_layouts(sfa)[sf_layout]
        expected_m = expected_m or max(1, sum(self.rows) // len(self.rows))
        d = run_masked(laid_out, b, self.rows, expected_m, call=call)
        check_masked(d, (x, sfa), b, self.rows, self.exact)


@dataclass(frozen=True)
class Scenario:
    """One kind of call that an engine makes.

    Attributes:
        engine: its name and version.
        run: makes the call; fails where its result is wrong.
    """

    engine: str
    run: Callable[[Site], None]

    def __str__(self) -> str:
        return f"{self.engine}: {self.run.__name__.replace('_', ' ')}"


SCENARIOS: list[Scenario] = []


def engine(name: str) -> Callable[[Callable[[Site], None]], Callable[[Site], None]]:
    """A decorator: the function is a scenario of this engine."""

    def decorate(run: Callable[[Site], None]) -> Callable[[Site], None]:
        SCENARIOS.append(Scenario(name, run))
        return run

    return decorate


def resolve(*names: str) -> Call:
    """The first of these names that there is, as engines look for the newest one."""
    found: Iterable[Call | None] = (getattr(deep_gemm, name, None) for name in names)
    return next(call for call in found if callable(call))
