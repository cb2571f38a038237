"""Requantising in the emulator: both halves to the bit, near to what they stood for."""

from __future__ import annotations

import pytest
import torch

from deep_gemm import (
    get_mn_major_tma_aligned_packed_ue8m0_tensor,
    per_token_cast_to_fp8,
    requantize_to_ue8m0,
)
from deep_gemm.errors import ArgumentError
from deep_gemm.reports import reports_of
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.testing.layout_reference import pack_ue8m0
from deep_gemm.utils.math import ceil_div, ceil_to_ue8m0
from tests.requantised import CASES, Requantised, check, spread_out

pytestmark = pytest.mark.filterwarnings("ignore:CPU tensors")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_bit_is_right(case: Requantised) -> None:
    check(case, "cpu")


def test_values_move_by_no_more_than_half_a_step() -> None:
    data, sf = per_token_cast_to_fp8(torch.randn(40, 256), use_ue8m0=False)
    made, powers = requantize_to_ue8m0((data, sf), gran_mn=1)
    before, after = spread_out(data, sf, 1, 128), spread_out(made, powers, 1, 128)
    step = torch.maximum(before.abs() * 2**-4, spread_out(made, powers, 1, 128, 2.0**-10))
    assert ((after - before).abs() <= step).all()
    assert ((after - before).abs() > 0).any()


def test_powers_of_two_change_nothing() -> None:
    data, sf = per_token_cast_to_fp8(torch.randn(40, 256), use_ue8m0=True)
    made, powers = requantize_to_ue8m0((data, sf), gran_mn=1)
    assert torch.equal(made.view(torch.uint8), data.view(torch.uint8))
    assert_bitwise_equal(powers, sf)


def test_scale_factors_at_the_ends_of_the_range() -> None:
    values = [0.0, 1e-45, 2.0**-126, 3e-38, 1.5, 2.0**127, 2.1e38, float("inf"), -1.0, float("nan")]
    sf = torch.tensor(values)[:, None]
    data = torch.full((10, 16), 448.0).to(torch.float8_e4m3fn)
    made, powers = requantize_to_ue8m0((data, sf), gran_mn=1)
    least = 2.0**-126
    assert powers[:6, 0].tolist() == [least, least, least, 2.0**-124, 2.0, 2.0**127]
    assert powers[6:].isnan().all()
    assert_bitwise_equal(made[4].float(), torch.full((16,), 336.0).to(data.dtype).float())
    assert (made[0].float() == 0).all() and (made[5].float() == 448).all()


def test_packed_scale_factors_are_those_of_the_gemm() -> None:
    generator = torch.Generator().manual_seed(3)
    sf = torch.rand(2, 3, generator=generator) + 0.1
    data = torch.zeros(200, 300).to(torch.float8_e4m3fn)
    _, packed = requantize_to_ue8m0((data, sf), use_packed_ue8m0=True)
    expected = pack_ue8m0(ceil_to_ue8m0(sf), 200, 128)
    assert torch.equal(packed, expected) and packed.stride() == (1, 200)
    reports_of(torch.device("cpu")).check()
    get_mn_major_tma_aligned_packed_ue8m0_tensor(requantize_to_ue8m0((data, sf))[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gran_mn": 64}, "gran_mn: must be one of"),
        ({"gran_k": 16}, "gran_k: must be one of"),
        ({"gran_k": 64, "use_packed_ue8m0": True}, "gran_k: must be 32 or 128"),
        ({"gran_mn": 1}, r"x\[1\]: must have shape"),
        ({"x": torch.zeros(3)}, "x: must be a pair"),
        ({"data": torch.zeros(8, 4)}, r"x\[0\]: must have dtype"),
        ({"data": torch.zeros(4, 8).to(torch.float8_e4m3fn).T}, r"x\[0\]: must have contiguous"),
        ({"data": torch.zeros(4).to(torch.float8_e4m3fn)}, r"x\[0\]: must have 2 or 3"),
        ({"sf": torch.zeros(1, 1).double()}, r"x\[1\]: must have dtype"),
    ],
    ids=lambda value: None if isinstance(value, dict) else "",
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    data = change.pop("data", torch.zeros(8, 4).to(torch.float8_e4m3fn))
    sf = change.pop("sf", torch.ones(1, 1))
    x = change.pop("x", (data, sf))
    with pytest.raises(ArgumentError, match=message):
        requantize_to_ue8m0(x, **change)  # type: ignore[arg-type]


def test_nothing_to_do() -> None:
    data, sf = torch.empty(0, 16).to(torch.float8_e4m3fn), torch.empty(0, 1)
    made, powers = requantize_to_ue8m0((data, sf))
    assert made.shape == (0, 16) and powers.shape == (ceil_div(0, 128), 1)
