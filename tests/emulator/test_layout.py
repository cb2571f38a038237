"""The public layout functions, on kernels in the emulator."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import deep_gemm
from deep_gemm import (
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_tensor,
    transform_sf_into_required_layout,
)
from deep_gemm.kernels.arguments import GroupedLayout
from deep_gemm.kernels.pack_ue8m0 import (
    GroupRows,
    k_grouped_pack_fp32_into_ue8m0,
    pack_fp32_into_ue8m0,
)
from deep_gemm.reports import Reports, reports_of
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.layout_reference import pack_k_grouped_ue8m0, pack_ue8m0
from tests.packings import ends_of, powers_of_two, some_of_everything
from tests.transposes import random_bits

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")

pack = get_mn_major_tma_aligned_packed_ue8m0_tensor
pack_groups = get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor
transform = transform_sf_into_required_layout


@pytest.fixture(autouse=True)
def nobody_is_told_of_wrong_values() -> Iterator[None]:
    """Most values here are anything; test_wrong_scale_factors.py has what is told of them."""
    with mock.patch.object(Reports, "check"):
        yield
    reports_of(torch.device("cpu")).clear()


def powers(*shape: int) -> torch.Tensor:
    return powers_of_two(torch.Size(shape).numel(), "cpu").view(shape)


def strides_of(mn: int, k: int, dims: int) -> tuple[int, ...]:
    column = -(-mn // 4) * 4
    return (k * column, 1, column)[-dims:]


@st.composite
def scale_factors(draw: st.DrawFn) -> torch.Tensor:
    """Of any bits, in a tensor of two or three dimensions that lie in any order, with any gaps."""
    dims = draw(st.sampled_from([2, 3]))
    shape = [draw(st.integers(1, 3)), draw(st.integers(1, 70)), draw(st.integers(1, 14))][-dims:]
    order = draw(st.permutations(range(dims)))
    strides, step = [0] * dims, draw(st.sampled_from([1, 1, 1, 2]))
    for dim in order:
        strides[dim] = step
        step = step * shape[dim] + draw(st.sampled_from([0, 0, 1, 4]))
    offset = draw(st.sampled_from([0, 0, 1, 4]))
    values = some_of_everything(offset + step, "cpu", draw(st.integers(0, 9)))
    return values.as_strided(shape, strides, offset)


@settings(max_examples=60)
@given(sf=scale_factors())
def test_any_strides_are_packed(sf: torch.Tensor) -> None:
    packed = pack(sf)
    *_, mn, k = sf.shape
    assert packed.dtype == torch.int32 and packed.stride() == strides_of(mn, -(-k // 4), sf.dim())
    assert torch.equal(packed, pack_ue8m0(sf))


@settings(max_examples=60)
@given(sf=scale_factors())
def test_any_strides_become_mn_major(sf: torch.Tensor) -> None:
    result = get_mn_major_tma_aligned_tensor(sf)
    assert result.stride() == strides_of(*sf.shape[-2:], sf.dim()) and result.data_ptr() % 16 == 0
    assert_bitwise_equal(result, sf)
    assert get_mn_major_tma_aligned_tensor(result) is result


@settings(max_examples=40)
@given(
    ks=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    gran_k=st.sampled_from([32, 128]),
    mn=st.sampled_from([4, 12, 36]),
    gap=st.sampled_from([0, 1, 4]),
)
def test_any_groups_are_packed(ks: list[int], gran_k: int, mn: int, gap: int) -> None:
    ks = [count * gran_k for count in ks]
    rows = sum(ks) // gran_k
    values = some_of_everything(rows * (mn + gap), "cpu")
    sf = values.as_strided((rows, mn), (mn + gap, 1))
    packed = pack_groups(sf, torch.tensor(ks, dtype=torch.int32), ks, gran_k)
    assert packed.is_contiguous()
    assert torch.equal(packed, pack_k_grouped_ue8m0(sf, ks, gran_k))


@settings(max_examples=30)
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=6),
    alignment=st.sampled_from([1, 16, 32]),
    spare=st.integers(0, 40),
)
def test_rows_of_no_group_may_hold_anything(counts: list[int], alignment: int, spare: int) -> None:
    ends = ends_of(counts, alignment)
    sf = random_bits(4 * (ends[-1] + spare + 1) * 6, "cpu").view(torch.float32).view(-1, 6)
    valid = torch.zeros(len(sf), dtype=torch.bool)
    for count, end in zip(counts, ends, strict=True):
        valid[end - count : end] = True
    sf[valid] = powers(int(valid.sum()), 6)
    deep_gemm.set_mk_alignment_for_contiguous_layout(alignment)
    try:
        packed = pack(sf, torch.tensor(ends, dtype=torch.int32))
    finally:
        deep_gemm.set_mk_alignment_for_contiguous_layout(128)
    assert torch.equal(packed[valid], pack_ue8m0(sf)[valid])


def test_rows_of_no_group_are_left_alone() -> None:
    """Blocks of four rows that lie between groups, or behind the last, are not even written."""
    sf, ends = powers(96, 4), torch.tensor([6, 40], dtype=torch.int32)
    out = torch.full((96, 1), 7, dtype=torch.int32)
    pack_fp32_into_ue8m0(sf, out, rows=GroupRows(GroupedLayout.ROW_ENDS, ends, 2, 32))
    expected = pack_ue8m0(sf)
    expected[8:32] = expected[40:] = 7
    assert torch.equal(out, expected)


@pytest.mark.parametrize("with_sizes", [False, True])
@pytest.mark.parametrize(("gran_k", "alignment"), [(32, 128), (128, 128), (32, 64)])
def test_groups_with_ends_skip_the_rows_between_them(
    gran_k: int, alignment: int, with_sizes: bool
) -> None:
    ks = [100, 0, 256, 33, 512, 0]
    ends = ends_of(ks, alignment)
    begins = [end - k for k, end in zip(ks, ends, strict=True)]
    sf = powers(-(-ends[-1] // alignment) * alignment // gran_k + 2, 8)
    layout = torch.tensor(ends, dtype=torch.int32)
    packed = pack_groups(sf, layout, ks if with_sizes else None, gran_k, alignment, True)
    rows = [
        sf[begin // gran_k : begin // gran_k + -(-k // gran_k)]
        for k, begin in zip(ks, begins, strict=True)
    ]
    expected = torch.cat([pack_ue8m0(group.T).T for group in rows])
    assert len(packed) == len(expected) if with_sizes else len(packed) >= len(expected)
    assert torch.equal(packed[: len(expected)], expected)
    assert not packed[len(expected) :].any()


def test_calls_that_differ_in_one_number_are_not_taken_for_each_other() -> None:
    sf, ks = powers(6, 8), torch.tensor([160, 32], dtype=torch.int32)
    out = [torch.empty(3, 8, dtype=torch.int32) for _ in range(2)]
    for result, gran_k in zip(out, (32, 64), strict=True):
        k_grouped_pack_fp32_into_ue8m0(sf, result, ks, gran_k)
    assert torch.equal(out[0], pack_k_grouped_ue8m0(sf, [160, 32], 32))
    assert torch.equal(out[1][:2], pack_k_grouped_ue8m0(sf[:4], [160, 32], 64))

    rows, few = powers(64, 4), torch.tensor([20], dtype=torch.int32)
    more = torch.tensor([20, 64], dtype=torch.int32)
    for ends, last in ((few, 20), (more, 64), (None, 64)):
        result = torch.zeros(64, 1, dtype=torch.int32)
        groups = None if ends is None else GroupRows(GroupedLayout.ROW_ENDS, ends, len(ends), 4)
        pack_fp32_into_ue8m0(rows, result, rows=groups)
        assert torch.equal(result[:last], pack_ue8m0(rows)[:last])
        assert not result[last:].any()


def test_the_sizes_that_count_are_those_of_the_device() -> None:
    sf = powers(6, 8)
    packed = pack_groups(sf, torch.tensor([128, 640], dtype=torch.int32), [512, 256])
    assert torch.equal(packed, pack_k_grouped_ue8m0(sf, [128, 640], 128)[:2])


def test_sizes_of_nonsense_read_nothing_beyond_the_end() -> None:
    """The emulator refuses a read outside the tensors."""
    sf = powers(6, 8)
    for sizes in ([-5, 768], [1 << 30, 128], [2**31 - 1, 2**31 - 1], [0, 0]):
        layout = torch.tensor(sizes, dtype=torch.int32)
        for use_psum_layout in (False, True):
            packed = pack_groups(sf, layout, [512, 256], 128, 128, use_psum_layout)
            assert packed.shape == (2, 8)


def test_groups_that_reach_beyond_the_end_are_cut_off_there() -> None:
    sf = powers(6, 8)
    packed = pack_groups(sf, torch.tensor([256, 768], dtype=torch.int32), [128, 640])
    assert torch.equal(packed[:2], pack_k_grouped_ue8m0(sf, [256, 512], 128))
    assert not packed[2].any()


def test_the_forms_of_the_call_that_are_in_the_field() -> None:
    sf, ks = powers(6, 8), [128, 640]
    layout = torch.tensor(ks, dtype=torch.int32)
    expected = pack_k_grouped_ue8m0(sf, ks, 128)
    for packed in (
        pack_groups(sf, layout, ks),
        pack_groups(sf, layout, ks, 128),
        pack_groups(sf, layout, tuple(ks), 128, 128),
        pack_groups(sf, layout, ks, 128, 128, False),
        pack_groups(sf, ks_tensor=layout, ks=ks),
        pack_groups(sf=sf, grouped_layout=layout, ks_cpu=ks, gran_k=128, k_alignment=128),
    ):
        assert torch.equal(packed, expected)


def test_values_that_ue8m0_does_not_have_become_its_nan() -> None:
    inf, nan, above, below = float("inf"), float("nan"), 1 + 2.0**-23, 1 - 2.0**-24
    sf = torch.tensor(
        [
            [1.0, 1.5, 4.0, -2.0],
            [0.0, nan, inf, 2.0**-127],
            [-0.0, 3.0, 0.5, 1e-40],
            [above, below, 2.0**127, 2.0**-126],
        ]
    )
    expected = [
        *(127, 255, 129, 255),
        *(0, 255, 255, 255),
        *(255, 255, 126, 255),
        *(255, 255, 254, 1),
    ]
    assert pack(sf).flatten().view(torch.uint8).tolist() == expected


# The layout that is required, on SM90 ...


@pytest.mark.parametrize("form", ["contiguous", "slice", "every second", "zeros with rows"])
def test_sm90_sfa_of_any_strides_becomes_mn_major(form: str) -> None:
    wide = random_bits(4 * 40 * 20, "cpu").view(torch.float32).view(40, 20)
    sf = {
        "contiguous": wide[:37, :7].contiguous(),
        "slice": wide[:37, 3:10],
        "every second": wide[:37, :14:2],
        "zeros with rows": torch.zeros(37, 7),
    }[form]
    result = transform(sf, 37, 896, (1, 128, 128), is_sfa=True)
    assert result.shape == (37, 7) and result.stride() == (1, 40)
    assert_bitwise_equal(result, sf)


def test_sm90_masked_sfa_is_transposed_per_group() -> None:
    """As in vLLM: strides (T * G, 1, T) are aligned if T is a multiple of 4."""
    for m_max in (8, 10):
        sf = torch.randn(3, 5, m_max).mT
        result = transform(sf, m_max, 640, (1, 128), num_groups=3)
        assert (result is sf) == (m_max == 8)
        assert result.stride() == strides_of(m_max, 5, 3)
        assert_bitwise_equal(result, sf)


def test_sm90_sfa_of_one_column_or_one_row_is_a_view_with_tma_s_strides() -> None:
    for sf, strides in ((torch.randn(37, 1), (1, 40)), (torch.randn(1, 1), (1, 4))):
        result = transform(sf, sf.shape[0], 128, (1, 128))
        assert result.data_ptr() == sf.data_ptr() and result.stride() == strides
    row = torch.randn(1, 7)
    result = transform(row, 1, 896, (1, 128))
    assert result.stride() == (1, 4)
    assert_bitwise_equal(result, row)


def test_sm90_calls_as_consumers_make_them() -> None:
    sfa, sfb = torch.randn(37, 7), torch.randn(2, 3, 7)
    vllm = transform(
        sf=sfb, mn=384, k=896, recipe=(1, 128, 128), num_groups=2, is_sfa=False,
        disable_ue8m0_cast=True,
    )  # fmt: skip
    assert vllm is sfb
    sglang = transform(sfa, num_groups=None, mn=37, k=896, recipe=(1, 128, 128), is_sfa=True)
    assert_bitwise_equal(sglang, sfa)
    positional = transform(sfa, 37, 896, (1, 128), None, None, False, None)
    assert_bitwise_equal(positional, sfa)


# ... and on SM100


@pytest.fixture
def sm100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU count as being on SM100; its packing kernel is the same."""
    monkeypatch.setattr("deep_gemm.required_layout.arch_of", lambda device: "100a")


@pytest.mark.usefixtures("sm100")
@pytest.mark.parametrize(("gran_mn", "gran_k"), [(1, 128), (1, 32), (128, 128), (128, 32)])
@pytest.mark.parametrize("groups", [(), (2,)])
def test_sm100_fp32_is_packed_for_every_row(
    gran_mn: int, gran_k: int, groups: tuple[int, ...]
) -> None:
    mn, k = 150, 6 * gran_k - 5
    sf = powers(*groups, -(-mn // gran_mn), 6)
    result = transform(sf, mn, k, (gran_mn, gran_k), *groups)
    assert result.dtype == torch.int32 and result.stride() == strides_of(mn, 2, sf.dim())
    assert torch.equal(result, pack_ue8m0(sf, mn, gran_mn))


@pytest.mark.usefixtures("sm100")
def test_sm100_recipe_of_three_means_a_or_b() -> None:
    sfa, sfb = powers(130, 4), powers(2, 4)
    packed = transform(sfa, 130, 512, (1, 128, 128), is_sfa=True)
    assert torch.equal(packed, pack_ue8m0(sfa))
    packed = transform(sfb, 130, 512, (1, 128, 128), is_sfa=False)
    assert torch.equal(packed, pack_ue8m0(sfb, 130, 128))


@pytest.mark.usefixtures("sm100")
def test_sm100_gaps_of_a_psum_layout_may_hold_anything() -> None:
    sf = torch.full((200, 4), float("nan"))
    sf[:50], sf[128:190] = powers(50, 4), powers(62, 4)
    ends = torch.tensor([50, 190], dtype=torch.int32)
    packed = transform(sf, 200, 512, (1, 128, 128), None, True, False, ends)
    expected = pack_ue8m0(sf)
    for rows in (slice(0, 50), slice(128, 190)):
        assert torch.equal(packed[rows], expected[rows])
