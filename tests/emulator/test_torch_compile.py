"""torch.compile around our functions, on CPU tensors: traced as operators, run in the emulator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import deep_gemm
from deep_gemm import fp8_gemm_nt, per_token_cast_to_fp8, quantize_per_token
from tests.compiled import (
    Compiled,
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
from tests.emulator.arch import each_arch, sm90_only
from tests.grouped_operands import exact_operand
from tests.mqa import FP32, Shape

__all__ = ["each_arch"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:CPU tensors"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

needs_cxx = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="Inductor needs a C++ compiler",
)
CHECKS = [
    *(check_dense_calls, check_orders, check_grouped_calls, check_k_grouped_calls),
    check_mqa_calls,
]


@pytest.mark.parametrize("check", CHECKS)
def test_gemms_compile_whole(check: Any) -> None:
    check(Compiled("aot_eager"), "cpu")


FIRST_USE = """
import torch
import deep_gemm
a = torch.ones(16, 128).to(torch.float8_e4m3fn), torch.ones(16, 1)
b = torch.ones(16, 128).to(torch.float8_e4m3fn), torch.ones(1, 1)
d = torch.zeros(16, 16, dtype=torch.bfloat16)
torch.compile(lambda: deep_gemm.fp8_gemm_nt(a, b, d), backend="eager", fullgraph=True)()
print(d.unique().tolist())
"""


def test_a_name_whose_first_use_is_traced() -> None:
    """It is imported while Dynamo looks on."""
    run = [sys.executable, "-W", "ignore", "-c", FIRST_USE]
    result = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "[128.0]\n"), result.stderr


def test_a_graph_that_is_only_traced() -> None:
    check_dense_calls(Compiled("eager"), "cpu")


def test_casts_compile_whole() -> None:
    check_casts(Compiled("aot_eager"), "cpu")


@sm90_only
@needs_cxx
@pytest.mark.parametrize("gran_n", [128, 1])
def test_a_layer_under_inductor(gran_n: int) -> None:
    check_layer(Compiled("inductor"), "cpu", gran_n)


def test_rewritten_strides_of_scale_factors_are_right() -> None:
    check_rewritten_strides("cpu")


def test_sizes_are_dynamic() -> None:
    check_sizes_are_dynamic(Compiled("aot_eager"), "cpu")


def test_the_compiled_call_refuses() -> None:
    check_refusal_at_run_time(Compiled("aot_eager"), "cpu")


def test_operators_ask_for_the_strides_that_were_traced() -> None:
    wanted = ("needs_exact_strides", "needs_fixed_stride_order")
    tag = next(getattr(torch.Tag, name) for name in wanted if hasattr(torch.Tag, name))
    for name in ("fp8_gemm_nt", "m_grouped_fp8_gemm_nt", "k_grouped_fp8_gemm"):
        assert tag in getattr(torch.ops.deep_gemm, name).default.tags


def test_a_traced_call_is_one_operator() -> None:
    compile_ = Compiled("eager")
    check_orders(compile_, "cpu")
    assert compile_.operators == ["fp8_gemm_nt"] * 3


def test_eager_calls_are_no_operators() -> None:
    class Recorded(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> object:
            assert func.namespace != "deep_gemm"
            return func(*args, **(kwargs or {}))

    a, b = exact_operand((20, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu")
    d = torch.empty(20, 48, dtype=torch.bfloat16)
    lens = torch.tensor([3], dtype=torch.int32)
    with Recorded():
        deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 3)
        for _ in range(2):
            fp8_gemm_nt(a, b, d)
        quantize_per_token(torch.ones(4, 128))
        per_token_cast_to_fp8(torch.ones(4, 128), use_ue8m0=False)


def test_export_records_operators() -> None:
    """Where no bytecode is traced, tensors without memory come to us."""

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor, sfb: torch.Tensor) -> torch.Tensor:
            d = x.new_empty(x.shape[0], y.shape[0])
            fp8_gemm_nt(quantize_per_token(x, use_ue8m0=True), (y, sfb), d)
            return d

    inputs = torch.ones(4, 128, dtype=torch.bfloat16), *exact_operand((16, 128), 128, "cpu")
    program = torch.export.export(Model(), inputs, strict=False)
    targets = [str(node.target) for node in program.graph.nodes if "deep_gemm" in str(node.target)]
    assert [name.split(".")[1] for name in targets] == ["quantize_per_token", "fp8_gemm_nt"]
    assert torch.equal(program.module()(*inputs), Model()(*inputs))


def test_operators_keep_their_schemas() -> None:
    """PyTorch's own checks: a trace sees what a call does, and only D is written."""
    a, b = exact_operand((20, 144), 1, "cpu"), exact_operand((48, 144), 128, "cpu")
    d = torch.empty(20, 48, dtype=torch.bfloat16)
    tests = ("test_faketensor", "test_aot_dispatch_dynamic")
    arguments = (*a, *b, d, None, False, None, None, None, [0, 0, 0])
    torch.library.opcheck(torch.ops.deep_gemm.fp8_gemm_nt.default, arguments, test_utils=tests)
    x = torch.randn(20, 256, dtype=torch.bfloat16)
    cast = torch.ops.deep_gemm.per_token_cast_to_fp8.default
    torch.library.opcheck(cast, (x, True, 32, True), test_utils=tests)
    shape, bounds = Shape(8, 32), torch.tensor([4, 9], dtype=torch.int32)
    q, weights = shape.queries(2, "cpu", 0)
    arguments = (q, *shape.keys(20, "cpu", 0), weights, bounds, bounds + 5, None, True, FP32)
    torch.library.opcheck(torch.ops.deep_gemm.mqa_logits.default, arguments, test_utils=tests)
