"""Whole calls of k-grouped products, of 1D1D and with C, refused: no kernel is needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nn,
    fp8_gemm_nt,
    fp8_gemm_tn,
    fp8_gemm_tt,
    k_grouped_fp8_gemm_nt_contiguous,
)
from tests.host.test_refused_grouped_calls import (
    BF16,
    FP8,
    FP32,
    INT32,
    Arguments,
    Case,
    data_of,
    misaligned,
    of,
    refuse_call,
    sf_of,
    zeros,
)

M, N, KS = 64, 256, [128, 0, 384]
G, TOTAL = len(KS), sum(KS)


def k_grouped() -> Arguments:
    return {
        "a": (zeros(FP8, M * TOTAL), zeros(FP32, M, TOTAL // 128)),
        "b": (zeros(FP8, N * TOTAL), zeros(FP32, N, TOTAL // 128)),
        "d": torch.full((G, M, N), 7.0, dtype=FP32),
        "ks_cpu": KS,
        "grouped_layout": torch.tensor(KS, dtype=INT32),
    }


def sizes(*ks: object) -> Callable[[Arguments], Arguments]:
    return lambda good: {"ks_cpu": list(ks)}


K_GROUPED: dict[str, Case] = {
    "A is no pair": (lambda good: {"a": zeros(FP8, M * TOTAL)}, "a", "pair", "Tensor"),
    "B in BF16": (data_of("b", torch.Tensor.bfloat16), "b[0]", "float8_e4m3fn", "bfloat16"),
    "A as a matrix": (
        data_of("a", lambda x: x.view(M, TOTAL)),
        *("a[0]", "1 dimension", r"\(64, 512\)"),
    ),
    "A strided": (
        data_of("a", lambda x: zeros(FP8, 2 * M * TOTAL)[::2]),
        *("a[0]", "contiguous", "stride 2"),
    ),
    "D in FP16": (of("d", torch.Tensor.half), "d", "bfloat16 or torch.float32", "float16"),
    "D of one group": (of("d", lambda d: d[0]), "ks_cpu", "size for every group", r"\(64, 256\)"),
    "D of other groups": (of("d", lambda d: d[:2]), "ks_cpu", "size for every group", "3 sizes"),
    "packed SFA": (sf_of("a", torch.Tensor.int), "a[1]", "FP32 on SM90", "int32"),
    "SFB of too few blocks": (
        sf_of("b", lambda x: x[:, 1:]),
        *("b[1]", r"= \(256, 4\)", r"\(256, 3\)"),
    ),
    "SFA transposed": (sf_of("a", torch.Tensor.t), "a[1]", r"= \(64, 4\)", r"\(4, 64\)"),
    "DG#407 SFA elsewhere": (sf_of("a", lambda x: x.to("meta")), "a[1]", "on cpu", "meta"),
    "DG#407 layout elsewhere": (
        of("grouped_layout", lambda x: x.to("meta")),
        *("grouped_layout", "on cpu", "meta"),
    ),
    "B elsewhere": (data_of("b", lambda x: x.to("meta")), "b[0]", "on cpu", "meta"),
    "layout in int64": (of("grouped_layout", torch.Tensor.long), "grouped_layout", "int32", "64"),
    "layout of other groups": (
        of("grouped_layout", lambda x: x[:2]),
        *("grouped_layout", "one element for each of 3 groups", r"\(2,\)"),
    ),
    "layout strided": (
        of("grouped_layout", lambda x: zeros(INT32, 2 * G)[::2]),
        *("grouped_layout", "contiguous", r"strides \(2,\)"),
    ),
    "no layout": (
        lambda good: {"grouped_layout": None},
        *("grouped_layout", "must be given, or ks_tensor", "neither"),
    ),
    "two layouts": (
        lambda good: {"ks_tensor": good["grouped_layout"]},
        *("grouped_layout", "must be given, or ks_tensor", "both"),
    ),
    "two lists of sizes": (lambda good: {"ks": KS}, "ks_cpu", "must be given, or ks", "both"),
    "sizes as a tensor": (
        lambda good: {"ks_cpu": torch.tensor(KS)},
        *("ks_cpu", "a list or a tuple", "Tensor"),
    ),
    "too few sizes": (sizes(128, 384), "ks_cpu", "size for every group", "2 sizes"),
    "too many sizes": (sizes(128, 0, 256, 128), "ks_cpu", "size for every group", "4 sizes"),
    "a size no multiple of 128": (sizes(128, 64, 320), "ks_cpu", "multiples of 128", "64"),
    "a size below 0": (sizes(128, -128, 512), "ks_cpu", "multiples of 128, 0 or more", "-128"),
    "a size in halves": (sizes(128, 0, 384.0), "ks_cpu", "multiples of 128", r"384\.0"),
    "sizes that sum to less": (
        sizes(128, 0, 256),
        *("a[0]", r"64 \* sum\(ks_cpu\) = 24576", "32768"),
    ),
    "sizes that sum to more": (
        sizes(128, 128, 384),
        *("a[0]", r"64 \* sum\(ks_cpu\) = 40960", "32768"),
    ),
    "B of another sum": (
        data_of("b", lambda x: x[: 384 * N]),
        *("b[0]", r"256 \* sum\(ks_cpu\) = 131072", "98304"),
    ),
    "operands of different sums, sizes unknown": (
        lambda good: {**data_of("b", lambda x: x[: 384 * N])(good), "ks_cpu": None},
        *("b[0]", r"256 rows of the same sum\(k_g\)", "98304"),
    ),
    "a sum no multiple of 128": (
        lambda good: {**data_of("a", lambda x: x[: 448 * M])(good), "ks_cpu": None},
        *("a[0]", "a multiple of 128", "28672"),
    ),
    "ends of groups": (lambda good: {"use_psum_layout": True}, "use_psum_layout", "False", "True"),
    "1D2D": (lambda good: {"recipe": (1, 128, 128)}, "recipe", r"\(1, 1, 128\)", r"128, 128\)"),
    "rows of D at odd strides": (
        of("d", lambda d: torch.full((G, M, N + 2), 7.0, dtype=FP32)[..., :N]),
        *("d", "row stride must be a multiple of 16 bytes", "1032 bytes"),
    ),
    "column-major D": (
        of("d", lambda d: d.transpose(1, 2).contiguous().transpose(1, 2)),
        *("d", "row-major", "strides"),
    ),
    "misaligned A": (data_of("a", misaligned), "a[0]", "multiple of 16 bytes", "0x"),
    "misaligned B": (data_of("b", misaligned), "b[0]", "multiple of 16 bytes", "0x"),
    "misaligned D": (of("d", misaligned), "d", "multiple of 16 bytes", "0x"),
}


@pytest.mark.parametrize("name", K_GROUPED)
def test_refuses_k_grouped(name: str) -> None:
    good = k_grouped()
    change, *refusal = K_GROUPED[name]
    refuse_call(k_grouped_fp8_gemm_nt_contiguous, good, change(good), *refusal)


def dense(gran_n: int = 1, dtype: torch.dtype = FP32, n: int = N, k: int = TOTAL) -> Arguments:
    num_k_blocks = -(-k // 128)
    return {
        "a": (zeros(FP8, M, k), zeros(FP32, M, num_k_blocks)),
        "b": (zeros(FP8, n, k), zeros(FP32, -(-n // gran_n), num_k_blocks)),
        "d": torch.full((M, n), 7.0, dtype=dtype),
        "recipe": (1, gran_n, 128),
    }


def test_refuses_sfb_of_the_other_recipe() -> None:
    per_row, per_block = dense(1), dense(128)
    refusal = "b[1]", r"\[ceil\(256 / 1\), ceil\(512 / 128\)\] = \(256, 4\)", r"\(2, 4\)"
    refuse_call(fp8_gemm_nt, per_row, {"b": per_block["b"]}, *refusal)
    refusal = "b[1]", r"\[ceil\(256 / 128\), ceil\(512 / 128\)\] = \(2, 4\)", r"\(256, 4\)"
    refuse_call(fp8_gemm_nt, per_block, {"b": per_row["b"]}, *refusal)


@pytest.mark.parametrize("recipe", [(1, 64, 128), (128, 128, 128), (1, 1, 32), (1, 128, 64)])
def test_refuses_a_recipe_without_a_kernel(recipe: tuple[int, int, int]) -> None:
    rule = r"\(1, 128, 128\) or \(1, 1, 128\)"
    got = str(recipe).replace("(", r"\(").replace(")", r"\)")
    refuse_call(fp8_gemm_nt, dense(), {"recipe": recipe}, "recipe", rule, got)


@pytest.mark.parametrize(
    ("n", "dtype", "got"), [(100, BF16, "100 columns of 2"), (102, FP32, "102 columns of 4")]
)
def test_refuses_n_that_tma_would_not_cut_exactly(n: int, dtype: torch.dtype, got: str) -> None:
    rule = "columns must take a multiple of 16 bytes"
    refuse_call(fp8_gemm_nt, dense(dtype=dtype, n=n), {}, "d", rule, got)


def changed(d: torch.Tensor, change: str) -> torch.Tensor:
    """A C that does not fit D."""
    return {
        "dtype": torch.zeros(d.shape, dtype=BF16),
        "shape": torch.zeros((*d.shape[:-1], N // 2), dtype=d.dtype),
        "dimensions": torch.zeros((2, *d.shape), dtype=d.dtype),
        "device": torch.zeros(d.shape, dtype=d.dtype, device="meta"),
        "overlap": d.flatten(0, -2)[1:],
    }[change]


C: dict[str, tuple[str, str]] = {
    "dtype": ("torch.float32", "bfloat16"),
    "shape": (r"256\)", r"128\)"),
    "dimensions": ("dimension", r"\(2, "),
    "device": ("on cpu", "meta"),
    "overlap": ("be d, or share no memory with it", "overlaps d"),
}


@pytest.mark.parametrize("name", C)
def test_refuses_c(name: str) -> None:
    for good, call in ((dense(), fp8_gemm_nt), (k_grouped(), k_grouped_fp8_gemm_nt_contiguous)):
        c = changed(good["d"], name)  # type: ignore[arg-type]
        refuse_call(call, good, {"c": c}, "c", *C[name])


def test_refuses_c_that_is_no_tensor() -> None:
    refuse_call(fp8_gemm_nt, dense(), {"c": 1.0}, "c", "torch.Tensor", "float")
    call = k_grouped_fp8_gemm_nt_contiguous
    refuse_call(call, k_grouped(), {"c": [1.0]}, "c", "torch.Tensor", "list")


def test_refuses_c_at_d_with_other_strides() -> None:
    memory = torch.full((2 * M, N), 7.0)
    apart = {"d": memory[::2], "c": memory[:M]}
    rule = r"d's strides \(512, 1\)"
    refuse_call(fp8_gemm_nt, dense(), apart, "c", rule, r"strides \(256, 1\)")
    memory = torch.full((G, 2 * M, N), 7.0)
    apart = {"d": memory[:, ::2], "c": memory.view(2 * G, M, N)[:G]}
    rule = r"d's strides \(32768, 512, 1\)"
    got = r"strides \(16384, 256, 1\)"
    refuse_call(k_grouped_fp8_gemm_nt_contiguous, k_grouped(), apart, "c", rule, got)


def test_refuses_c_of_an_empty_k_too() -> None:
    good = dense(k=0)
    refuse_call(fp8_gemm_nt, good, {"c": good["d"].double()}, "c", "float32", "float64")  # type: ignore[attr-defined]


NOT_NT = {"nn": fp8_gemm_nn, "tn": fp8_gemm_tn, "tt": fp8_gemm_tt}


def stored(name: str, gran_n: int = 128) -> Arguments:
    """A good call of fp8_gemm_nn, tn or tt."""
    good = dense(gran_n)
    for operand, letter, other in (("a", name[0], "t"), ("b", name[1], "n")):
        if letter == other:
            good[operand] = tuple(tensor.t().contiguous() for tensor in good[operand])  # type: ignore[attr-defined]
    return good


@pytest.mark.parametrize("name", NOT_NT)
def test_refuses_operands_that_lie_the_wrong_way_round(name: str) -> None:
    operand = "b" if name[1] == "n" else "a"
    as_nt = {operand: dense(128)[operand]}
    # K is what A says it is, so it is B that does not fit.
    refuse_call(NOT_NT[name], stored(name), as_nt, "b[0]", r"\[n, k\] = ", r"shape \(")


@pytest.mark.parametrize("name", NOT_NT)
def test_refuses_scale_factors_that_are_not_transposed_with_their_data(name: str) -> None:
    good, call = stored(name), NOT_NT[name]
    operand = "b" if name[1] == "n" else "a"
    change = sf_of(operand, torch.Tensor.t)(good)
    refuse_call(call, good, change, f"{operand}[1]", r"512 / 128\)\]", r"shape \(4,")


@pytest.mark.parametrize("name", NOT_NT)
def test_refuses_transposed_operands_of_other_dimensions(name: str) -> None:
    good, call = stored(name), NOT_NT[name]
    operand = "b" if name[1] == "n" else "a"
    change = data_of(operand, lambda x: x[None])(good)
    refuse_call(call, good, change, f"{operand}[0]", "2 dimension", r"\(1, ")
