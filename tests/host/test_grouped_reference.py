"""The references of the grouped GEMMs, against products taken one element at a time."""

from __future__ import annotations

import math

import pytest
import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.testing import (
    by_k_group,
    by_masked_group,
    by_row_group,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    max_scaled_error,
)

Operand = tuple[torch.Tensor, torch.Tensor]
GEMMS = [fp8_gemm_nt_reference, fp8_gemm_nt_yardstick]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def operand(rows: int, k: int, gran_mn: int) -> Operand:
    """Small integers with power-of-two scale factors: every sum is exact in FP32."""
    data = torch.randint(-4, 5, (rows, k)).to(torch.float8_e4m3fn)
    return data, torch.randint(-2, 3, (-(-rows // gran_mn), -(-k // 128))).float().exp2()


def weights(num_groups: int, n: int, k: int) -> Operand:
    data, sf = zip(*(operand(n, k, 128) for _ in range(num_groups)), strict=True)
    return torch.stack([x.view(torch.uint8) for x in data]).view(data[0].dtype), torch.stack(sf)


def element(a: Operand, b: Operand, row: int, column: int, gran_n: int) -> float:
    """One element of A @ B.T by a loop over k."""
    (x, sfa), (y, sfb) = a, b
    return sum(
        x[row, i].item() * sfa[row, i // 128].item()
        * y[column, i].item() * sfb[column // gran_n, i // 128].item()
        for i in range(x.shape[1])
    )  # fmt: skip


@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("with_c", [False, True])
@pytest.mark.parametrize("gran_n", [1, 128])
def test_one_product(gemm, with_c: bool, gran_n: int) -> None:
    m, n, k = 3, 130, 144
    a, b = operand(m, k, 1), operand(n, k, gran_n)
    c = torch.randint(-9, 9, (m, n)).float() if with_c else None
    d = gemm(a, b, c, gran_n)
    for row in range(m):
        for column in (0, 1, 127, 128, 129):
            expected = element(a, b, row, column, gran_n)
            if c is not None:
                expected += c[row, column].item()
            assert d[row, column] == torch.tensor(expected, dtype=d.dtype)


@pytest.mark.parametrize("gemm", GEMMS)
def test_rows_of_groups_in_any_order_and_padding_that_holds_nan(gemm) -> None:
    row_groups = torch.tensor([-1, 2, 2, 0, -1, 0, 2, -1])
    a, b = operand(8, 144, 1), weights(4, 130, 144)
    a[0].view(torch.uint8)[row_groups < 0] = 0x7F
    a[1][row_groups < 0] = math.nan
    d = by_row_group(gemm, a, b, row_groups)
    for row, group in enumerate(row_groups.tolist()):
        for column in (0, 127, 128, 129):
            own = b[0][group], b[1][group]
            expected = element(a, own, row, column, 128) if group >= 0 else 0.0
            assert d[row, column] == torch.tensor(expected, dtype=d.dtype)


@pytest.mark.parametrize("gemm", GEMMS)
def test_masked_rows(gemm) -> None:
    masked_m = [2, 0, 3]
    data, sf = zip(*(operand(3, 144, 1) for _ in range(3)), strict=True)
    a = torch.stack([x.view(torch.uint8) for x in data]).view(data[0].dtype), torch.stack(sf)
    a[0].view(torch.uint8)[0, 2] = 0x7F
    a[1][1] = math.nan
    b = weights(3, 130, 144)
    d = by_masked_group(gemm, a, b, masked_m)
    assert tuple(d.shape) == (3, 3, 130)
    for group, rows in enumerate(masked_m):
        own = (a[0][group], a[1][group]), (b[0][group], b[1][group])
        for row in range(3):
            expected = element(*own, row, 129, 128) if row < rows else 0.0
            assert d[group, row, 129] == torch.tensor(expected, dtype=d.dtype)


@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("with_c", [False, True])
def test_k_groups(gemm, with_c: bool) -> None:
    m, n, ks = 3, 5, [0, 256, 128, 0]
    parts = [(operand(m, k, 1), operand(n, k, 1)) for k in ks]
    a, b = (
        (
            torch.cat([part[i][0].view(torch.uint8).flatten() for part in parts]).view(
                torch.float8_e4m3fn
            ),
            torch.cat([part[i][1] for part in parts], dim=1),
        )
        for i in (0, 1)
    )
    c = torch.randint(-9, 9, (4, m, n)).float() if with_c else None
    d = by_k_group(gemm, a, b, ks, c)
    for group, own in enumerate(parts):
        for row in range(m):
            for column in range(n):
                expected = element(*own, row, column, 1)
                if c is not None:
                    expected += c[group, row, column].item()
                assert d[group, row, column] == torch.tensor(expected, dtype=d.dtype)


def test_no_rows_at_all() -> None:
    a, b = operand(0, 144, 1), weights(2, 130, 144)
    none = torch.zeros(0, dtype=torch.int32)
    assert tuple(by_row_group(fp8_gemm_nt_reference, a, b, none).shape) == (0, 130)


def test_the_yardstick_bounds_what_a_tensor_core_cuts_off() -> None:
    """The bound that FP32 results are held to: 13 fractional bits of each product and sum."""
    from deep_gemm import per_token_cast_to_fp8
    from tests.emulator.fp8_reference import element as wgmma_element

    x, y = (per_token_cast_to_fp8(torch.randn(8, 512).bfloat16(), False) for _ in range(2))
    codes = [operand[0].view(torch.uint8).tolist() for operand in (x, y)]
    d = torch.zeros(8, 8)
    for row in range(8):
        for column in range(8):
            for block in range(4):
                bits = None
                for first in range(128 * block, 128 * (block + 1), 32):
                    k = slice(first, first + 32)
                    bits = wgmma_element(codes[0][row][k], codes[1][column][k], bits)
                partial = torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)
                d[row, column] += partial * x[1][row, block] * y[1][column, block]
    reference = fp8_gemm_nt_reference(x, y, gran_n=1)
    yardstick = max_scaled_error(fp8_gemm_nt_yardstick(x, y, gran_n=1), reference)
    assert 1e-5 < max_scaled_error(d, reference) <= yardstick


def test_refusals() -> None:
    a, b = operand(4, 128, 1), weights(2, 8, 128)
    with pytest.raises(ArgumentError, match=r"row_groups: must have shape .* got \(3,\)"):
        by_row_group(fp8_gemm_nt_reference, a, b, torch.zeros(3, dtype=torch.int32))
    with pytest.raises(ArgumentError, match="row_groups: must be below 2, got 2"):
        by_row_group(fp8_gemm_nt_reference, a, b, torch.tensor([0, 1, 2, -1]))
    masked = a[0].view(2, 2, 128), a[1].view(2, 2, 1)
    for masked_m in ([1], [1, 3], [-1, 1]):
        with pytest.raises(ArgumentError, match=r"masked_m: must be 2 numbers in 0\.\.2, got"):
            by_masked_group(fp8_gemm_nt_reference, masked, b, masked_m)
    flat = a[0].flatten(), a[1]
    with pytest.raises(ArgumentError, match="b: must have 256 elements and 1 columns"):
        by_k_group(fp8_gemm_nt_reference, flat, (b[0].flatten(), b[1][:, 0]), [128])
