"""torch.compile around our functions on the GPU: the same checks as in the emulator, Inductor's
code, and its CUDA graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._inductor.config

from tests.compiled import (
    Compiled,
    Layer,
    check_casts,
    check_dense_calls,
    check_grouped_calls,
    check_k_grouped_calls,
    check_layer,
    check_mqa_calls,
    check_orders,
    check_refusal_at_run_time,
    check_rewritten_strides,
    check_sizes_are_dynamic,
)
from tests.grouped_operands import exact_operand

CHECKS = [
    *(check_dense_calls, check_orders, check_grouped_calls, check_k_grouped_calls),
    *(check_mqa_calls, check_casts, check_sizes_are_dynamic, check_refusal_at_run_time),
]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("check", CHECKS)
def test_calls_compile_whole(check: Any, backend: str) -> None:
    check(Compiled(backend), "cuda")


@pytest.mark.parametrize("gran_n", [128, 1])
def test_a_layer_under_inductor(gran_n: int) -> None:
    check_layer(Compiled("inductor"), "cuda", gran_n)


def test_rewritten_strides_of_scale_factors_are_right() -> None:
    check_rewritten_strides("cuda")


def test_a_layer_in_inductors_graphs() -> None:
    """Captured by Inductor and replayed: the same bits for every input."""
    b = exact_operand((256, 1024), 128, "cuda", 1)
    layer = Layer(b, 128)
    with torch.no_grad(), torch._inductor.config.patch({"triton.cudagraphs": True}):
        compiled = Compiled("inductor")(layer)
        for seed in range(5):
            a = exact_operand((70, 1024), 1, "cuda", seed)
            assert torch.equal(compiled(*a), layer(*a))
