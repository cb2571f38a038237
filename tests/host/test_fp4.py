"""Packed FP4 against its table of values, and the packing of UE8M0 scale factors."""

from __future__ import annotations

import inspect
import math

import pytest
import torch

import deep_gemm
from deep_gemm.errors import ArgumentError
from deep_gemm.fp4 import (
    MAGNITUDES,
    cast_back_from_fp4,
    per_token_cast_to_fp4,
    transpose_packed_fp4,
)
from deep_gemm.quantize import per_custom_dims_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.testing.quantize_reference import cast_blocks_reference
from deep_gemm.utils.math import ceil_to_ue8m0, pack_ue8m0_to_int, unpack_ue8m0_from_int


def random_matrix(m: int, n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(m + n)
    return torch.randn(m, n, generator=generator) * torch.randn(m, 1, generator=generator).exp()


def nearest_code(value: float) -> int:
    """By comparison with every magnitude; ties go to the even code."""
    distance = {code: abs(abs(value) - magnitude) for code, magnitude in enumerate(MAGNITUDES)}
    code = min(distance, key=lambda code: (distance[code], code % 2))
    return code | (8 if math.copysign(1, value) < 0 else 0)


def test_every_number_is_rounded_to_the_nearest_even() -> None:
    steps = [i / 64 for i in range(6 * 64 + 1)]
    values = [*steps, *(-step for step in steps)]
    values += [math.nextafter(2.5, 3), math.nextafter(2.5, 2), 0.0, -0.0]
    values += [6.0] * (-len(values) % 2)
    x = torch.tensor([values])
    packed, sf = per_token_cast_to_fp4(x, False, gran_k=len(values))
    assert sf.item() == 1.0
    codes = packed.view(torch.uint8)[0].tolist()
    rounded = [float(torch.tensor(value)) for value in values]
    assert codes == [
        nearest_code(low) | nearest_code(high) << 4
        for low, high in zip(rounded[::2], rounded[1::2], strict=True)
    ]


@pytest.mark.parametrize("use_ue8m0", [False, True])
@pytest.mark.parametrize("gran_k", [32, 128])
def test_what_is_cast_comes_back(use_ue8m0: bool, gran_k: int) -> None:
    x = random_matrix(9, 300)
    packed, sf = per_token_cast_to_fp4(x, use_ue8m0, gran_k)
    assert packed.shape == (9, 150) and packed.dtype == torch.int8
    assert sf.shape == (9, -(-300 // gran_k))
    back = cast_back_from_fp4(packed, sf, gran_k)
    assert back.shape == x.shape
    # Half the widest step is 1, of at most 6 times the scale factor.
    assert ((back - x).abs() <= sf.repeat_interleave(gran_k, 1)[:, :300] * 1.001).all()
    again, sf_again = per_token_cast_to_fp4(back, use_ue8m0, gran_k)
    assert torch.equal(cast_back_from_fp4(again, sf_again, gran_k), back)


def test_fp4_scale_factors_are_amax_over_six() -> None:
    x = random_matrix(4, 64)
    _, sf = per_token_cast_to_fp4(x, False, 32)
    assert torch.equal(sf, x.view(4, 2, 32).abs().amax(2) / torch.tensor(6.0))
    _, zero = per_token_cast_to_fp4(torch.zeros(1, 32), False, 32)
    assert zero.item() == float(torch.tensor(1e-4) / torch.tensor(6.0))
    _, powers = per_token_cast_to_fp4(x, True, 32)
    assert torch.equal(powers, ceil_to_ue8m0(sf))


def test_packed_fp4_scale_factors_are_filled_up_with_ones() -> None:
    x = random_matrix(3, 32 * 6)
    _, sf = per_token_cast_to_fp4(x, True, 32)
    packed, words = per_token_cast_to_fp4(x, True, 32, use_packed_ue8m0=True)
    assert words.shape == (3, 2) and words.dtype == torch.int32
    filled = unpack_ue8m0_from_int(words)
    assert torch.equal(filled[:, :6], sf) and (filled[:, 6:] == 1).all()
    wanted = cast_back_from_fp4(packed, sf, 32)
    assert torch.equal(cast_back_from_fp4(packed, words, 32, use_packed_ue8m0=True), wanted)


def test_fp4_is_transposed_number_by_number() -> None:
    packed, _ = per_token_cast_to_fp4(random_matrix(6, 10), False)
    ones = torch.ones(6, 1)
    turned = transpose_packed_fp4(packed)
    assert turned.shape == (10, 3) and turned.is_contiguous()
    back = cast_back_from_fp4(turned, torch.ones(10, 1))
    assert torch.equal(back, cast_back_from_fp4(packed, ones).T)
    assert torch.equal(transpose_packed_fp4(turned), packed)


def test_packing_puts_the_first_exponent_into_the_low_byte() -> None:
    x = torch.tensor([[1.0, 2.0, 0.5, 0.0, 2.0**127, 2.0**-126, 1.0, 1.0]])
    words = pack_ue8m0_to_int(x)
    assert words.tolist() == [
        [127 | 128 << 8 | 126 << 16, (254 | 1 << 8 | 127 << 16) + (127 << 24)]
    ]
    assert torch.equal(unpack_ue8m0_from_int(words), x)
    batch = x.repeat(3, 2, 1)
    assert torch.equal(unpack_ue8m0_from_int(pack_ue8m0_to_int(batch.mT.contiguous().mT)), batch)


def test_packed_fp8_scale_factors_are_filled_up_with_zeros() -> None:
    x = random_matrix(3, 32 * 5 + 1)
    data, sf = per_token_cast_to_fp8(x, True, 32)
    same, words = per_token_cast_to_fp8(x, True, gran_k=32, use_packed_ue8m0=True)
    assert torch.equal(same.view(torch.uint8), data.view(torch.uint8))
    filled = unpack_ue8m0_from_int(words)
    assert torch.equal(filled[:, :6], sf) and filled.shape == (3, 8) and (filled[:, 6:] == 0).all()


def test_packing_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SGLang does, to leave out the wait for the device."""
    calls = []

    def pack(x: torch.Tensor) -> torch.Tensor:
        calls.append(x.shape)
        return pack_ue8m0_to_int(x)

    monkeypatch.setattr("deep_gemm.utils.math.pack_ue8m0_to_int", pack)
    per_token_cast_to_fp8(torch.ones(2, 256), True, use_packed_ue8m0=True)
    per_token_cast_to_fp4(torch.ones(2, 256), True, use_packed_ue8m0=True)
    assert calls == [(2, 4), (2, 4)]


def test_the_signature_says_that_scale_factors_can_be_packed() -> None:
    for module in (deep_gemm, deep_gemm.utils, deep_gemm.utils.math):
        parameters = inspect.signature(module.per_token_cast_to_fp8).parameters
        assert list(parameters) == ["x", "use_ue8m0", "gran_k", "use_packed_ue8m0"]


def test_custom_dims_have_a_scale_factor_for_each_index() -> None:
    x = random_matrix(24, 70).view(4, 6, 70)
    data, sf = per_custom_dims_cast_to_fp8(x, (0,), False)
    wanted, factors = cast_blocks_reference(x.view(4, -1), 1, 420, False)
    assert torch.equal(data.view(4, -1).view(torch.uint8), wanted.view(torch.uint8))
    assert sf.shape == (4,) and torch.equal(sf, factors[:, 0])
    data, sf = per_custom_dims_cast_to_fp8(x, (0, -2), True)
    wanted, factors = cast_blocks_reference(x.view(24, 70), 1, 70, True)
    assert torch.equal(data.view(24, 70).view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(sf, factors.view(4, 6))
    data, sf = per_custom_dims_cast_to_fp8(x[:1].bfloat16(), (0, 2), False)
    assert data.shape == (1, 6, 70) and sf.shape == (70,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: per_token_cast_to_fp4(torch.zeros(2, 7), False), "x: must be a real matrix .* 7"),
        (lambda: per_token_cast_to_fp4(torch.zeros(2, 8), False, 0), "gran_k: must be positive"),
        (
            lambda: per_token_cast_to_fp4(torch.zeros(2, 8), False, use_packed_ue8m0=True),
            "use_packed_ue8m0: needs use_ue8m0=True",
        ),
        (lambda: transpose_packed_fp4(torch.zeros(2, 8)), "packed: must be an int8 matrix"),
        (
            lambda: transpose_packed_fp4(torch.zeros(3, 8, dtype=torch.int8)),
            "a: must have an even number of rows",
        ),
        (
            lambda: cast_back_from_fp4(torch.zeros(2, 8, dtype=torch.int8), torch.ones(2, 1), 8),
            r"sf: must have m = 2 rows and at least ceil\(n / gran_k\) = 2 columns",
        ),
        (lambda: pack_ue8m0_to_int(torch.ones(2, 3)), "x: must be FP32 with a multiple of 4"),
        (lambda: pack_ue8m0_to_int(torch.ones(4).double()), "x: must be FP32 .* torch.float64"),
        (lambda: pack_ue8m0_to_int(torch.full((4,), 3.0)), "x: must hold powers of two and zeros"),
        (lambda: pack_ue8m0_to_int(torch.full((4,), -2.0)), "x: must hold powers of two and zeros"),
        (lambda: unpack_ue8m0_from_int(torch.ones(4)), "packed_sf: must be int32"),
    ],
)
def test_bad_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
