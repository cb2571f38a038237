"""Whole calls by version 1's names, refused: no kernel is needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import k_grouped_wgrad_gemm_fp8_fp8_fp32_nt, wgrad_gemm_fp8_fp8_fp32_nt
from tests.host.test_refused_grouped_calls import (
    FP8,
    FP32,
    Arguments,
    data_of,
    of,
    refuse_call,
    sf_of,
    zeros,
)

M, N, K = 64, 256, 512
KS = [128, 0, 144, 240]
G, TOTAL, BLOCKS = len(KS), sum(KS), 1 + 0 + 2 + 2


def wgrad() -> Arguments:
    return {
        "lhs": (zeros(FP8, M, K), zeros(FP32, M, K // 128)),
        "rhs": (zeros(FP8, N, K), zeros(FP32, K // 128, N)),
        "out": torch.full((M, N), 7.0),
    }


def k_grouped() -> Arguments:
    return {
        "lhs": (zeros(FP8, M * TOTAL), zeros(FP32, BLOCKS, M)),
        "rhs": (zeros(FP8, N * TOTAL), zeros(FP32, BLOCKS, N)),
        "out": torch.full((G, M, N), 7.0),
        "batch_sizes": KS,
    }


Case = tuple[Callable[[Arguments], Arguments], str, str, str]
WGRAD: dict[str, Case] = {
    "lhs is no pair": (lambda good: {"lhs": zeros(FP8, M, K)}, "a", "pair", "Tensor"),
    "lhs is flat": (data_of("lhs", torch.Tensor.flatten), "a[0]", "2 dimension", r"\(32768,\)"),
    "scale factors of other rows": (
        sf_of("lhs", lambda sf: sf[1:]),
        *("a[1]", r"= \(64, 4\)", r"\(63, 4\)"),
    ),
    "packed scale factors": (sf_of("rhs", torch.Tensor.int), "b[1]", "FP32 on SM90", "int32"),
    "FP16 output": (of("out", torch.Tensor.half), "d", "float32", "float16"),
    "output of other rows": (of("out", lambda d: d[1:]), "d", r"\[m, n\]", r"\(63, 256\)"),
}
K_GROUPED: dict[str, Case] = {
    "one output": (of("out", lambda d: d[0]), "d", "3 dimensions, the first one 4", "64, 256"),
    "other groups": (of("out", lambda d: d[1:]), "d", "the first one 4", r"\(3, 64, 256\)"),
    "a size below 0": (
        lambda good: {"batch_sizes": [*KS[:3], -16]},
        *("batch_sizes", "no negative number", "-16"),
    ),
    "other sizes": (
        lambda good: {"batch_sizes": [128, 0, 128, 240]},
        *("a[0]", r"\(31744,\)", r"\(32768,\)"),
    ),
    "scale factors of a matrix": (
        sf_of("rhs", torch.Tensor.t),
        *("b[1]", r"\(5, 256\), as batch_sizes asks", r"\(256, 5\)"),
    ),
    "a size that is no multiple of 16": (
        lambda good: {"batch_sizes": [136, 0, 136, 240]},
        *("a[1]", r"shape \(6, 64\)", r"\(5, 64\)"),
    ),
}


@pytest.mark.parametrize("name", WGRAD)
def test_refuses_wgrad(name: str) -> None:
    change, *refusal = WGRAD[name]
    good = wgrad()
    with_d = {**good, "d": good["out"]}
    refuse_call(called(wgrad_gemm_fp8_fp8_fp32_nt), with_d, change(good), *refusal)


@pytest.mark.parametrize("name", K_GROUPED)
def test_refuses_k_grouped_wgrad(name: str) -> None:
    change, *refusal = K_GROUPED[name]
    good = k_grouped()
    with_d = {**good, "d": good["out"]}
    refuse_call(called(k_grouped_wgrad_gemm_fp8_fp8_fp32_nt), with_d, change(good), *refusal)


def called(function: Callable[..., None]) -> Callable[..., None]:
    """A call without the name by which `refuse_call` looks for the output."""
    return lambda d, **arguments: function(**arguments)
