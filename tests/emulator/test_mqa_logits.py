"""MQA logits in the emulator: every element against FP64, between guards, with all hazards on."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch

import deep_gemm
from deep_gemm.kernels import mqa_config
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.mqa_reference import pages_of
from tests.emulator.arch import each_arch
from tests.mqa import BF16, FP32, Pages, Shape, check_matrix, check_pages

__all__ = ["each_arch"]

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

SMALL = Shape(16, 32)


@pytest.fixture(autouse=True)
def two_multiprocessors() -> Iterator[None]:
    with deep_gemm.override(num_sms=2):
        yield


def ranges(*pairs: tuple[int, int]) -> torch.Tensor:
    return torch.tensor(pairs)


def random_ranges(tokens: int, num_keys: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, num_keys, (tokens,), generator=generator)
    lengths = torch.randint(0, num_keys, (tokens,), generator=generator)
    return torch.stack([starts, starts + lengths], dim=1)


def causal(tokens: int, num_keys: int) -> torch.Tensor:
    ends = torch.arange(num_keys - tokens + 1, num_keys + 1)
    return torch.stack([torch.zeros_like(ends), ends], dim=1)


@pytest.mark.parametrize(
    "shape",
    [
        Shape(64, 128),
        Shape(32, 64, BF16),
        Shape(16, 32, BF16, is_exact=False),
        Shape(72, 32, FP32, is_exact=False),
    ],
    ids=str,
)
def test_ranges_anywhere(shape: Shape) -> None:
    check_matrix(shape, random_ranges(6, 140, 0), 140, "cpu")


@pytest.mark.parametrize(
    ("wanted", "cleans"),
    [
        (ranges((0, 0), (5, 5), (7, 3), (300, 400), (0, -1)), True),
        (ranges((0, 0), (5, 5), (7, 3), (300, 400), (0, -1)), False),
        (ranges((17, 18), (0, 1), (199, 200), (199, 10000), (-5, 3)), True),
        (causal(33, 200), False),
        (ranges(*[(0, 0)] * 40, (3, 200)), True),
    ],
    ids=["empty", "empty_not_cleaned", "one_key", "causal", "one_of_many"],
)
def test_ranges_of_every_kind(wanted: torch.Tensor, cleans: bool) -> None:
    check_matrix(SMALL, wanted, 200, "cpu", cleans)


@pytest.mark.parametrize(("width", "cleans"), [(1, True), (70, False), (150, True)])
def test_compressed(width: int, cleans: bool) -> None:
    """What lies beyond the width is not written, wherever a token's keys begin."""
    check_matrix(SMALL, random_ranges(21, 150, 3), 150, "cpu", cleans, width)


def test_a_logit_does_not_depend_on_the_others() -> None:
    """Its bits are the same for other ranges, in pages, and whatever next_n is."""
    shape, tokens = Shape(16, 32, FP32, is_exact=False), 4
    full = check_matrix(shape, ranges(*[(0, 140)] * tokens), 140, "cpu")
    part = check_matrix(shape, ranges((3, 120), (77, 78), (0, 0), (100, 140)), 140, "cpu")
    for i, (start, end) in enumerate(((3, 120), (77, 78), (0, 0), (100, 140))):
        assert_bitwise_equal(part[i, start:end], full[i, start:end])
    q, weights = shape.queries(tokens, "cpu", 0)
    cache = pages_of(shape.keys(140, "cpu", 0), 64)
    table = torch.arange(3, dtype=torch.int32)[None]
    for next_n in (1, 2):
        lens = torch.full((1, next_n), 140, dtype=torch.int32)
        shares = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 2)
        operands = q[None, :next_n], cache, weights[:next_n], lens, table, shares
        paged = deep_gemm.fp8_paged_mqa_logits(*operands, 140)
        assert_bitwise_equal(paged, full[:next_n], f"next_n={next_n}")


@pytest.mark.parametrize(
    ("pages", "cleans"),
    [
        (Pages(((300,), (0,), (1,), (129,), (64,)), 64), False),
        (Pages(((17, 300), (0, 0), (128, 5)), 16), True),
        (Pages(((299, 300), (0, 1), (49, 50)), 16, one_dimensional=True), True),
        (Pages(((130, 0, 7, 300), (0, 0, 0, 1)), 64), True),
        (Pages(((0,), (0,)), 64), True),
        (Pages(((5000,), (100,)), 64), False),
    ],
    ids=str,
)
def test_pages(pages: Pages, cleans: bool) -> None:
    check_pages(SMALL, pages, "cpu", cleans=cleans)


@pytest.mark.parametrize(
    ("shape", "next_n"),
    [
        (Shape(64, 128, FP32, is_exact=False), 1),
        (Shape(64, 128, BF16), 3),
        (Shape(64, 32), 6),
        (Shape(8, 32), 1),
    ],
    ids=str,
)
def test_tokens_of_a_sequence(shape: Shape, next_n: int) -> None:
    lens = tuple(tuple(70 + i * j for j in range(next_n)) for i in (0, -7, 20))
    check_pages(shape, Pages(lens, 64), "cpu")


def test_more_sequences_than_multiprocessors() -> None:
    lens = tuple(((i * 37) % 140,) for i in range(13))
    check_pages(SMALL, Pages(lens, 32, 140), "cpu", num_sms=4)


@pytest.mark.parametrize("timing", ["late", "random"])
def test_in_other_orders(timing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_EMULATOR_TIMING", timing)
    with mock.patch.object(mqa_config, "MAX_STAGES", 2):
        check_matrix(SMALL, random_ranges(20, 200, 5), 200, "cpu")
        check_pages(SMALL, Pages(((17, 300), (0, 0), (128, 5)), 16), "cpu")


def test_under_dependent_launch_nothing_is_touched_before_the_wait() -> None:
    with deep_gemm.override(pdl=True):
        check_matrix(SMALL, random_ranges(9, 200, 0), 200, "cpu")
        check_pages(SMALL, Pages(((17, 300), (0, 0), (128, 5)), 16), "cpu", cleans=True)


def test_no_tokens_and_no_keys() -> None:
    q, weights = SMALL.queries(0, "cpu", 0)
    none = torch.zeros(0, dtype=torch.int32)
    out = deep_gemm.fp8_mqa_logits(q, SMALL.keys(5, "cpu", 0), weights, none, none)
    assert out.shape == (0, 5)
    q, weights = SMALL.queries(3, "cpu", 0)
    zeros = torch.zeros(3, dtype=torch.int32)
    out = deep_gemm.fp8_mqa_logits(q, SMALL.keys(0, "cpu", 0), weights, zeros, zeros, True, 7)
    assert out.shape == (3, 7)
    assert (out == -torch.inf).all()


def test_a_nan_in_an_operand_is_a_nan_in_its_logits() -> None:
    q, weights = SMALL.queries(4, "cpu", 0)
    keys, sf = SMALL.keys(40, "cpu", 0)
    keys.view(torch.uint8)[7, 3] = 0x7F
    q.view(torch.uint8)[2, 5, 1] = 0x7F
    starts = torch.zeros(4, dtype=torch.int32)
    out = deep_gemm.fp8_mqa_logits(q, (keys, sf), weights, starts, starts + 40)
    wanted = torch.zeros(4, 40, dtype=torch.bool)
    wanted[:, 7] = wanted[2] = True
    assert (out.isnan() == wanted).all()
