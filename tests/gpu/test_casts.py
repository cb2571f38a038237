"""The casting kernels on a GPU: the definition's bits at any size, on any stream, in a graph."""

from __future__ import annotations

import math

import pytest
import torch

from deep_gemm import override, settings
from deep_gemm.quantize import (
    per_block_cast_to_fp8,
    per_channel_cast_to_fp8,
    per_custom_dims_cast_to_fp8,
    per_token_cast_to_fp8,
    quantize_per_block,
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
    FP16,
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

LARGE = [
    Case(4096, 7168, BF16),
    Case(4099, 7171, BF16, BITS),
    Case(4096, 7168, BF16, use_ue8m0=True, use_packed_ue8m0=True),
    Case(8192, 4096, FP16, BITS, use_ue8m0=True),
    Case(4096, 7168, FP32, BITS, mn_major=False),
    Case(131072, 576, BF16, gap=64),
    Case(1 << 20, 40, BF16, gran_k=32),
    Case(3, 1 << 22, FP32),
]

LARGE_GROUPS = [
    Groups(MASKED, tuple(37 * i % 300 for i in range(256)), 512),
    Groups(MASKED, (0,) * 31 + (4096,), 4096),
    Groups(ROW_IDS, tuple(37 * i % 300 for i in range(64)), 128, behind=70_000),
    Groups(ROW_ENDS, tuple(37 * i % 300 for i in range(256)), 16, behind=70_000),
]


@pytest.mark.parametrize("case", VALUES + TAILS + PLACES + LARGE, ids=str)
def test_per_token(case: Case) -> None:
    check_per_token(case, "cuda")


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_block"])
@pytest.mark.parametrize("case", BLOCKS + LARGE[:5] + LARGE[-1:], ids=str)
def test_scale_factors_that_span_rows(case: Case, per_channel: bool) -> None:
    if case.use_packed_ue8m0:
        pytest.skip("never packed")
    check_blocks(case, per_channel, "cuda")


@pytest.mark.parametrize("per_channel", [True, False], ids=["per_channel", "per_block"])
def test_a_batch_of_matrices(per_channel: bool) -> None:
    check_blocks(Case(300, 1000, BF16, BITS), per_channel, "cuda", batch=9)


@pytest.fixture
def alignment() -> object:
    """Sets the alignment of groups; put back afterwards."""
    before = settings.get_mk_alignment_for_contiguous_layout()
    yield settings.set_mk_alignment_for_contiguous_layout
    settings.set_mk_alignment_for_contiguous_layout(before)


@pytest.mark.parametrize("fused", [False, True], ids=["cast", "swiglu"])
@pytest.mark.parametrize("groups", GROUPS + LARGE_GROUPS, ids=str)
def test_groups(groups: Groups, fused: bool, alignment: object) -> None:
    if groups.layout != MASKED:
        alignment(groups.alignment)
    check_groups(groups, Case(0, 2048 + 8), "cuda", fused)
    check_groups(groups, Case(0, 140, FP32, use_ue8m0=True, use_packed_ue8m0=True), "cuda", fused)


@pytest.mark.parametrize("clamp", [None, 2.5])
@pytest.mark.parametrize("values", [SPECIAL, BITS, "normal"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_silu_mul_has_the_bits_of_pytorch(
    dtype: torch.dtype, values: str, clamp: float | None
) -> None:
    for use_ue8m0 in (False, True):
        check_silu_mul(Case(300, 2049, dtype, values, use_ue8m0), "cuda", clamp, exact=True)


def test_silu_of_every_bf16() -> None:
    gate = torch.arange(1 << 16, dtype=torch.int32, device="cuda").to(torch.int16).view(BF16)
    gate = gate.view(-1, 128)
    up = torch.ones_like(gate)
    wanted = cast_blocks_reference(silu_mul_reference(gate, up), 1, 32, False)
    for result, of in zip(quantize_silu_mul(gate, up, gran_k=32), wanted, strict=True):
        assert_bitwise_equal(result, of)


def test_the_classic_names_have_the_definition_s_bits() -> None:
    x = Case(384, 1000, BF16, SPECIAL).input("cuda")
    for use_ue8m0 in (False, True):
        for cast, rows, columns in (
            (per_token_cast_to_fp8, 1, 128),
            (per_channel_cast_to_fp8, 128, 1),
            (per_block_cast_to_fp8, 128, 128),
        ):
            for view in (x, x[:, 3:900], x[:256, :384].T):
                wanted = cast_blocks_reference(view, rows, columns, use_ue8m0)
                for result, of in zip(cast(view, use_ue8m0), wanted, strict=True):
                    assert_bitwise_equal(result, of)
                    assert result.is_contiguous()
    keys = x[:, :128]
    wanted = cast_blocks_reference(keys, 1, 128, False)
    data, sf = per_custom_dims_cast_to_fp8(keys, (0,), False)
    assert_bitwise_equal(data, wanted[0])
    assert_bitwise_equal(sf, wanted[1][:, 0])


@pytest.mark.parametrize("per_token", [True, False], ids=["per_token", "per_block"])
def test_more_than_two_to_the_31_elements(per_token: bool) -> None:
    rows, columns = 300_000, 7296
    assert rows * columns > 2**31
    x = torch.empty(rows, columns, dtype=BF16, device="cuda")
    for part in x.split(1 << 14):
        part.normal_()
    x[-1, -1] = math.inf
    data, sf = quantize_per_token(x) if per_token else quantize_per_block(x)
    step = 1 << 14
    for first in range(0, rows, step):
        part = slice(first, first + step)
        blocks = (1, 128) if per_token else (128, 128)
        wanted = cast_blocks_reference(x[part], *blocks, False)
        assert torch.equal(data[part].view(torch.uint8), wanted[0].view(torch.uint8))
        sf_part = sf[part] if per_token else sf[first // 128 : (first + step) // 128]
        assert_bitwise_equal(sf_part[: len(wanted[1])], wanted[1])


def test_the_same_bits_every_time() -> None:
    x = Case(4096, 2 * 2048, BF16, BITS).input("cuda")
    first = quantize_swiglu(x)
    for _ in range(20):
        for result, of in zip(quantize_swiglu(x), first, strict=True):
            assert_bitwise_equal(result, of)


@pytest.mark.parametrize("num_sms", [1, 77])
def test_fewer_multiprocessors_give_the_same_bits(num_sms: int) -> None:
    with override(num_sms=num_sms):
        check_per_token(Case(999, 2000, BF16), "cuda")


def test_a_call_runs_on_the_current_stream() -> None:
    values = torch.randn(2048, 2048, device="cuda").bfloat16()
    x = torch.zeros_like(values)
    quantize_per_token(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        x.copy_(values)
        data, sf = quantize_per_token(x)
    stream.synchronize()
    for result, of in zip((data, sf), cast_blocks_reference(values, 1, 128, False), strict=True):
        assert_bitwise_equal(result, of)


def test_a_graph_replays_with_other_values_and_other_groups() -> None:
    x = torch.randn(4, 64, 512, device="cuda").bfloat16()
    masked_m = torch.tensor([3, 0, 64, 10], dtype=torch.int32, device="cuda")
    data = torch.zeros(4, 64, 512, device="cuda").to(torch.float8_e4m3fn)
    sf = torch.zeros(4, 64, 4, device="cuda")
    quantize_per_token(x, masked_m=masked_m, out=(data, sf))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        quantize_per_token(x, masked_m=masked_m, out=(data, sf))
    x.normal_()
    masked_m.copy_(torch.tensor([64, 7, 0, 1], dtype=torch.int32))
    sf.fill_(-1)
    graph.replay()
    for group, count in enumerate(masked_m.tolist()):
        wanted = cast_blocks_reference(x[group], 1, 128, False)
        assert_bitwise_equal(data[group, :count], wanted[0][:count])
        assert_bitwise_equal(sf[group, :count], wanted[1][:count])
        assert (sf[group, count:] == -1).all()
