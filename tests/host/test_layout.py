"""Layouts of scale factors: names, sizes, what is returned as it is, and what is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch

import deep_gemm
import deep_gemm.utils.layout
from deep_gemm import (
    ArgumentError,
    get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
    get_mn_major_tma_aligned_tensor,
    get_tma_aligned_size,
    transform_sf_into_required_layout,
)
from deep_gemm.kernels.pack_ue8m0 import generate_k_grouped_pack, generate_pack
from deep_gemm.kernels.transpose import generate_transpose
from deep_gemm.testing.layout_reference import ue8m0_exponents

pack = get_mn_major_tma_aligned_packed_ue8m0_tensor
pack_groups = get_k_grouped_mn_major_tma_aligned_packed_ue8m0_tensor
transform = transform_sf_into_required_layout


@pytest.fixture
def sm100(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors on the CPU count as being on SM100."""
    monkeypatch.setattr("deep_gemm.required_layout.arch_of", lambda device: "100a")


def refuses(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        call()


def packed_sf(mn: int, words: int, *groups: int) -> torch.Tensor:
    column = -(-mn // 4) * 4
    size = words * column
    buffer = torch.zeros(*groups, words, column, dtype=torch.int32)
    return buffer.as_strided((*groups, mn, words), (size, 1, column)[-2 - len(groups) :])


def test_the_names_are_the_same_functions_everywhere() -> None:
    for name in deep_gemm.utils.layout.__all__:
        assert getattr(deep_gemm.utils.layout, name) is getattr(deep_gemm, name)
        assert getattr(deep_gemm.utils, name) is getattr(deep_gemm, name)
        assert name in deep_gemm.__all__ and name in deep_gemm.utils.__all__
        assert inspect.signature(getattr(deep_gemm, name))
    assert deep_gemm.get_col_major_tma_aligned_tensor is get_mn_major_tma_aligned_tensor


def test_the_older_names_of_the_alignment_follow_it() -> None:
    assert deep_gemm.get_m_alignment_for_contiguous_layout() == 128
    deep_gemm.set_mk_alignment_for_contiguous_layout(64)
    try:
        assert deep_gemm.get_m_alignment_for_contiguous_layout() == 64
        assert deep_gemm.get_k_alignment_for_contiguous_layout() == 64
    finally:
        deep_gemm.set_mk_alignment_for_contiguous_layout(128)


@pytest.mark.parametrize(
    ("mn", "element_size", "aligned"),
    [(0, 4, 0), (1, 4, 4), (4, 4, 4), (5, 4, 8), (17, 1, 32), (9, 2, 16), (3, 8, 4), (5, 16, 5)],
)
def test_tma_aligned_size(mn: int, element_size: int, aligned: int) -> None:
    assert get_tma_aligned_size(mn, element_size) == aligned


def test_what_tma_aligned_size_refuses() -> None:
    refuses(lambda: get_tma_aligned_size(-1, 4), "mn: must be an int of at least 0, got -1")
    refuses(lambda: get_tma_aligned_size(8, 3), "element_size: must divide 16, got 3")
    refuses(lambda: get_tma_aligned_size(8, 0), "element_size: must be a positive int, got 0")


def test_the_profiler_finds_the_kernels_by_the_reference_s_names() -> None:
    entries = [
        generate_transpose(4, "90a").entry,
        generate_pack("90a").entry,
        generate_k_grouped_pack("90a").entry,
    ]
    assert ["transpose" in entry for entry in entries] == [True, False, False]
    assert ["pack_fp32_into_ue8m0" in entry for entry in entries] == [False, True, True]
    assert not any("gemm_" in entry for entry in entries)


def test_exponents_of_everything_that_is_not_a_power_of_two_are_nan() -> None:
    inf = float("inf")
    fine = [0.0, 2.0**-126, 2.0**-7, 1.0, 2.0**127]
    others = [-1.0, -0.0, 1.5, 3e-39, 2.0**-127, 2.0**-149, inf, -inf, float("nan"), 3.4e38]
    assert ue8m0_exponents(torch.tensor(fine)).tolist() == [0, 1, 120, 127, 254]
    assert ue8m0_exponents(torch.tensor(others)).tolist() == [255] * len(others)


# SM90


def test_sm90_sfa_that_lies_right_is_returned_as_it_is() -> None:
    sf = torch.randn(7, 40)[:, :37].T
    assert transform(sf, 37, 7 * 128, (1, 128, 128), is_sfa=True) is sf
    groups = torch.randn(3, 7, 40).mT
    assert transform(groups, 40, 7 * 128, (1, 128), num_groups=3) is groups


@pytest.mark.parametrize(
    "sf",
    [
        torch.randn(3, 7),
        torch.randn(7, 3).t(),
        torch.randn(6, 9)[:3, :7],
        torch.randn(3, 1, 7)[:, 0],
    ],
    ids=["contiguous", "transposed", "slice", "middle"],
)
def test_sm90_sfb_per_128_x_128_is_never_copied(sf: torch.Tensor) -> None:
    assert transform(sf, 300, 896, (1, 128, 128), is_sfa=False) is sf
    assert transform(sf, 300, 896, (128, 128)) is sf
    assert transform(sf=sf, mn=300, k=896, recipe=(1, 128, 128), is_sfa=False) is sf


def test_sm90_sfb_of_groups_is_never_copied() -> None:
    sf = torch.randn(4, 3, 7)
    assert transform(sf, 300, 896, (1, 128, 128), num_groups=4, is_sfa=False) is sf
    one = sf[:1]
    assert transform(one, 300, 896, [1, 128, 128], num_groups=1, is_sfa=False) is one


@pytest.mark.parametrize("disable", [False, True])
def test_sm90_takes_no_notice_of_disable_ue8m0_cast(disable: bool) -> None:
    sf = torch.randn(3, 7)
    result = transform(sf, 300, 896, (128, 128), disable_ue8m0_cast=disable)
    assert result is sf


def test_sm90_has_no_packed_scale_factors() -> None:
    sf = packed_sf(8, 2)
    text = r"sf: must be FP32 on SM90 \(packed UE8M0 .* SM100\), got torch.int32"
    refuses(lambda: transform(sf, 8, 1024, (1, 128)), text)
    refuses(lambda: transform(sf, 8, 1024, (1, 128), disable_ue8m0_cast=True), text)


@pytest.mark.parametrize("recipe", [(1, 32), (32, 128), (128, 32), (1, 1, 32)])
def test_sm90_has_no_other_granularities(recipe: tuple[int, ...]) -> None:
    is_sfa = True if len(recipe) == 3 else None
    text = "recipe: must ask for scale factors per 1 x 128 or 128 x 128 on SM90, got "
    refuses(lambda: transform(torch.ones(8, 8), 8, 1024, recipe, is_sfa=is_sfa), text)


def test_the_shape_is_the_logical_one() -> None:
    """A tensor that is transposed physically, [k blocks, m], is refused."""
    refuses(lambda: transform(torch.ones(7, 8), 8, 896, (1, 128)), r"\(8, 7\), got shape \(7, 8\)")
    refuses(lambda: transform(torch.ones(8, 8), 8, 896, (1, 128)), "sf: must have shape")
    refuses(lambda: transform(torch.ones(2, 8, 7), 8, 896, (1, 128)), "must have 2 dimension")
    refuses(lambda: transform(torch.ones(8, 7), 8, 896, (1, 128), 1), "must have 3 dimension")
    refuses(lambda: transform(torch.ones(2, 8, 7), 8, 896, (1, 128), 3), r"= \(3, 8, 7\), got")


def test_which_recipe_needs_is_sfa() -> None:
    sf = torch.ones(8, 7)
    text = r"is_sfa: must be given with a recipe \(gran_m, gran_n, gran_k\), got None"
    refuses(lambda: transform(sf, 8, 896, (1, 128, 128)), text)
    text = r"is_sfa: must not be given with a recipe \(gran_mn, gran_k\), got False"
    refuses(lambda: transform(sf, 8, 896, (1, 128), is_sfa=False), text)


@pytest.mark.parametrize("recipe", [(128,), (1, 1, 128, 128), None, 128, (0, 128), (1, "128")])
def test_a_recipe_is_two_or_three_positive_numbers(recipe: object) -> None:
    refuses(lambda: transform(torch.ones(8, 7), 8, 896, recipe), "recipe: must be")


@pytest.mark.parametrize("call", [get_mn_major_tma_aligned_tensor, pack])
def test_what_is_no_fp32_scale_factors_is_refused(call: Callable[[object], object]) -> None:
    elsewhere = torch.ones(8, 7, device="meta")
    refuses(lambda: call([1.0]), "sf: must be a torch.Tensor, got list")
    refuses(lambda: call(elsewhere), "sf: must be on a CUDA device, or on the CPU .*, got meta")
    refuses(lambda: call(torch.ones(3)), r"sf: must have 2 or 3 dimensions, got shape \(3,\)")
    refuses(lambda: call(torch.ones(3, 4, dtype=torch.float64)), "sf: must have dtype torch.fl")


def test_no_layout_of_what_is_no_tensor_or_elsewhere() -> None:
    refuses(lambda: transform([1.0], 8, 896, (1, 128)), "sf: must be a torch.Tensor, got list")
    elsewhere = torch.ones(8, 7, device="meta")
    refuses(lambda: transform(elsewhere, 8, 896, (1, 128)), "sf: must be on a CUDA device")


# SM100


@pytest.mark.usefixtures("sm100")
def test_sm100_packed_scale_factors_are_only_checked() -> None:
    for sf in (packed_sf(37, 2), packed_sf(1, 2), packed_sf(1, 1)):
        k = sf.shape[1] * 512 - 100
        assert transform(sf, sf.shape[0], k, (1, 128)) is sf
        assert transform(sf, sf.shape[0], k, (1, 128), disable_ue8m0_cast=True) is sf
    groups = packed_sf(37, 3, 4)
    assert transform(groups, 37, 384, (1, 32), num_groups=4) is groups
    assert transform(groups, 37, 384, (1, 1, 32), 4, True) is groups


@pytest.mark.usefixtures("sm100")
def test_sm100_packed_scale_factors_in_another_layout_are_refused() -> None:
    contiguous = torch.zeros(37, 2, dtype=torch.int32)
    text = r"sf: packed, must have strides \(1, 40\), got strides \(2, 1\)"
    refuses(lambda: transform(contiguous, 37, 1024, (1, 128)), text)
    unpadded = torch.zeros(2, 37, dtype=torch.int32).T
    refuses(lambda: transform(unpadded, 37, 1024, (1, 128)), r"strides \(1, 40\), got .*\(1, 37\)")
    apart = packed_sf(40, 2, 3)[::2]
    refuses(lambda: transform(apart, 40, 1024, (1, 128), 2), r"strides \(80, 1, 40\), got")
    per_row = "recipe: must have gran_mn 1 for packed scale factors, got 128"
    refuses(lambda: transform(packed_sf(1, 2), 37, 1024, (128, 128)), per_row)


@pytest.mark.usefixtures("sm100")
def test_sm100_needs_the_cast() -> None:
    text = "disable_ue8m0_cast: must be False for FP32 scale factors on SM100, got True"
    refuses(lambda: transform(torch.ones(8, 7), 8, 896, (1, 128), disable_ue8m0_cast=True), text)


@pytest.mark.usefixtures("sm100")
def test_what_else_sm100_refuses() -> None:
    sf = torch.ones(8, 7)
    refuses(lambda: transform(sf, 8, 448, (1, 64)), "recipe: must have gran_k 32 or 128 on SM100")
    refuses(lambda: transform(sf, 9, 896, (1, 128)), r"sf: must have shape .* = \(9, 7\)")
    refuses(lambda: transform(sf.double(), 8, 896, (1, 128)), "sf: must have dtype torch.float32")


# packing


def test_what_a_psum_layout_may_be() -> None:
    sf, ends = torch.ones(256, 8), torch.tensor([100, 200], dtype=torch.int32)
    groups = sf.unsqueeze(0)
    refuses(lambda: pack(groups, ends), "psum_layout: goes with scale factors of one matrix")
    refuses(lambda: pack(sf, ends.long()), "psum_layout: must have dtype torch.int32")
    refuses(lambda: pack(sf, ends[:0]), "psum_layout: must be contiguous, one number a group")
    refuses(lambda: pack(sf, ends.repeat(2)[::2]), "psum_layout: must be contiguous")
    refuses(lambda: pack(sf, ends.to("meta")), "psum_layout: must be on cpu, the device of sf")
    refuses(lambda: pack(sf, [100, 200]), "psum_layout: must be a torch.Tensor")


def test_what_packing_of_groups_refuses() -> None:
    sf, sizes, ks = torch.ones(3, 8), torch.tensor([128, 256], dtype=torch.int32), [128, 256]
    refusals: list[tuple[Callable[[], object], str]] = [
        (lambda: pack_groups(sf), "grouped_layout: must be given, got None"),
        (lambda: pack_groups(sf, sizes), "ks_cpu: must be given without use_psum_layout, got None"),
        (lambda: pack_groups(sf, sizes, []), r"ks_cpu: must be given .*, got \[\]"),
        (lambda: pack_groups(sf, sizes, ks, ks=ks), "ks_cpu: must be given, or ks instead, got b"),
        (
            lambda: pack_groups(sf, sizes, ks, ks_tensor=sizes),
            "grouped_layout: must be given, or",
        ),
        (lambda: pack_groups(sf, sizes, ks, 64), "gran_k: must be 32 or 128, got 64"),
        (lambda: pack_groups(sf, sizes, [128, 128]), r"sf: must have sum\(.*\) = 2 rows, got 3"),
        (lambda: pack_groups(sf, sizes, [384]), "ks_cpu: must be 2 sizes of at least 0"),
        (lambda: pack_groups(sf, sizes, [512, -128]), "ks_cpu: must be 2 sizes of at least 0"),
        (lambda: pack_groups(sf[:, :6], sizes, ks), "sf: columns must be a multiple of 4"),
        (lambda: pack_groups(sf[0], sizes, ks), "sf: must have 2 dimensions"),
        (lambda: pack_groups(sf.int(), sizes, ks), "sf: must have dtype torch.float32"),
        (lambda: pack_groups(sf, sizes.long(), ks), "grouped_layout: must have dtype torch.int32"),
        (
            lambda: pack_groups(sf, sizes, ks, 128, 192, True),
            "k_alignment: must be a multiple of gran_k = 128, got 192",
        ),
        (
            lambda: pack_groups(sf, sizes, None, 128, 0, True),
            "k_alignment: must be a positive int, got 0",
        ),
    ]
    for call, text in refusals:
        refuses(call, text)


def test_nothing_is_launched_for_nothing() -> None:
    assert pack(torch.ones(0, 7)).shape == (0, 2)
    assert pack(torch.ones(5, 0)).shape == (5, 0)
    assert pack(torch.ones(0, 5, 7)).shape == (0, 5, 2)
    none = torch.zeros(3, dtype=torch.int32)
    assert pack_groups(torch.ones(0, 8), none, [0, 0, 0]).shape == (0, 8)
    assert pack_groups(torch.ones(0, 8), none, None, use_psum_layout=True).shape == (0, 8)
    assert transform(torch.ones(0, 7), 0, 896, (1, 128)).shape == (0, 7)
