"""Whole calls of the m-grouped products, refused: no kernel, and so no GPU, is needed.

CPU tensors are checked like those on a GPU; a call that is not refused would need a compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch

from deep_gemm import (
    m_grouped_fp8_gemm_nn_contiguous,
    m_grouped_fp8_gemm_nt_contiguous,
    m_grouped_fp8_gemm_nt_masked,
)
from tests.grouped_calls import mk_alignment
from tests.host.refusals import refuses

FP8, BF16, FP32, INT32 = torch.float8_e4m3fn, torch.bfloat16, torch.float32, torch.int32
G, M, N, K = 3, 64, 256, 512

Arguments = dict[str, object]
# What is changed about a good call, and the refusal: argument, rule, what was got.
Case = tuple[Callable[[Arguments], Mapping[str, object]], str, str, str]


def zeros(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.uint8 if dtype == FP8 else dtype).view(dtype)


def misaligned(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, one element behind the beginning of their memory."""
    raw = tensor.contiguous().view(torch.uint8).flatten()
    buffer = torch.zeros(raw.numel() + tensor.element_size(), dtype=torch.uint8)
    buffer[tensor.element_size() :] = raw
    return buffer[tensor.element_size() :].view(tensor.dtype).view(tensor.shape)


def contiguous(m: int = M, n: int = N, k: int = K, num_groups: int = G) -> Arguments:
    return {
        "a": (zeros(FP8, m, k), zeros(FP32, m, -(-k // 128))),
        "b": (zeros(FP8, num_groups, n, k), zeros(FP32, num_groups, -(-n // 128), -(-k // 128))),
        "d": torch.full((m, n), 7.0, dtype=BF16),
        "grouped_layout": zeros(INT32, m),
    }


def masked(m_max: int = M, n: int = N, k: int = K, num_groups: int = G) -> Arguments:
    return {
        "a": (zeros(FP8, num_groups, m_max, k), zeros(FP32, num_groups, m_max, -(-k // 128))),
        "b": contiguous(0, n, k, num_groups)["b"],
        "d": torch.full((num_groups, m_max, n), 7.0, dtype=BF16),
        "masked_m": torch.full((num_groups,), m_max, dtype=INT32),
        "expected_m": 32,
    }


def refuse_call(
    call: Callable[..., None], good: Arguments, change: Mapping[str, object], *refusal: str
) -> None:
    """The changed call is refused, and no output was written."""
    arguments = {**good, **change}
    with refuses(*refusal):
        call(**arguments)
    for d in (good["d"], arguments["d"]):
        if isinstance(d, torch.Tensor) and not d.is_meta:
            assert (d == 7).all(), "a refused call wrote"


def data_of(name: str, change: Callable[[torch.Tensor], object]) -> Callable[..., Arguments]:
    """A change to the data of an operand."""
    return lambda good: {name: (change(good[name][0]), good[name][1])}  # type: ignore[index]


def sf_of(name: str, change: Callable[[torch.Tensor], object]) -> Callable[..., Arguments]:
    """A change to the scale factors of an operand."""
    return lambda good: {name: (good[name][0], change(good[name][1]))}  # type: ignore[index]


def of(name: str, change: Callable[[torch.Tensor], object]) -> Callable[..., Arguments]:
    """A change to an argument that is one tensor."""
    return lambda good: {name: change(good[name])}  # type: ignore[arg-type]


BOTH: dict[str, Case] = {
    "A is no pair": (lambda good: {"a": zeros(FP8, M, K)}, "a", "pair", "Tensor"),
    "B is no pair": (lambda good: {"b": (zeros(FP8, G, N, K),)}, "b", "pair", "tuple"),
    "A is no tensor": (data_of("a", lambda x: None), "a[0]", "torch.Tensor", "NoneType"),
    "SFB is no tensor": (sf_of("b", lambda x: 1.0), "b[1]", "torch.Tensor", "float"),
    "D is no tensor": (of("d", lambda d: None), "d", "torch.Tensor", "NoneType"),
    "A in BF16": (data_of("a", torch.Tensor.bfloat16), "a[0]", "float8_e4m3fn", "bfloat16"),
    "B in E5M2": (
        data_of("b", lambda x: x.view(torch.float8_e5m2)),
        *("b[0]", "float8_e4m3fn", "float8_e5m2"),
    ),
    "D in FP16": (of("d", torch.Tensor.half), "d", "bfloat16 or torch.float32", "float16"),
    "sglang#35388 packed SFA": (sf_of("a", torch.Tensor.int), "a[1]", "FP32 on SM90", "int32"),
    "sglang#35388 packed SFB": (sf_of("b", torch.Tensor.int), "b[1]", "FP32 on SM90", "int32"),
    "SFA in BF16": (sf_of("a", torch.Tensor.bfloat16), "a[1]", "torch.float32", "bfloat16"),
    "DG#407 SFA elsewhere": (sf_of("a", lambda x: x.to("meta")), "a[1]", "on cpu", "meta"),
    "DG#407 SFB elsewhere": (sf_of("b", lambda x: x.to("meta")), "b[1]", "on cpu", "meta"),
    "B elsewhere": (data_of("b", lambda x: x.to("meta")), "b[0]", "on cpu", "meta"),
    "D elsewhere": (of("d", lambda d: d.to("meta")), "d", "on cpu", "meta"),
    "A on no device for kernels": (
        data_of("a", lambda x: x.to("meta")),
        *("a[0]", "CUDA device, or on the CPU", "meta"),
    ),
    "B of another K": (
        data_of("b", lambda x: x[..., :384]),
        *("b[0]", r"\[groups, n, k\] = \(3, 256, 512\)", r"\(3, 256, 384\)"),
    ),
    "B without groups": (data_of("b", lambda x: x[0]), "b[0]", "3 dimension", r"\(256, 512\)"),
    "no groups": (
        lambda good: {"b": (zeros(FP8, 0, N, K), zeros(FP32, 0, 2, 4))},
        *("b[0]", "at least one group", r"\(0, 256, 512\)"),
    ),
    "SFA transposed": (
        sf_of("a", lambda x: x.transpose(-1, -2)),
        *("a[1]", r"ceil\(64 / 1\), ceil\(512 / 128\)\]", r"\(.*4, 64\)"),
    ),
    "SFB per token": (
        sf_of("b", lambda x: zeros(FP32, G, N, 4)),
        *("b[1]", r"\(3, 2, 4\)", r"\(3, 256, 4\)"),
    ),
    "SFB of one group": (sf_of("b", lambda x: x[0]), "b[1]", "3 dimension", r"\(2, 4\)"),
    "vllm#49928 SFA simplified": (
        sf_of("a", lambda x: x.flatten()),
        *("a[1]", "dimension", r"shape \(\d+,\)"),
    ),
    "D of another N": (of("d", lambda d: d[..., :128]), "d", r"256\)", r"128\)"),
    "column-major D": (
        of("d", lambda d: d.transpose(-1, -2).contiguous().transpose(-1, -2)),
        *("d", "row-major", "strides"),
    ),
    "rows of A overlap": (
        data_of("a", lambda x: x[..., :1, :].expand(x.shape)),
        *("a[0]", "overlap", "strides"),
    ),
    "rows of D at 520 bytes": (
        of("d", lambda d: torch.full((*d.shape[:-1], N + 4), 7.0, dtype=BF16)[..., :N]),
        *("d", "row stride must be a multiple of 16 bytes", "520 bytes"),
    ),
    "misaligned A": (data_of("a", misaligned), "a[0]", "multiple of 16 bytes", "0x"),
    "misaligned B": (data_of("b", misaligned), "b[0]", "multiple of 16 bytes", "0x"),
    "misaligned D": (of("d", misaligned), "d", "multiple of 16 bytes", "0x"),
    "1D1D": (lambda good: {"recipe": (1, 1, 128)}, "recipe", r"\(1, 128, 128\)", r"\(1, 1, 128\)"),
    "half a recipe": (
        lambda good: {"recipe_a": (1, 128)},
        *("recipe_a, recipe_b", "together", "None"),
    ),
    "two recipes": (
        lambda good: {"recipe": (1, 128, 128), "recipe_b": (128, 128)},
        *("recipe", "excludes", "128"),
    ),
}

CONTIGUOUS: dict[str, Case] = {
    "A with groups": (data_of("a", lambda x: x[None]), "a[0]", "2 dimension", r"\(1, 64, 512\)"),
    "D of another M": (of("d", lambda d: d[1:]), "d", r"\[m, n\] = \(64, 256\)", r"\(63, 256\)"),
    "no layout": (
        lambda good: {"grouped_layout": None},
        *("grouped_layout", "must be given, or m_indices", "neither"),
    ),
    "two layouts": (
        lambda good: {"m_indices": good["grouped_layout"]},
        *("grouped_layout", "must be given, or m_indices", "both"),
    ),
    "layout in int64": (of("grouped_layout", torch.Tensor.long), "grouped_layout", "int32", "64"),
    "layout of too few rows": (
        of("grouped_layout", lambda x: x[:-1]),
        *("grouped_layout", "m = 64 elements", r"\(63,\)"),
    ),
    "layout strided": (
        of("grouped_layout", lambda x: zeros(INT32, 2 * M)[::2]),
        *("grouped_layout", "contiguous", r"strides \(2,\)"),
    ),
    "DG#407 layout elsewhere": (
        of("grouped_layout", lambda x: x.to("meta")),
        *("grouped_layout", "on cpu", "meta"),
    ),
    "layout as a list": (
        of("grouped_layout", torch.Tensor.tolist),
        *("grouped_layout", "torch.Tensor", "list"),
    ),
    "ends of rows": (
        lambda good: {"use_psum_layout": True},
        *("grouped_layout", "groups = 3 elements", r"\(64,\)"),
    ),
    "expected rows without ends": (
        lambda good: {"expected_m_for_psum_layout": 64},
        *("expected_m_for_psum_layout", "use_psum_layout", "64"),
    ),
    "no expected rows": (
        lambda good: {"use_psum_layout": True, "expected_m_for_psum_layout": 0},
        *("expected_m_for_psum_layout", "positive int", "0"),
    ),
}

MASKED: dict[str, Case] = {
    "A without groups": (data_of("a", lambda x: x[0]), "a[0]", "3 dimension", r"\(64, 512\)"),
    "A of other groups": (
        data_of("a", lambda x: x[:2]),
        *("a[0]", r"\[groups, m_max, k\] = \(3, 64, 512\)", r"\(2, 64, 512\)"),
    ),
    "D of another m_max": (of("d", lambda d: d[:, 1:]), "d", r"\(3, 64, 256\)", r"\(3, 63, 256\)"),
    "D flat": (of("d", lambda d: d.flatten(0, 1)), "d", "3 dimension", r"\(192, 256\)"),
    "groups of D overlap": (
        of("d", lambda d: torch.full((M + 2, N), 7.0, dtype=BF16).as_strided(d.shape, (N, N, 1))),
        *("d", "groups must not overlap", "strides"),
    ),
    "groups of D at odd strides": (
        of("d", lambda d: torch.full((G, M * N + 4), 7.0, dtype=BF16)[:, :-4].view(d.shape)),
        *("d", "group stride must be a multiple of 16 bytes", "32776 bytes"),
    ),
    "masked_m in int64": (of("masked_m", torch.Tensor.long), "masked_m", "int32", "int64"),
    "masked_m of other groups": (
        of("masked_m", lambda x: x[:2]),
        *("masked_m", "groups = 3 elements", r"\(2,\)"),
    ),
    "masked_m strided": (
        of("masked_m", lambda x: zeros(INT32, 2 * G)[::2]),
        *("masked_m", "contiguous", r"strides \(2,\)"),
    ),
    "DG#407 masked_m elsewhere": (
        of("masked_m", lambda x: x.to("meta")),
        *("masked_m", "on cpu", "meta"),
    ),
    "no masked_m": (of("masked_m", lambda x: None), "masked_m", "torch.Tensor", "NoneType"),
    "expected_m of 0": (lambda good: {"expected_m": 0}, "expected_m", "positive int", "0"),
    "expected_m below 0": (lambda good: {"expected_m": -1}, "expected_m", "positive int", "-1"),
    "expected_m in halves": (lambda good: {"expected_m": 0.5}, "expected_m", "int", "0.5"),
    "expected_m unknown": (lambda good: {"expected_m": None}, "expected_m", "int", "None"),
    "m_max of 0": (
        lambda good: {
            "a": (zeros(FP8, G, 0, K), zeros(FP32, G, 0, 4)),
            "d": torch.full((G, 0, N), 7.0, dtype=BF16),
        },
        *("a[0]", "m_max must be positive", r"\(3, 0, 512\)"),
    ),
}


@pytest.mark.parametrize("name", BOTH | CONTIGUOUS)
def test_refuses_contiguous(name: str) -> None:
    good = contiguous()
    change, *refusal = (BOTH | CONTIGUOUS)[name]
    refuse_call(m_grouped_fp8_gemm_nt_contiguous, good, change(good), *refusal)


@pytest.mark.parametrize("name", BOTH | MASKED)
def test_refuses_masked(name: str) -> None:
    good = masked()
    change, *refusal = (BOTH | MASKED)[name]
    refuse_call(m_grouped_fp8_gemm_nt_masked, good, change(good), *refusal)


@pytest.mark.parametrize(
    ("n", "k", "refusal"),
    [
        (100, K, ("d", "columns must take a multiple of 16 bytes", "100 columns of 2 byte")),
        (N, 200, (r"a[0]", "columns must take a multiple of 16 bytes", "200 columns of 1 byte")),
    ],
)
def test_refuses_n_no_multiple_of_8_and_k_no_multiple_of_16(
    n: int, k: int, refusal: tuple[str, str, str]
) -> None:
    refuse_call(m_grouped_fp8_gemm_nt_contiguous, contiguous(n=n, k=k), {}, *refusal)
    refuse_call(m_grouped_fp8_gemm_nt_masked, masked(n=n, k=k), {}, *refusal)


def test_refuses_nn() -> None:
    good = contiguous()
    flat = {"b": (zeros(FP8, K, N), zeros(FP32, 4, 2))}
    refusal = "b[0]", "3 dimension", r"\(512, 256\)"
    refuse_call(m_grouped_fp8_gemm_nn_contiguous, good, flat, *refusal)
    as_nt = {"b": (zeros(FP8, G, 384, N), zeros(FP32, G, 3, 2))}
    refusal = "b[0]", r"\[groups, n, k\] = \(3, 256, 512\)", r"\(3, 256, 384\)"
    refuse_call(m_grouped_fp8_gemm_nn_contiguous, good, as_nt, *refusal)


def test_a_refusal_does_not_depend_on_the_alignment() -> None:
    good = contiguous()
    short = {"grouped_layout": zeros(INT32, M - 1)}
    for alignment in (1, 16, 128):
        with mk_alignment(alignment):
            refusal = "grouped_layout", "m = 64 elements", r"\(63,\)"
            refuse_call(m_grouped_fp8_gemm_nt_contiguous, good, short, *refusal)


def test_no_rows_are_no_work_but_are_checked() -> None:
    """The reference returns at once, after the shapes; there is nothing to write."""
    empty = {
        "a": (zeros(FP8, 0, K), zeros(FP32, 0, 4)),
        "d": zeros(BF16, 0, N),
        "grouped_layout": zeros(INT32, 0),
    }
    m_grouped_fp8_gemm_nt_contiguous(**{**contiguous(), **empty})
    wrong = {**empty, "grouped_layout": zeros(INT32, 1)}
    with refuses("grouped_layout", "m = 0 elements", r"\(1,\)"):
        m_grouped_fp8_gemm_nt_contiguous(**{**contiguous(), **wrong})
