"""Cases of requantising, and the check that each of them passes on any device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deep_gemm import requantize_to_ue8m0
from deep_gemm.testing import assert_bitwise_equal
from deep_gemm.utils.math import ceil_div
from tests.transposes import random_bits


@dataclass(frozen=True)
class Requantised:
    """FP8 data, and how it lies.

    Attributes:
        shape: of the data.
        gran: rows and columns that share a scale factor.
        row_gap: bytes behind each row.
        offset: bytes before the first.
        sf_is_transposed: scale factors have contiguous columns.
    """

    shape: tuple[int, ...]
    gran: tuple[int, int]
    row_gap: int = 0
    offset: int = 0
    sf_is_transposed: bool = False

    def __str__(self) -> str:
        shape, gran = "x".join(map(str, self.shape)), "x".join(map(str, self.gran))
        return f"{shape}-per{gran}-{self.row_gap},{self.offset},{int(self.sf_is_transposed)}"


CASES = [
    Requantised((130, 288), (128, 128)),
    Requantised((33, 320), (1, 32), sf_is_transposed=True),
    Requantised((20, 200), (1, 128), row_gap=8),
    Requantised((17, 77), (1, 64), offset=3),
    Requantised((3, 129, 144), (128, 128), row_gap=16),
    Requantised((2, 9, 31), (1, 32), row_gap=1, sf_is_transposed=True),
    Requantised((1, 1), (128, 128)),
]


def spread_out(
    data: torch.Tensor, sf: torch.Tensor, gran_mn: int, gran_k: int, value: float | None = None
) -> torch.Tensor:
    """What data, or `value` in its place, stands for, in FP64."""
    rows, k = data.shape[-2:]
    each = sf.double().repeat_interleave(gran_mn, -2)[..., :rows, :]
    each = each.repeat_interleave(gran_k, -1)[..., :k]
    return each * (data.double() if value is None else value)


def reference(
    data: torch.Tensor, sf: torch.Tensor, gran: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the kernel computes, in PyTorch."""
    mantissa, exponent = torch.frexp(sf)
    powers = torch.exp2((exponent - (mantissa == 0.5).int()).float()).clamp(min=2.0**-126)
    factor = spread_out(data, sf / powers, *gran, value=1.0).float()
    return (data.float() * factor).clamp(-448, 448).to(data.dtype), powers


def check(case: Requantised, device: str) -> None:
    """Data of any bits, and positive scale factors, are requantised to the bit."""
    *batch, rows, k = case.shape
    stride = k + case.row_gap
    count = torch.Size(case.shape[:-1]).numel()
    raw = random_bits(case.offset + count * stride + 3, device)
    strides = (*(rows * stride for _ in batch), stride, 1)
    data = raw.view(torch.float8_e4m3fn).as_strided(case.shape, strides, case.offset)
    sf_shape = (*batch, ceil_div(rows, case.gran[0]), ceil_div(k, case.gran[1]))
    generator = torch.Generator(device).manual_seed(1)
    sf = torch.rand(sf_shape, device=device, generator=generator) * 4 + 1e-3
    if case.sf_is_transposed:
        sf = sf.mT.contiguous().mT
    made, powers = requantize_to_ue8m0((data, sf), gran_mn=case.gran[0], gran_k=case.gran[1])
    expected, expected_powers = reference(data, sf, case.gran)
    assert made.is_contiguous() and powers.is_contiguous()
    assert_bitwise_equal(powers, expected_powers)
    # A NaN's sign means nothing, and hardware's has none.
    wanted, got = (x.float().nan_to_num(nan=1e4) for x in (expected, made))
    assert_bitwise_equal(got, wanted)
