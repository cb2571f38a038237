"""The packing kernels on a GPU: right in every bit, at any size, on any stream."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import (
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
    transform_sf_into_required_layout,
)
from deep_gemm.testing.layout_reference import pack_k_grouped_ue8m0, pack_ue8m0
from tests.packings import (
    EDGES,
    K_GROUPED,
    LAYOUTS,
    KGroupedPacking,
    Packing,
    check,
    check_k_grouped,
    column_major,
    ends_of,
    powers_of_two,
    row_major,
)

LARGE = [
    row_major(7168, 512),
    row_major(131072, 56),
    row_major(131071, 57),
    column_major(131072, 56),
    column_major(131071, 57),
    row_major(4096, 56, batch=33),
    row_major(1 << 20, 3),
    row_major(3, 1 << 20),
    row_major(1, 1, batch=100_003),
    row_major(7168, 56, gran_mn=128, batch=9),
]

LARGE_K_GROUPED = [
    KGroupedPacking(tuple(128 * (i * 7 % 6) for i in range(128)), 7168),
    KGroupedPacking(tuple(32 * (i * 7 % 61) for i in range(128)), 2048, gran_k=32),
    KGroupedPacking(tuple(128 * (i % 4) for i in range(1000)), 520),
    KGroupedPacking((128 * 4099,), 4096),
]


@pytest.mark.parametrize("case", EDGES + LAYOUTS + LARGE, ids=str)
def test_every_bit_is_right_and_nothing_else_is_written(case: Packing) -> None:
    check(case, "cuda")


@pytest.mark.parametrize("case", K_GROUPED + LARGE_K_GROUPED, ids=str)
def test_groups_along_k_begin_with_a_new_word(case: KGroupedPacking) -> None:
    check_k_grouped(case, "cuda")
    check_k_grouped(case, "cuda", spare_words=3)


def powers(*shape: int) -> torch.Tensor:
    return powers_of_two(torch.Size(shape).numel(), "cuda").view(shape)


@pytest.mark.parametrize(("mn", "k"), [(9_586_981, 228), (19, 115_000_000)])
def test_offsets_beyond_32_bits(mn: int, k: int) -> None:
    sf = torch.full((mn, k), 2.0**-7, device="cuda")
    sf[-1].fill_(2.0**9)
    sf[:, -1].fill_(2.0**5)
    assert sf.numel() > 2**31
    packed = get_mn_major_tma_aligned_packed_ue8m0_tensor(sf)
    last_word = -(-k // 4) - 1
    for rows in (slice(0, 5), slice(mn - 5, mn)):
        assert torch.equal(packed[rows, last_word:], pack_ue8m0(sf[rows, 4 * last_word :]))
    for words in packed[:-1, :last_word].split(1 << 20):
        assert int(words.min()) == int(words.max()) == 0x78787878
    words = packed[-1, :last_word]
    assert int(words.min()) == int(words.max()) == 0x88888888 - 2**32


def test_rows_of_no_group_may_hold_anything() -> None:
    counts = [i * 37 % 300 for i in range(200)]
    ends = ends_of(counts, 128)
    sf = torch.full((ends[-1] + 5000, 56), float("nan"), device="cuda")
    valid = torch.zeros(len(sf), dtype=torch.bool, device="cuda")
    for count, end in zip(counts, ends, strict=True):
        valid[end - count : end] = True
    sf[valid] = powers(sum(counts), 56)
    layout = torch.tensor(ends, dtype=torch.int32, device="cuda")
    packed = get_mn_major_tma_aligned_packed_ue8m0_tensor(sf, layout)
    assert torch.equal(packed[valid], pack_ue8m0(sf)[valid])


def test_groups_with_ends_skip_the_rows_between_them() -> None:
    ks = [i * 41 % 700 for i in range(128)]
    ends = ends_of(ks, 128)
    sf = powers(-(-ends[-1] // 128) * 4, 1024)
    rows = torch.cat([sf[(end - k) // 32 : -(-end // 32)] for k, end in zip(ks, ends, strict=True)])
    layout = torch.tensor(ends, dtype=torch.int32, device="cuda")
    packed = get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor(sf, layout, None, 32, 128, True)
    expected = pack_k_grouped_ue8m0(rows, ks, 32)
    assert torch.equal(packed[: len(expected)], expected)
    assert not packed[len(expected) :].any()


def test_sm90_s_layouts_of_a_model_s_weights() -> None:
    sfb, sfa = torch.randn(8, 16, 56, device="cuda"), torch.randn(4097, 56, device="cuda")
    assert transform_sf_into_required_layout(sfb, 2048, 7168, (1, 128, 128), 8, False) is sfb
    result = transform_sf_into_required_layout(sfa, 4097, 7168, (1, 128, 128), is_sfa=True)
    assert result.stride() == (1, 4100) and torch.equal(result, sfa)


def test_a_graph_replays_with_new_values_and_sizes() -> None:
    sf, sizes = powers(6, 1024), torch.tensor([128, 640], dtype=torch.int32, device="cuda")
    pack = get_mn_major_tma_aligned_packed_ue8m0_tensor
    pack_groups = get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor
    pack(sf), pack_groups(sf, sizes, [128, 640])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        packed, of_groups = pack(sf), pack_groups(sf, sizes, [128, 640])
    sf.copy_(powers_of_two(sf.numel(), "cuda", seed=1).view_as(sf))
    sizes.copy_(torch.tensor([640, 128], dtype=torch.int32))
    graph.replay()
    assert torch.equal(packed, pack_ue8m0(sf))
    assert torch.equal(of_groups, pack_k_grouped_ue8m0(sf, [640, 128], 128))
