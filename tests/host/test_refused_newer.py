"""Arguments and operands of other versions: neutral ones are taken, others refused with what to do
instead, before anything is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import deep_gemm
from deep_gemm import (
    fp8_gemm_nn,
    fp8_gemm_nt,
    fp8_gemm_tn,
    fp8_gemm_tt,
    k_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nn_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from deep_gemm.errors import ArgumentError, DeepGemmError
from tests.host.refusals import refuses
from tests.host.test_refused_gradient_calls import k_grouped
from tests.host.test_refused_grouped_calls import (
    BF16,
    FP8,
    FP32,
    Arguments,
    contiguous,
    data_of,
    masked,
    refuse_call,
    zeros,
)

M, N, K = 64, 256, 512


def dense() -> Arguments:
    return {
        "a": (zeros(FP8, M, K), zeros(FP32, M, K // 128)),
        "b": (zeros(FP8, N, K), zeros(FP32, N // 128, K // 128)),
        "d": torch.full((M, N), 7.0, dtype=BF16),
    }


DENSE = fp8_gemm_nt, fp8_gemm_nn, fp8_gemm_tn, fp8_gemm_tt
CALLS: list[tuple[Callable[..., None], Callable[[], Arguments]]] = [
    *((function, dense) for function in DENSE),
    (m_grouped_fp8_gemm_nt_contiguous, contiguous),
    (m_grouped_fp8_gemm_nn_contiguous, contiguous),
    (m_grouped_fp8_gemm_nt_masked, masked),
    (k_grouped_fp8_gemm_nt_contiguous, k_grouped),
]
WITH_ALPHA = [(function, 2.0, "must be None or 1: .*scale factors", r"2\.0") for function in DENSE]
OVERLAP = m_grouped_fp8_gemm_nt_masked
K_GROUPED = k_grouped_fp8_gemm_nt_contiguous


def named(value: object) -> str | None:
    return value.__name__ if callable(value) else None


@pytest.mark.parametrize(("function", "good"), CALLS, ids=named)
def test_refuses_an_epilogue(function: Callable[..., None], good: Callable[[], Arguments]) -> None:
    refuse_call(function, good(), {"epilogue": "Identity"}, "epilogue", "apply it to D", "Identity")


@pytest.mark.parametrize(("function", "alpha", "rule", "got"), WITH_ALPHA, ids=named)
def test_refuses_a_factor(
    function: Callable[..., None], alpha: object, rule: str, got: str
) -> None:
    refuse_call(function, dense(), {"alpha": alpha}, "alpha", rule, got)
    tensor = torch.ones(1)
    refuse_call(function, dense(), {"alpha": tensor}, "alpha", rule, r"tensor\(\[1\.\]\)")


@pytest.mark.parametrize(
    ("function", "good", "argument", "value"),
    [
        (OVERLAP, masked, "enable_overlap", True),
        (OVERLAP, masked, "max_block_n", 256),
        (OVERLAP, masked, "signal", zeros(torch.int32, 3)),
        (K_GROUPED, k_grouped, "use_psum_layout", True),
        (K_GROUPED, k_grouped, "use_padded_sf_layout", True),
    ],
    ids=named,
)
def test_refuses_what_only_other_versions_do(
    function: Callable[..., None], good: Callable[[], Arguments], argument: str, value: object
) -> None:
    refuse_call(function, good(), {argument: value}, argument, "must be (None|False)", "")


@pytest.mark.parametrize("operand", ["a", "b"])
@pytest.mark.parametrize(("function", "good"), CALLS, ids=named)
def test_refuses_fp4(
    function: Callable[..., None], good: Callable[[], Arguments], operand: str
) -> None:
    packed = data_of(operand, lambda x: x.view(torch.int8)[..., : x.shape[-1] // 2])(good())
    rule = r"float8_e4m3fn on SM90 \(packed FP4 operands are for SM100\)"
    refuse_call(function, good(), packed, f"{operand}[0]", rule, "torch.int8")


@pytest.mark.parametrize(
    "neutral",
    [{"alpha": None, "epilogue": None}, {"alpha": 1}, {"alpha": 1.0}],
    ids=str,
)
def test_takes_what_asks_for_nothing(neutral: dict[str, object]) -> None:
    """Of products without rows, which need no kernel."""
    a, d = (zeros(FP8, 0, K), zeros(FP32, 0, 4)), zeros(BF16, 0, N)
    fp8_gemm_nt(a, dense()["b"], d, **neutral)  # type: ignore[arg-type]


def test_grouped_calls_take_what_asks_for_nothing() -> None:
    empty = {"a": (zeros(FP8, 0, K), zeros(FP32, 0, 4)), "d": zeros(BF16, 0, N)}
    layout = {"grouped_layout": zeros(torch.int32, 0), "epilogue": None}
    m_grouped_fp8_gemm_nt_contiguous(**{**contiguous(), **empty, **layout})  # type: ignore[arg-type]
    with refuses("expected_m", "positive", "0"):
        m_grouped_fp8_gemm_nt_masked(
            **{**masked(), "expected_m": 0},  # type: ignore[arg-type]
            epilogue=None,
            enable_overlap=False,
            max_block_n=None,
            signal=None,
        )


def test_a_recipe_may_be_a_list() -> None:
    """Once as a key of the calls that were seen, and once read."""
    a, d = (zeros(FP8, 0, K), zeros(FP32, 0, 4)), zeros(BF16, 0, N)
    for _ in range(2):
        fp8_gemm_nt(a, dense()["b"], d, recipe=[1, 128, 128])  # type: ignore[arg-type]
        fp8_gemm_nt(a, dense()["b"], d, recipe_a=[1, 128], recipe_b=[128, 128])  # type: ignore[arg-type]
    with refuses("recipe", r"\(1, 128, 128\) or \(1, 1, 128\)", r"\(1, 32, 32\)"):
        fp8_gemm_nt(**{**dense(), "recipe": [1, 32, 32]})  # type: ignore[arg-type]


@pytest.mark.parametrize("recipe", [128, "nk", (128, 128), [1, 128, 128, 1]], ids=str)
def test_refuses_what_is_no_recipe(recipe: object) -> None:
    with refuses("recipe", r"must be \(gran_m, gran_n, gran_k\)", ""):
        fp8_gemm_nt(**{**dense(), "recipe": recipe})  # type: ignore[arg-type]


def test_compiled_dims_where_they_were_before_2_3_are_refused() -> None:
    """Nobody passes them by position; recipe_a has their place since."""
    arguments = dense()
    with refuses("recipe", "excludes recipe_a and recipe_b", "'nk'"):
        fp8_gemm_nt(arguments["a"], arguments["b"], arguments["d"], None, (1, 128, 128), "nk")  # type: ignore[arg-type]


def test_errors_are_of_the_kinds_that_engines_catch() -> None:
    """RuntimeError for a broken contract, TypeError for wrong arguments, AttributeError for what
    there is not."""
    assert issubclass(DeepGemmError, RuntimeError)
    with pytest.raises(RuntimeError) as refused:
        fp8_gemm_nt(**{**dense(), "d": None})  # type: ignore[arg-type]
    assert isinstance(refused.value, ArgumentError)
    for wrong in ((), (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)):
        with pytest.raises(TypeError):
            fp8_gemm_nt(*wrong)
    with pytest.raises(TypeError):
        fp8_gemm_nt(**dense(), no_such_argument=1)  # type: ignore[arg-type, call-arg]
    with pytest.raises(AttributeError):
        deep_gemm.fp8_fp4_mega_moe()
