"""MQA logits on the GPU: each element against FP64, between guards; graphs, repeats, large ones."""

from __future__ import annotations

import itertools

import pytest
import torch

import deep_gemm
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.mqa_reference import mqa_logits_reference, pages_of
from tests.mqa import BF16, FP32, Pages, Shape, check_matrix, check_pages, paged_cache

SHAPES = [
    *(Shape(h, d, FP32) for h, d in itertools.product((16, 32, 64), (32, 64, 128))),
    *(Shape(h, d, BF16, is_exact=False) for h, d in ((64, 128), (32, 64), (16, 32))),
    *(Shape(h, d, FP32, is_exact=False) for h, d in ((64, 128), (64, 64), (32, 32))),
    *(Shape(h, 64) for h in (8, 24, 40, 72, 128)),
]


def random_ranges(tokens: int, num_keys: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(0, num_keys, (tokens,), generator=generator)
    lengths = torch.randint(0, num_keys, (tokens,), generator=generator)
    lengths[torch.rand(tokens, generator=generator) < 0.1] = 0
    return torch.stack([starts, starts + lengths], dim=1)


def causal(tokens: int, num_keys: int) -> torch.Tensor:
    ends = torch.arange(num_keys - tokens + 1, num_keys + 1)
    return torch.stack([torch.zeros_like(ends), ends], dim=1)


def packed(tokens: int, num_keys: int) -> torch.Tensor:
    """Sequences of unequal lengths, one after the other; a token sees its own one's keys."""
    bounds = [0, tokens // 7, tokens // 3, max(tokens // 3, tokens - 5), tokens]
    rows = []
    for begin, end in itertools.pairwise(bounds):
        first = begin * num_keys // tokens
        ends = torch.arange(begin, end) * num_keys // tokens + 1
        rows.append(torch.stack([torch.full_like(ends, first), ends.clamp(max=num_keys)], dim=1))
    return torch.cat(rows)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ranges_anywhere(shape: Shape) -> None:
    check_matrix(shape, random_ranges(203, 1501), 1501, "cuda")
    check_matrix(shape, random_ranges(77, 900, 1), 900, "cuda", cleans=False)


@pytest.mark.parametrize("cleans", [True, False], ids=["cleaned", "not_cleaned"])
@pytest.mark.parametrize("kind", [causal, packed, random_ranges])
def test_kinds_of_ranges(kind: object, cleans: bool) -> None:
    for tokens, num_keys in ((1, 1), (3, 130), (130, 2000), (600, 4097)):
        check_matrix(Shape(32, 64), kind(tokens, num_keys), num_keys, "cuda", cleans)  # type: ignore[operator]


@pytest.mark.parametrize("cleans", [True, False], ids=["cleaned", "not_cleaned"])
@pytest.mark.parametrize("width", [1, 100, 1500])
def test_compressed(width: int, cleans: bool) -> None:
    for shape in (Shape(64, 128), Shape(16, 32, BF16)):
        check_matrix(shape, random_ranges(203, 1501), 1501, "cuda", cleans, width)


def test_repeated_calls_give_the_same_bits() -> None:
    shape = Shape(64, 128, FP32, is_exact=False)
    q, weights = shape.queries(700, "cuda", 0)
    kv = shape.keys(3000, "cuda", 0)
    starts, ends = (x.int().contiguous().cuda() for x in random_ranges(700, 3000).unbind(1))
    first = deep_gemm.fp8_mqa_logits(q, kv, weights, starts, ends)
    for _ in range(20):
        again = deep_gemm.fp8_mqa_logits(q, kv, weights, starts, ends)
        assert_bitwise_equal(again, first)
    with deep_gemm.override(num_sms=57):
        assert_bitwise_equal(deep_gemm.fp8_mqa_logits(q, kv, weights, starts, ends), first)


def test_a_logit_does_not_depend_on_the_others() -> None:
    shape = Shape(64, 128, FP32, is_exact=False)
    q, weights = shape.queries(4, "cuda", 0)
    kv = shape.keys(2000, "cuda", 0)
    zeros = torch.zeros(4, dtype=torch.int32, device="cuda")
    full = deep_gemm.fp8_mqa_logits(q, kv, weights, zeros, zeros + 2000)
    one = deep_gemm.fp8_mqa_logits(q[2:3], kv, weights[2:3], zeros[:1] + 77, zeros[:1] + 1234)
    assert_bitwise_equal(one[0, 77:1234], full[2, 77:1234])
    cache = pages_of(kv, 64)
    table = torch.arange(len(cache), dtype=torch.int32, device="cuda")[None]
    for next_n in (1, 2, 3, 4):
        lens = torch.full((1, next_n), 2000, dtype=torch.int32, device="cuda")
        shares = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 132)
        operands = q[None, :next_n], cache, weights[:next_n], lens, table, shares
        paged = deep_gemm.fp8_paged_mqa_logits(*operands, 2000)
        assert_bitwise_equal(paged, full[:next_n], f"next_n={next_n}")


def random_lens(batch: int, next_n: int, most: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    generator = torch.Generator().manual_seed(seed)
    lens = torch.randint(0, most + 1, (batch, next_n), generator=generator)
    lens[torch.rand(batch, generator=generator) < 0.15] = 0
    return tuple(map(tuple, lens.tolist()))


@pytest.mark.parametrize("next_n", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("page_keys", [16, 32, 64])
@pytest.mark.parametrize(("heads", "head_dim"), [(16, 32), (32, 64), (64, 128)])
def test_pages(heads: int, head_dim: int, page_keys: int, next_n: int) -> None:
    pages = Pages(random_lens(19, next_n, 1100), page_keys, 1100)
    check_pages(Shape(heads, head_dim), pages, "cuda", num_sms=132)
    check_pages(Shape(heads, head_dim, BF16, False), pages, "cuda", num_sms=66, cleans=True)


@pytest.mark.parametrize("batch", [1, 133, 700, 5000])
def test_batches_of_any_size(batch: int) -> None:
    check_pages(Shape(16, 32), Pages(random_lens(batch, 1, 300), 64, 300), "cuda", num_sms=132)


def test_one_length_for_each_sequence() -> None:
    lens = tuple((n - 1, n) for n in (1, 2, 300, 1000, 64))
    pages = Pages(lens, 64, 1000, one_dimensional=True)
    check_pages(Shape(64, 128), pages, "cuda", num_sms=132, cleans=True)


def test_a_graph_takes_the_lengths_of_its_replay() -> None:
    shape, pages = Shape(64, 128), Pages(((900, 901),) * 40, 64, 1000)
    q, weights = shape.queries(80, "cuda", 0)
    keys, cache, table = paged_cache(shape, Pages(((1000, 1000),) * 40, 64, 1000), "cuda", 0)
    lens = pages.context_lens("cuda")

    def call() -> torch.Tensor:
        shares = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 132)
        operands = q.unflatten(0, (40, 2)), cache, weights, lens, table, shares
        return deep_gemm.fp8_paged_mqa_logits(*operands, 1000, clean_logits=True)

    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = call()
    references = [
        mqa_logits_reference(q[2 * i : 2 * i + 2], kv, weights[2 * i : 2 * i + 2])[0]
        for i, kv in enumerate(keys)
    ]
    for seed in range(3):
        lens.copy_(torch.tensor(random_lens(40, 2, 1000, seed), dtype=torch.int32))
        graph.replay()
        for i, row in itertools.product(range(40), range(2)):
            length = int(lens[i, row])
            got = out[2 * i + row]
            assert (got[:length] == references[i][row, :length].float()).all()
            assert (got[length:] == -torch.inf).all()


def test_more_than_2_31_logits() -> None:
    shape, tokens, num_keys = Shape(16, 32), 40000, 60000
    q, weights = shape.queries(tokens, "cuda", 0)
    kv = shape.keys(num_keys, "cuda", 0)
    zeros = torch.zeros(tokens, dtype=torch.int32, device="cuda")
    out = deep_gemm.fp8_mqa_logits(q, kv, weights, zeros, zeros + num_keys)
    for rows in (slice(0, 8), slice(tokens - 8, tokens)):
        wanted, _ = mqa_logits_reference(q[rows], kv, weights[rows])
        assert_bitwise_equal(out[rows] + 0.0, wanted.float() + 0.0)


def test_pages_beyond_4_gib() -> None:
    shape = Shape(16, 128)
    row = 64 * 132
    num_pages = 2**32 // row + 100
    q, weights = shape.queries(1, "cuda", 0)
    kv = shape.keys(128, "cuda", 0)
    cache = torch.empty(num_pages, 64, 1, 132, dtype=torch.uint8, device="cuda")
    cache[-2:] = pages_of(kv, 64)
    table = torch.tensor([[num_pages - 2, num_pages - 1]], dtype=torch.int32, device="cuda")
    lens = torch.full((1, 1), 128, dtype=torch.int32, device="cuda")
    shares = deep_gemm.get_paged_mqa_logits_metadata(lens, 64, 132)
    out = deep_gemm.fp8_paged_mqa_logits(q[None], cache, weights, lens, table, shares, 128)
    wanted, _ = mqa_logits_reference(q, kv, weights)
    assert_bitwise_equal(out + 0.0, wanted.float() + 0.0)


def test_dependent_launch_changes_no_bit() -> None:
    shape = Shape(64, 128, FP32, is_exact=False)
    pages = Pages(random_lens(30, 2, 700), 64, 700)
    plain = check_pages(shape, pages, "cuda", num_sms=132, cleans=True)
    with deep_gemm.override(pdl=True):
        assert_bitwise_equal(check_pages(shape, pages, "cuda", num_sms=132, cleans=True), plain)
