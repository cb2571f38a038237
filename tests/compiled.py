"""Calls under torch.compile, each without a graph break and checked to the bit; for any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast
from unittest import mock

import pytest
import torch
import torch._dynamo
import torch._inductor.config

import deep_gemm
from deep_gemm import (
    fp8_gemm_nn,
    fp8_gemm_nt,
    fp8_gemm_tn,
    fp8_gemm_tt,
    gemm,
    m_grouped_fp8_gemm_nn_contiguous,
)
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.utils.math import align
from tests.grouped_calls import (
    check_contiguous,
    check_dense,
    check_k_grouped,
    check_masked,
    check_values,
    run_contiguous,
    run_dense,
    run_k_grouped,
    run_masked,
)
from tests.grouped_operands import Operand, exact_operand, flat_operand, row_ends, row_ids
from tests.mqa import BF16, Pages, Shape, paged_cache

Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
"""Compiles a function."""


class Compiled:
    """Compiles functions whole, each from nothing.

    Attributes:
        operators: those of ours that are in the graphs, in the order of compiles.
    """

    def __init__(self, backend: str) -> None:
        self.operators: list[str] = []
        self._backend = torch._dynamo.lookup_backend(backend)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        torch._dynamo.reset()
        compiled = torch.compile(function, fullgraph=True, backend=self._run)
        return cast("Callable[..., Any]", compiled)

    def _run(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
        targets = (str(node.target) for node in graph.graph.nodes)
        self.operators += [name.split(".")[1] for name in targets if name.startswith("deep_gemm.")]
        return self._backend(graph, inputs)


def check_dense_calls(wrap: Wrap, device: str) -> None:
    """Every order of operands, both recipes, both types of D, and every C."""
    a, b = exact_operand((20, 144), 1, device), exact_operand((48, 144), 128, device, 1)
    call = wrap(fp8_gemm_nt)
    for c in ("none", "d", "other"):
        d, values = run_dense(a, b, c=c, call=call)
        check_dense(d, a, b, c=values)
    by_row = exact_operand((48, 144), 1, device, 1)
    d, values = run_dense(a, by_row, torch.float32, 1, "d", call=call, row_stride=64)
    check_dense(d, a, by_row, 1, values)


def check_orders(wrap: Wrap, device: str) -> None:
    """A or B stored the other way round, which is a view in the graph."""
    a, b = exact_operand((32, 144), 1, device), exact_operand((48, 144), 128, device, 1)
    for function, x, y in (
        (fp8_gemm_nn, a, stored_transposed(b)),
        (fp8_gemm_tn, stored_transposed(a), stored_transposed(b)),
        (fp8_gemm_tt, stored_transposed(a), b),
    ):
        d = torch.empty(32, 48, device=device, dtype=torch.bfloat16)
        wrap(function)(x, y, d)
        check_dense(d, a, b)


def stored_transposed(operand: Operand) -> Operand:
    data, sf = operand
    return data.mT.contiguous(), sf.mT.contiguous()


def check_grouped_calls(wrap: Wrap, device: str) -> None:
    """Both contiguous layouts, NT and NN, and masked."""
    a, b = exact_operand((48, 144), 1, device), exact_operand((2, 48, 144), 128, device, 1)
    for layout in (row_ids([(1, 5), (0, 20)], 16), row_ends([20, 5], 16)):
        d = run_contiguous(a, b, layout, call=wrap(deep_gemm.m_grouped_fp8_gemm_nt_contiguous))
        check_contiguous(d, a, b, layout)
    call = wrap(m_grouped_fp8_gemm_nn_contiguous)
    d = run_contiguous(a, stored_transposed(b), layout, call=call, n=48)
    check_contiguous(d, a, b, layout)
    rows = exact_operand((2, 20, 144), 1, device, 2)
    d = run_masked(rows, b, [3, 17], call=wrap(deep_gemm.m_grouped_fp8_gemm_nt_masked))
    check_masked(d, rows, b, [3, 17])


def check_k_grouped_calls(wrap: Wrap, device: str) -> None:
    """Sizes on the host or not, in place or not."""
    ks = [128, 0, 256]
    a, b = flat_operand(20, ks, device), flat_operand(24, ks, device, 7)
    call = wrap(deep_gemm.k_grouped_fp8_gemm_nt_contiguous)
    for on_host, c in ((True, "d"), (False, "none")):
        d, values = run_k_grouped(a, b, ks, c=c, sizes_on_host=on_host, call=call)
        check_k_grouped(d, a, b, ks, values)


def check_casts(wrap: Wrap, device: str) -> None:
    """Each cast gives what it gives without a compiler: values, strides and dtypes."""
    x = torch.randn(2, 20, 256, device=device, dtype=torch.bfloat16)
    rows = torch.tensor([7, 20], device=device, dtype=torch.int32)
    matrix, tall = x[0], torch.randn(128, 24, device=device)

    def per_token(**options: Any) -> Callable[..., Any]:
        return lambda tensor: deep_gemm.quantize_per_token(tensor, **options)

    casts: list[tuple[Callable[..., Any], Sequence[torch.Tensor]]] = [
        (per_token(), (matrix,)),
        (per_token(use_ue8m0=True, use_packed_ue8m0=True, gran_k=32, mn_major=False), (matrix,)),
        (lambda t: deep_gemm.quantize_swiglu(t, clamp=2.0), (matrix,)),
        (deep_gemm.quantize_silu_mul, (matrix, x[1])),
        (deep_gemm.quantize_per_channel, (x,)),
        (deep_gemm.quantize_per_block, (matrix,)),
        (lambda t: deep_gemm.per_token_cast_to_fp8(t, True, 64, True), (matrix,)),
        (
            lambda t: deep_gemm.per_channel_cast_to_fp8(t, False),
            (tall,),
        ),
        (lambda t: deep_gemm.per_block_cast_to_fp8(t, False), (matrix,)),
        (lambda t: deep_gemm.per_custom_dims_cast_to_fp8(t, (0,), False), (matrix,)),
    ]
    functions, inputs = zip(*casts, strict=True)

    def every(inputs: Any) -> list[Any]:
        return [function(*each) for function, each in zip(functions, inputs, strict=True)]

    for mine, wanted in zip(wrap(every)(inputs), every(inputs), strict=True):
        check_same(mine, wanted)
    outputs = deep_gemm.quantize_per_token(x.zero_().add_(1), masked_m=rows)
    out = tuple(torch.zeros_like(tensor) for tensor in outputs)
    wrap(lambda t, n, *o: deep_gemm.quantize_per_token(t, masked_m=n, out=o))(x, rows, *out)
    assert_bitwise_equal(out[0][0, :7], outputs[0][0, :7])
    assert not out[0][0, 7:].view(torch.uint8).any(), "rows from masked_m on"


def check_mqa_calls(wrap: Wrap, device: str) -> None:
    """Logits of keys in one matrix and in pages, with the metadata: values, strides and dtypes."""
    shape = Shape(8, 32)
    q, weights = shape.queries(6, device, 0)
    kv = shape.keys(150, device, 0)
    starts = torch.arange(6, dtype=torch.int32, device=device)
    ends = starts * 20 + 30

    def of_matrix(*tensors: torch.Tensor) -> list[torch.Tensor]:
        queries, keys, key_sf, *others = tensors
        operands = queries, (keys, key_sf), *others
        return [
            deep_gemm.fp8_mqa_logits(*operands),
            deep_gemm.fp8_mqa_logits(*operands, True, 130, BF16),
        ]

    inputs = q, *kv, weights, starts, ends
    check_same(wrap(of_matrix)(*inputs), of_matrix(*inputs))

    pages = Pages(((3, 40), (100, 140), (0, 1)), 64, 160)
    _, cache, table = paged_cache(shape, pages, device, 0)

    def of_pages(*tensors: torch.Tensor) -> list[torch.Tensor]:
        queries, cache, weights, lens, table = tensors
        schedule = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 3)
        paged = queries, cache, weights, lens, table, schedule, 160, True
        return [schedule, deep_gemm.fp8_paged_mqa_logits(*paged)]

    inputs = q.unflatten(0, (3, 2)), cache, weights, pages.context_lens(device), table
    check_same(wrap(of_pages)(*inputs), of_pages(*inputs))


def check_same(mine: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> None:
    """Tensors of the same dtype, sizes, strides and bits."""
    for tensor, like in zip(mine, wanted, strict=True):
        assert (tensor.dtype, tensor.shape) == (like.dtype, like.shape)
        assert tensor.stride() == like.stride()
        assert_bitwise_equal(tensor, like)


class Layer(torch.nn.Module):
    """What a model does: cast, multiply, and plain PyTorch around it.

    Scale factors are laid out as TMA wants them, with columns padded to 16 bytes, by pointwise code
    whose result a compiler may lay out as it likes.
    """

    def __init__(self, b: Operand, gran_n: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(b[0], requires_grad=False)
        self.register_buffer("sfb", b[1])
        self.gran_n = gran_n

    def forward(self, data: torch.Tensor, sf: torch.Tensor) -> torch.Tensor:
        m, num_k_blocks = sf.shape
        strides = 1, align(m, 4)
        sfa = torch.empty_strided(sf.shape, strides, device=sf.device).copy_(sf * 2 * 0.5)
        d = torch.empty(m, self.weight.shape[0], device=sf.device, dtype=torch.bfloat16)
        recipe = 1, self.gran_n, 128
        fp8_gemm_nt((data, sfa), (self.weight, self.sfb), d, recipe=recipe)
        return d.float() + 1


def check_layer(wrap: Wrap, device: str, gran_n: int, m: int = 22) -> None:
    """A compiled module, with scale factors whose strides Inductor would like to be others, but
    which the operator gets as they were traced."""
    seen, original = [], gemm.run_gemm

    def run_gemm(x: Operand, *others: Any) -> None:
        if not torch.compiler.is_dynamo_compiling():
            seen.append(x[1].stride())
        original(x, *others)

    a, b = exact_operand((m, 400), 1, device), exact_operand((48, 400), gran_n, device, 1)
    # Inductor's cache would give back code that was made for an operator with other tags.
    with (
        torch.no_grad(),
        torch._inductor.config.patch(force_disable_caches=True),
        mock.patch.object(gemm, "run_gemm", run_gemm),
    ):
        result = wrap(Layer(b, gran_n))(*a)
    assert seen == [(1, align(m, 4))] or not hasattr(torch.Tag, "needs_exact_strides")
    check_values(result - 1, lambda f: f(a, b, gran_n=gran_n).bfloat16().float(), exact=True)


def check_rewritten_strides(device: str) -> None:
    """Scale factors whose padded strides were "simplified" give the same bits: (1, align(m, 4)),
    as casts make them, became (1, m)."""
    a = exact_operand((22, 400), 1, device)
    for gran_n in (128, 1):
        b = exact_operand((48, 400), gran_n, device, 1)
        padded = torch.empty_strided(a[1].shape, (1, 24), device=device).copy_(a[1])
        dense = torch.empty_strided(a[1].shape, (1, 22), device=device).copy_(a[1])
        for sfa in (padded, dense):
            d, _ = run_dense((a[0], sfa), b, gran_n=gran_n, call=torch_operator)
            check_dense(d, a, b, gran_n)


def torch_operator(
    a: Operand, b: Operand, d: torch.Tensor, c: torch.Tensor | None, recipe: Sequence[int]
) -> None:
    """The operator as Inductor's code calls it."""
    heads = (0, 0, 0)
    torch.ops.deep_gemm.fp8_gemm_nt(*a, *b, d, c, False, recipe, None, None, heads)


def check_sizes_are_dynamic(wrap: Wrap, device: str) -> None:
    """One compile serves every m."""
    b = exact_operand((48, 144), 128, device, 1)

    def call(data: torch.Tensor, sf: torch.Tensor) -> torch.Tensor:
        d = torch.empty(data.shape[0], 48, device=data.device, dtype=torch.bfloat16)
        fp8_gemm_nt((data, sf), b, d)
        return d

    compiled = wrap(call)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for m in (16, 21, 40):
            a = exact_operand((m, 144), 1, device)
            for tensor in a:
                torch._dynamo.mark_dynamic(tensor, 0)
            check_dense(compiled(*a), a, b)


def check_refusal_at_run_time(wrap: Wrap, device: str) -> None:
    """What only a call can refuse is refused by the compiled code's call, in our words."""
    a, b = exact_operand((20, 144), 1, device), exact_operand((48, 144), 128, device)
    d = torch.empty(20, 40, device=device, dtype=torch.bfloat16)
    with pytest.raises(deep_gemm.ArgumentError, match=r"argument d: must have shape \[m, n\]"):
        wrap(fp8_gemm_nt)(a, b, d)
