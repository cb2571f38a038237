"""What the public functions compute, take and refuse on SM100 and not on SM90, in the emulator.

What both have is in the modules that run on each architecture; see arch.py.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
import torch

import deep_gemm
from deep_gemm.errors import ArgumentError
from deep_gemm.testing import assert_bitwise_equal
from tests.emulator.arch import on_arch
from tests.emulator.sm100 import Operand, operand
from tests.grouped_operands import exact_operand, row_ids

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

M, N, K = 80, 144, 400


@pytest.fixture(scope="module", autouse=True)
def on_sm100() -> Iterator[None]:
    with on_arch("100a"):
        yield


def pair(x: Operand, is_transposed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    return (x.data.mT, x.words.mT) if is_transposed else (x.data, x.words)


@pytest.mark.parametrize("form", ["nt", "nn", "tn", "tt"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_operands_of_either_major(dtype: torch.dtype, form: str) -> None:
    a, b = (
        operand((M, K), 128, form[0] == "t", 1),
        operand((N, K), 128, form[1] == "n", 2),
    )
    d = torch.empty(M, N, dtype=dtype)
    function = getattr(deep_gemm, f"fp8_gemm_{form}")
    function(pair(a, form[0] == "t"), pair(b, form[1] == "n"), d)
    assert_bitwise_equal(d, (a.exact @ b.exact.T).to(dtype))


@pytest.mark.parametrize(("gran_a", "gran_b"), list(itertools.product((32, 128), repeat=2)))
def test_recipes(gran_a: int, gran_b: int) -> None:
    a, b = operand((M, K), gran_a, False, 1), operand((N, K), gran_b, False, 2)
    d = torch.empty(M, N, dtype=torch.float32)
    recipes = {"recipe_a": (1, gran_a), "recipe_b": (1, gran_b)}
    deep_gemm.fp8_gemm_nt(pair(a), pair(b), d, **recipes)
    assert_bitwise_equal(d, (a.exact @ b.exact.T).float())


def blocks(
    shape: tuple[int, ...], gran: tuple[int, int], seed: int
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """An operand [.., rows, k] with an FP32 scale factor for each block, and its exact values."""
    data, _ = exact_operand(shape, 1, "cpu", seed)
    *batch, rows, k = shape
    sf_shape = (*batch, -(-rows // gran[0]), -(-k // gran[1]))
    generator = torch.Generator().manual_seed(seed)
    sf = torch.randint(-3, 4, sf_shape, generator=generator).float().exp2()
    every = sf.repeat_interleave(gran[0], -2).repeat_interleave(gran[1], -1)
    return (data, sf), data.double() * every[..., :rows, :k]


@pytest.mark.parametrize(("gran_a", "gran_b"), [((1, 32), (32, 32)), ((3, 128), (100, 32))])
def test_any_number_of_rows_may_share_a_scale_factor(
    gran_a: tuple[int, int], gran_b: tuple[int, int]
) -> None:
    recipes = {"recipe_a": gran_a, "recipe_b": gran_b}
    (a, exact_a), (b, exact_b) = blocks((M, K), gran_a, 1), blocks((N, K), gran_b, 2)
    for _ in range(2):
        d = torch.empty(M, N)
        deep_gemm.fp8_gemm_nt(a, b, d, **recipes)
        assert_bitwise_equal(d, (exact_a @ exact_b.T).float())
    weights, exact_weights = blocks((2, N, K), gran_b, 3)
    groups = torch.zeros(M, dtype=torch.int32)
    groups[M // 2 :] = 1
    with deep_gemm.override(mk_alignment=1):
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(a, weights, d, groups, **recipes)
    halves = (rows @ w.T for rows, w in zip(exact_a.chunk(2), exact_weights, strict=True))
    assert_bitwise_equal(d, torch.cat(list(halves)).float())


def test_empty_products() -> None:
    a, b = exact_operand((M, 16), 1, "cpu"), exact_operand((N, 16), 128, "cpu", 1)
    d = torch.ones(M, N, dtype=torch.bfloat16)
    empty = a[0][:, :0], a[1][:, :0]
    deep_gemm.fp8_gemm_nt(empty, (b[0][:, :0], b[1][:, :0]), d)
    assert (d == 0).all()
    deep_gemm.fp8_gemm_nt((a[0][:0], a[1][:0]), b, d[:0])


def test_m_grouped_with_weights_of_the_other_major() -> None:
    layout = row_ids([(0, 30), (1, 20)], 1)
    rows = len(layout.row_groups)
    a, b = operand((rows, K), 128, False, 1), operand((2, N, K), 128, True, 2)
    d = torch.empty(rows, N, dtype=torch.bfloat16)
    with deep_gemm.override(mk_alignment=1):
        deep_gemm.m_grouped_fp8_gemm_nt_contiguous(pair(a), pair(b), d, layout.grouped_layout)
    expected = torch.cat([a.exact[:30] @ b.exact[0].T, a.exact[30:] @ b.exact[1].T])
    assert_bitwise_equal(d, expected.to(d.dtype))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": (1, 128, 64)}, "recipe_a: .*gran_k 32 or 128"),
        ({"recipe_a": (1, 128)}, "must be given together"),
        ({"recipe": (1, 128, 128), "recipe_a": (1, 128)}, "excludes recipe_a"),
        ({"disable_ue8m0_cast": True}, "disable_ue8m0_cast: .*SM100.*UE8M0"),
    ],
    ids=["granularity", "half", "both", "cast"],
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    a, b = exact_operand((M, K), 1, "cpu"), exact_operand((N, K), 128, "cpu", 1)
    d = torch.full((M, N), 7.0)
    with pytest.raises(ArgumentError, match=message):
        deep_gemm.fp8_gemm_nt(a, b, d, **change)
    assert (d == 7).all()


def test_wrong_scale_factors_are_refused() -> None:
    a, b = operand((M, K), 128, False, 1), operand((N, K), 128, False, 2)
    d = torch.empty(M, N)
    wrong = {
        "a[1]: must be FP32, or UE8M0": ((a.data, a.words.double()), pair(b)),
        "a[1]: must have shape": ((a.data, a.words[:, :0]), pair(b)),
        "b[1]: packed, must have a scale factor for each row": (pair(a), (b.data, b.words[:2])),
    }
    for message, (left, right) in wrong.items():
        recipe = (1, 128, 128) if message.startswith("b") else None
        with pytest.raises(ArgumentError, match=re.escape(message)):
            deep_gemm.fp8_gemm_nt(left, right, d, recipe=recipe)
