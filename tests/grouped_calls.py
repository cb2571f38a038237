"""Calls of the GEMMs on guarded outputs, and the checks that every output passes.

Outputs are full of NaN when a call begins and lie between guards; each `run_` function checks
everything that must not have been written, each `check_` function everything that must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch

from deep_gemm import (
    fp8_gemm_nt,
    gemm,
    get_mk_alignment_for_contiguous_layout,
    grouped_gemm,
    k_grouped_fp8_gemm_nt_contiguous,
    k_grouped_gemm,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
    set_mk_alignment_for_contiguous_layout,
)
from deep_gemm.call_cache import CallCache
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.testing import (
    GuardedOutput,
    assert_bitwise_equal,
    by_k_group,
    by_masked_group,
    by_row_group,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    guarded_output,
    max_scaled_error,
)
from tests.grouped_operands import PADDING, UNTOUCHED, Layout, Operand

MAX_ERROR_OF_YARDSTICK = 2.0
"""The tensor cores' 13 fractional bits of each product add less than plain FP32 code has."""

Gemm = Callable[..., torch.Tensor]


@contextmanager
def mk_alignment(alignment: int) -> Iterator[None]:
    """The alignment set to a value, and back."""
    before = get_mk_alignment_for_contiguous_layout()
    set_mk_alignment_for_contiguous_layout(alignment)
    try:
        yield
    finally:
        set_mk_alignment_for_contiguous_layout(before)


@contextmanager
def forced(config: GemmConfig) -> Iterator[None]:
    """Every call is solved with this configuration, whatever would have been chosen."""

    def chosen(problem: GemmProblem) -> Selection:
        return Selection(config, best_band(problem, config))

    with ExitStack() as stack:
        for module in (gemm, grouped_gemm, k_grouped_gemm):
            stack.enter_context(mock.patch.object(module, "chosen", chosen))
            stack.enter_context(mock.patch.object(module, "_calls", CallCache()))
        yield


def finish(out: GuardedOutput) -> None:
    """Waits for the kernel, and checks the guard."""
    if out.buffer.is_cuda:
        torch.cuda.synchronize()
    out.check()


def output(
    m: int, n: int, dtype: torch.dtype, device: torch.device, row_stride: int | None = None
) -> GuardedOutput:
    guard_rows = 256 if device.type == "cuda" else 16
    return guarded_output(m, n, dtype, device, row_stride, guard_rows)


def check_values(d: torch.Tensor, compute: Callable[[Gemm], torch.Tensor], exact: bool) -> None:
    """Every element has the right bits, or is about as near to the FP64 result as FP32 code gets.

    Args:
        d: the result.
        compute: what a function for one product makes of the operands.
        exact: the operands give sums that FP32 holds.
    """
    reference = compute(fp8_gemm_nt_reference)
    if exact:
        assert_bitwise_equal(d, reference.to(d.dtype))
        return
    error = max_scaled_error(d, reference)
    yardstick = max_scaled_error(compute(fp8_gemm_nt_yardstick), reference)
    assert error <= MAX_ERROR_OF_YARDSTICK * yardstick, f"{error=} {yardstick=}"


# Contiguous


def run_contiguous(
    a: Operand,
    b: Operand,
    layout: Layout,
    dtype: torch.dtype = torch.bfloat16,
    row_stride: int | None = None,
    call: Callable[..., None] = m_grouped_fp8_gemm_nt_contiguous,
    n: int | None = None,
) -> torch.Tensor:
    """D of a contiguous product; padding is zero, and what belongs to nobody is as it was."""
    device = a[0].device
    n = b[0].shape[1] if n is None else n
    out = output(a[0].shape[0], n, dtype, device, row_stride)
    before = out.view.clone()
    with mk_alignment(layout.alignment):
        call(a, b, out.view, layout.grouped_layout.to(device), **layout.options)
    finish(out)
    row_groups = layout.row_groups.to(device)
    assert (out.view[row_groups == PADDING] == 0).all(), "padding is not zero"
    untouched = row_groups == UNTOUCHED
    assert_bitwise_equal(out.view[untouched], before[untouched], "rows of no group")
    return out.view


def check_contiguous(
    d: torch.Tensor, a: Operand, b: Operand, layout: Layout, exact: bool = True
) -> None:
    row_groups = layout.row_groups.to(d.device)
    rows = row_groups >= 0
    check_values(d[rows], lambda gemm: by_row_group(gemm, a, b, row_groups)[rows], exact)


# Masked


def run_masked(
    a: Operand,
    b: Operand,
    masked_m: Sequence[int],
    expected_m: int | None = None,
    dtype: torch.dtype = torch.bfloat16,
    call: Callable[..., None] = m_grouped_fp8_gemm_nt_masked,
) -> torch.Tensor:
    """D of a masked product; rows from masked_m on are as they were."""
    device = a[0].device
    (num_groups, m_max, _), n = a[0].shape, b[0].shape[1]
    out = output(num_groups * m_max, n, dtype, device)
    d = out.view.view(num_groups, m_max, n)
    before = d.clone()
    sizes = torch.tensor(masked_m, dtype=torch.int32, device=device)
    if expected_m is None:
        expected_m = max(1, sum(masked_m) // num_groups)
    call(a, b, d, sizes, expected_m)
    finish(out)
    unused = ~valid_rows(masked_m, m_max).to(device)
    assert_bitwise_equal(d[unused], before[unused], "rows from masked_m on")
    return d


def valid_rows(masked_m: Sequence[int], m_max: int) -> torch.Tensor:
    """[groups, m_max] bool."""
    return torch.arange(m_max)[None, :] < torch.tensor(masked_m)[:, None]


def check_masked(
    d: torch.Tensor, a: Operand, b: Operand, masked_m: Sequence[int], exact: bool = True
) -> None:
    rows = valid_rows(masked_m, d.shape[1]).to(d.device)
    check_values(d[rows], lambda gemm: by_masked_group(gemm, a, b, masked_m)[rows], exact)


# With C


def added(product: torch.Tensor, c: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """C + product as documented: the product is rounded to D's type, and so is the sum."""
    rounded = product.to(dtype)
    return rounded if c is None else (rounded.double() + c.double()).to(dtype)


def with_c(d: torch.Tensor, c: str) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The C that is passed for an output D: "none", "d" itself or an "other" tensor; its values."""
    if c == "none":
        return None, None
    generator = torch.Generator(d.device).manual_seed(5)
    values = torch.randint(-64, 65, d.shape, device=d.device, generator=generator).to(d.dtype)
    return (d.copy_(values) if c == "d" else values), values.clone()


def run_dense(
    a: Operand,
    b: Operand,
    dtype: torch.dtype = torch.bfloat16,
    gran_n: int = 128,
    c: str = "none",
    call: Callable[..., None] = fp8_gemm_nt,
    row_stride: int | None = None,
    sizes: tuple[int, int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """D of one product and the C that went in: "none", "d" for in place, or an "other" tensor."""
    m, n = sizes or (a[0].shape[0], b[0].shape[0])
    out = output(m, n, dtype, a[0].device, row_stride)
    passed, values = with_c(out.view, c)
    call(a, b, out.view, passed, recipe=(1, gran_n, 128))
    finish(out)
    if c == "other" and passed is not None and values is not None:
        assert_bitwise_equal(passed, values, "c")
    return out.view, values


def check_dense(
    d: torch.Tensor, a: Operand, b: Operand, gran_n: int = 128, c: torch.Tensor | None = None
) -> None:
    """For exact operands."""
    assert_bitwise_equal(d, added(fp8_gemm_nt_reference(a, b, gran_n=gran_n), c, d.dtype))


def run_k_grouped(
    a: Operand,
    b: Operand,
    ks: Sequence[int],
    dtype: torch.dtype = torch.float32,
    c: str = "none",
    sizes_on_host: bool = True,
    call: Callable[..., None] = k_grouped_fp8_gemm_nt_contiguous,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """D of a k-grouped product, [groups, m, n], and the C that went in, as in `run_dense`."""
    device = a[0].device
    shape = (len(ks), a[1].shape[0], b[1].shape[0])
    out = output(shape[0] * shape[1], shape[2], dtype, device)
    d = out.view.view(shape)
    passed, values = with_c(d, c)
    sizes = torch.tensor(ks, dtype=torch.int32, device=device)
    call(a, b, d, list(ks) if sizes_on_host else None, sizes, passed)
    finish(out)
    if c == "other" and passed is not None and values is not None:
        assert_bitwise_equal(passed, values, "c")
    return d, values


def check_k_grouped(
    d: torch.Tensor, a: Operand, b: Operand, ks: Sequence[int], c: torch.Tensor | None = None
) -> None:
    """For exact operands."""
    product = by_k_group(fp8_gemm_nt_reference, a, b, ks)
    assert_bitwise_equal(d, added(product, c, d.dtype))
