"""The metadata of paged MQA logits: every tile once, in equal shares, for any lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deep_gemm
from deep_gemm.kernels.mqa_config import TILE_KEYS
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.utils.math import ceil_div

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

Tile = tuple[int, int]

lengths = st.one_of(
    st.integers(0, 3 * TILE_KEYS), st.sampled_from([0, 1, TILE_KEYS, TILE_KEYS + 1, 131072])
)


def tiles_of(longest: list[int]) -> list[Tile]:
    """Sequence and tile of all that there is to do, in order."""
    counts = [ceil_div(max(length, 0), TILE_KEYS) for length in longest]
    return [(i, tile) for i, count in enumerate(counts) for tile in range(count)]


def check(context_lens: torch.Tensor, num_sms: int) -> None:
    longest = context_lens.reshape(len(context_lens), -1).amax(1).tolist()
    tiles = tiles_of(longest)
    shares = deep_gemm.get_paged_mqa_logits_metadata(context_lens, 64, num_sms)
    assert shares.shape == (num_sms + 1, 2) and shares.dtype == torch.int32
    places = {tile: i for i, tile in enumerate(tiles)}
    # Behind the last tile there is the end, and no other place is named.
    ends = [places.get(tuple(row), len(tiles)) for row in shares.tolist()]
    named = [tuple(row) for row in shares.tolist() if tuple(row) not in places]
    assert set(named) <= {(len(longest), 0)}
    assert ends[0] == 0 and ends[-1] == len(tiles)
    sizes = [end - begin for begin, end in zip(ends, ends[1:], strict=False)]
    assert min(sizes) >= 0 and max(sizes) - min(sizes) <= 1


@settings(max_examples=20)
@given(st.lists(lengths, min_size=1, max_size=40), st.integers(1, 4))
def test_one_length_for_each_sequence(lens: list[int], num_sms: int) -> None:
    check(torch.tensor(lens, dtype=torch.int32), num_sms)


@settings(max_examples=8)
@given(st.lists(st.tuples(lengths, lengths, lengths), min_size=1, max_size=20), st.integers(1, 4))
def test_the_longest_of_a_sequence_s_tokens_counts(
    lens: list[tuple[int, int, int]], num_sms: int
) -> None:
    check(torch.tensor(lens, dtype=torch.int32), num_sms)


@pytest.mark.parametrize("num_sequences", [256, 257, 5000])
def test_more_sequences_than_threads(num_sequences: int) -> None:
    generator = torch.Generator().manual_seed(num_sequences)
    lens = torch.randint(0, 600, (num_sequences,), generator=generator, dtype=torch.int32)
    lens[torch.rand(num_sequences, generator=generator) < 0.3] = 0
    check(lens, 3)


def test_there_may_be_nothing_to_do() -> None:
    none = deep_gemm.get_paged_mqa_logits_metadata(torch.zeros(0, 2, dtype=torch.int32), 64, 5)
    assert_bitwise_equal(none, torch.zeros(6, 2, dtype=torch.int32))
    check(torch.zeros(7, dtype=torch.int32), 3)
    check(torch.full((3,), -5, dtype=torch.int32), 3)
