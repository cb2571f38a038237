"""The casting kernels in the emulator: the definition's bits, and nothing else written."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deep_gemm import settings as library_settings
from deep_gemm.quantize import (
    per_token_cast_to_fp8,
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_silu_mul,
    quantize_swiglu,
)
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.quantize_reference import cast_blocks_reference, silu_mul_reference
from tests.casts import (
    BF16,
    BITS,
    BLOCKS,
    DTYPES,
    FP32,
    GROUPS,
    MASKED,
    PLACES,
    ROW_ENDS,
    ROW_IDS,
    SPECIAL,
    TAILS,
    VALUES,
    Case,
    Groups,
    check_blocks,
    check_groups,
    check_per_token,
    check_silu_mul,
)

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("case", VALUES + TAILS + PLACES, ids=str)
def test_per_token(case: Case) -> None:
    check_per_token(case, "cpu")


@settings(max_examples=25)
@given(
    m=st.integers(1, 9),
    n=st.integers(1, 600),
    dtype=st.sampled_from(DTYPES),
    values=st.sampled_from([BITS, SPECIAL]),
    use_ue8m0=st.booleans(),
    gap=st.integers(0, 9),
)
def test_per_token_of_any_shape(
    m: int, n: int, dtype: torch.dtype, values: str, use_ue8m0: bool, gap: int
) -> None:
    check_per_token(Case(m, n, dtype, values, use_ue8m0, gap=gap), "cpu")


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_block"])
@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_scale_factors_that_span_rows(case: Case, per_channel: bool) -> None:
    check_blocks(case, per_channel, "cpu")


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_block"])
def test_a_batch_of_matrices(per_channel: bool) -> None:
    check_blocks(Case(130, 40, BF16), per_channel, "cpu", batch=3)


@pytest.fixture
def alignment() -> object:
    """Sets the alignment of groups; put back afterwards."""
    before = library_settings.get_mk_alignment_for_contiguous_layout()
    yield library_settings.set_mk_alignment_for_contiguous_layout
    library_settings.set_mk_alignment_for_contiguous_layout(before)


@pytest.mark.parametrize("fused", [False, True], ids=["cast", "swiglu"])
@pytest.mark.parametrize("groups", GROUPS, ids=str)
def test_groups(groups: Groups, fused: bool, alignment: object) -> None:
    if groups.layout != MASKED:
        alignment(groups.alignment)
    check_groups(groups, Case(0, 264), "cpu", fused)
    check_groups(groups, Case(0, 140, FP32, use_ue8m0=True, use_packed_ue8m0=True), "cpu", fused)


@pytest.fixture
def one_multiprocessor() -> Iterator[None]:
    """A grid of 40 warps, each of which takes many pieces of work."""
    library_settings.set_num_sms(1)
    yield
    library_settings.set_num_sms(0)


@pytest.mark.parametrize(
    "groups",
    [
        Groups(MASKED, (300, 0, 7, 90), 300),
        Groups(ROW_ENDS, (300, 0, 7, 90), 16),
        Groups(ROW_ENDS, tuple(7 * (i == 0) + (i % 33 == 32) for i in range(67)), 1),
        Groups(ROW_IDS, (330, 0, 7, 90), 16),
        Groups(ROW_IDS, (3, 0, 9, 5), 2600),
    ],
    ids=str,
)
def test_a_warp_takes_many_pieces(
    groups: Groups, alignment: object, one_multiprocessor: None
) -> None:
    if groups.layout != MASKED:
        alignment(16 if groups.alignment > 1 else 1)
    check_groups(groups, Case(0, 12), "cpu")
    check_groups(replace(groups, behind=groups.behind + 300), Case(0, 12, FP32), "cpu")


def test_a_warp_takes_many_rows(one_multiprocessor: None) -> None:
    check_per_token(Case(390, 12), "cpu")
    check_per_token(Case(13, 5000, FP32), "cpu")


@pytest.mark.parametrize("masked_m", [(-3, 2), (9, 100), (2**31 - 1, -(2**31))])
def test_counts_beyond_the_rows_are_those_that_there_are(masked_m: tuple[int, ...]) -> None:
    x = torch.randn(2, 6, 40)
    counts = torch.tensor(masked_m, dtype=torch.int32)
    data = torch.zeros(2, 6, 40).to(torch.float8_e4m3fn)
    sf = torch.full((2, 6, 1), -1.0)
    quantize_per_token(x, masked_m=counts, out=(data, sf))
    for group, count in enumerate(masked_m):
        rows = min(max(count, 0), 6)
        wanted = cast_blocks_reference(x[group], 1, 128, False)
        assert_bitwise_equal(sf[group, :rows], wanted[1][:rows])
        assert_bitwise_equal(data[group, :rows], wanted[0][:rows])
        assert (sf[group, rows:] == -1).all()


@pytest.mark.parametrize("ends", [(5, 3, 40), (-7, 2**31 - 1), (0, 2**31 - 1, 5)])
def test_ends_out_of_order_or_beyond_the_rows(ends: tuple[int, ...], alignment: object) -> None:
    """A group that ends before it begins is empty, and rows that there are not are not cast."""
    alignment(16)
    x = torch.randn(50, 40)
    data = torch.zeros(50, 40).to(torch.float8_e4m3fn)
    sf = torch.full((50, 1), -1.0)
    layout = torch.tensor(ends, dtype=torch.int32)
    quantize_per_token(x, grouped_layout=layout, use_psum_layout=True, out=(data, sf))
    cast = torch.zeros(50, dtype=torch.bool)
    before = 0
    for end in ends:
        number = min(max(end, 0), 50)
        cast[-(-before // 16) * 16 : number] = True
        before = number
    wanted = cast_blocks_reference(x, 1, 128, False)[1]
    assert_bitwise_equal(sf[cast], wanted[cast])
    assert (sf[~cast] == -1).all()


@pytest.mark.parametrize("clamp", [None, 25.0])
@pytest.mark.parametrize("values", [SPECIAL, BITS, "normal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_behind_the_activation_every_bit_is_the_definition_s(
    dtype: torch.dtype, values: str, clamp: float | None
) -> None:
    for use_ue8m0 in (False, True):
        check_silu_mul(Case(24, 140, dtype, values, use_ue8m0), "cpu", clamp, exact=False)


@pytest.mark.parametrize("dtype", [FP32, BF16], ids=str)
def test_the_activation_is_close_to_the_exact_one(dtype: torch.dtype) -> None:
    """A block of one number shows it: the scale factor is the product over 448, rounded."""
    gate = torch.cat([torch.linspace(-30, 30, 200), torch.randn(184)]).to(dtype)
    up = (torch.randn(384) * 3).to(dtype)
    x = torch.zeros(384, 64, dtype=dtype)
    x[:, 7], x[:, 32 + 7] = gate, up
    _, sf = quantize_swiglu(x, gran_k=32)
    gate, up = gate.double(), up.double()
    exact = (gate / (1 + torch.exp(-gate)) * up).abs()
    told = exact > 1e-4
    error = (sf[:, 0].double() * 448 / exact - 1).abs()[told]
    assert told.sum() > 200
    assert error.max() < 2.0**-21


def test_the_cast_of_an_activation_is_the_definition_s_but_for_rounding() -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 520).bfloat16()
    data, sf = quantize_swiglu(x, mn_major=False)
    wanted_data, wanted_sf = cast_blocks_reference(
        silu_mul_reference(*x.chunk(2, 1)), 1, 128, False
    )
    assert ((sf / wanted_sf - 1).abs() < 2.0**-21).all()
    steps = (data.view(torch.uint8).int() - wanted_data.view(torch.uint8).int()).abs()
    assert steps.max() <= 1 and (steps > 0).float().mean() < 0.001


def test_a_swiglu_is_the_product_of_its_halves() -> None:
    x = torch.randn(7, 2 * 200, dtype=FP32).bfloat16()
    results = quantize_swiglu(x), quantize_silu_mul(x[:, :200], x[:, 200:].contiguous())
    for one, other in zip(*results, strict=True):
        assert_bitwise_equal(one, other)


@pytest.mark.parametrize("m", [1, 2, 4, 7])
def test_new_scale_factors_are_laid_out_for_the_gemm(m: int) -> None:
    x = torch.randn(m, 300)
    for packed, columns in ((False, 3), (True, 1)):
        _, sf = quantize_per_token(x, use_ue8m0=packed, use_packed_ue8m0=packed)
        assert sf.shape == (m, columns) and sf.stride() == (1, -(-m // 4) * 4)
        _, sf = quantize_per_token(x, use_ue8m0=packed, use_packed_ue8m0=packed, mn_major=False)
        assert sf.shape == (m, columns) and sf.is_contiguous()
    masked = quantize_per_token(x[None], masked_m=torch.tensor([m], dtype=torch.int32))[1]
    assert masked.stride()[1:] == (1, -(-m // 4) * 4)
    _, sf = quantize_per_channel(x)
    assert sf.shape == (1, 300) and sf.mT.stride() == (1, 300)
    _, sf = quantize_per_channel(torch.randn(m, 301))
    assert sf.shape == (1, 301) and sf.stride(0) == 304


@pytest.mark.parametrize("shape", [(0, 0), (0, 130), (5, 0)])
def test_nothing_is_launched_for_nothing(shape: tuple[int, int]) -> None:
    x = torch.empty(shape)
    for data, sf in (quantize_per_token(x), quantize_per_channel(x), quantize_per_block(x)):
        assert data.shape == shape and sf.numel() == 0
    data, sf = quantize_swiglu(torch.empty(shape[0], 2 * shape[1]))
    assert data.shape == shape and sf.shape == (shape[0], -(-shape[1] // 128))


def test_the_classic_name_gives_what_the_kernel_gives() -> None:
    x = torch.randn(9, 700)
    x[3, 5], x[4, 200] = math.nan, -math.inf
    for options in ({}, {"gran_k": 32}, {"use_packed_ue8m0": True}):
        classic = per_token_cast_to_fp8(x, bool(options), **options)
        kernel = quantize_per_token(x, use_ue8m0=bool(options), mn_major=False, **options)
        for one, other in zip(classic, kernel, strict=True):
            assert_bitwise_equal(one, other)
            assert one.stride() == other.stride()
