"""The casts against a block-by-block definition in NumPy, and where they can be imported from."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from deep_gemm.errors import ArgumentError
from deep_gemm.quantize import (
    per_block_cast_to_fp8,
    per_channel_cast_to_fp8,
    per_token_cast_to_fp8,
)
from deep_gemm.utils.math import align, ceil_div, ceil_to_ue8m0

Cast = Callable[..., tuple[torch.Tensor, torch.Tensor]]

# Each cast with the rows and columns of its block, in units of gran_k (0: one element).
CASTS = [
    pytest.param(per_token_cast_to_fp8, (0, 1), id="per_token"),
    pytest.param(per_channel_cast_to_fp8, (1, 0), id="per_channel"),
    pytest.param(per_block_cast_to_fp8, (1, 1), id="per_block"),
]


def random_matrix(m: int, n: int, seed: int = 0) -> torch.Tensor:
    """Normal values whose rows and columns differ in size by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(m, n, generator=generator)
    rows, cols = (torch.randn(size, generator=generator).exp2() for size in (m, n))
    return x * rows[:, None] * cols[None, :]


def defined_cast(
    x: torch.Tensor, rows: int, cols: int, use_ue8m0: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The cast, one block at a time, in NumPy's FP32."""
    m, n = x.shape
    data = torch.empty(m, n, dtype=torch.float8_e4m3fn)
    sf = torch.empty(len(range(0, m, rows)), len(range(0, n, cols)))
    for i, top in enumerate(range(0, m, rows)):
        for j, left in enumerate(range(0, n, cols)):
            block = x[top : top + rows, left : left + cols].float().numpy()
            factor = np.maximum(np.abs(block).max(), np.float32(1e-4)) / np.float32(448)
            if use_ue8m0:
                factor = np.float32(2.0 ** math.ceil(math.log2(factor)))
            scaled = torch.from_numpy(block * (np.float32(1) / factor))
            data[top : top + rows, left : left + cols] = scaled.to(torch.float8_e4m3fn)
            sf[i, j] = float(factor)
    return data, sf


@pytest.mark.parametrize("y", [1, 3, 16, 128])
def test_ceil_div_and_align(y: int) -> None:
    for x in range(300):
        assert ceil_div(x, y) == math.ceil(x / y)
        assert align(x, y) == min(multiple for multiple in range(0, 500, y) if multiple >= x)


def test_integer_helpers_are_exact_beyond_float_precision() -> None:
    assert ceil_div(2**62 + 1, 2) == 2**61 + 1
    assert align(2**60 + 1, 128) == 2**60 + 128


def test_ceil_to_ue8m0_is_the_next_power_of_two() -> None:
    x = random_matrix(64, 64).abs() + 1e-30
    rounded = ceil_to_ue8m0(x)
    mantissa, _ = torch.frexp(rounded)
    assert (mantissa == 0.5).all()
    assert (rounded >= x).all()
    assert (rounded < 2 * x).all()


def test_ceil_to_ue8m0_keeps_every_power_of_two() -> None:
    powers = torch.tensor([2.0**e for e in range(-126, 128)])
    assert torch.equal(ceil_to_ue8m0(powers), powers)
    above = torch.nextafter(powers[:-1], torch.tensor(math.inf))
    assert torch.equal(ceil_to_ue8m0(above), powers[1:])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, 2.0**-126),
        (1e-40, 2.0**-126),
        (3.4e38, 2.0**127),
        (math.inf, 2.0**127),
        (math.nan, 2.0**127),
        (-3.0, 4.0),
    ],
)
def test_ceil_to_ue8m0_at_the_edges(value: float, expected: float) -> None:
    assert ceil_to_ue8m0(torch.tensor([value])).item() == expected


def test_ceil_to_ue8m0_takes_strided_bf16() -> None:
    x = random_matrix(6, 10).bfloat16()[:, ::2].T
    assert torch.equal(ceil_to_ue8m0(x), ceil_to_ue8m0(x.float().contiguous()))


@pytest.mark.parametrize(("cast", "blocks"), CASTS)
@pytest.mark.parametrize("use_ue8m0", [False, True], ids=["fp32_sf", "ue8m0_sf"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(
    ("m", "n", "gran_k"),
    [(128, 256, 128), (256, 576, 128), (384, 100, 128), (128, 1, 128), (64, 80, 32), (6, 7, 1)],
)
def test_cast_is_the_definition_bit_for_bit(
    cast: Cast,
    blocks: tuple[int, int],
    use_ue8m0: bool,
    dtype: torch.dtype,
    m: int,
    n: int,
    gran_k: int,
) -> None:
    x = random_matrix(m, n).to(dtype)
    data, sf = cast(x, use_ue8m0, gran_k=gran_k)
    rows, cols = (gran_k if whole else 1 for whole in blocks)
    expected_data, expected_sf = defined_cast(x, rows, cols, use_ue8m0)
    assert data.dtype == torch.float8_e4m3fn
    assert sf.dtype == torch.float32
    assert torch.equal(data.view(torch.uint8), expected_data.view(torch.uint8))
    assert torch.equal(sf, expected_sf)
    assert data.is_contiguous()
    assert sf.is_contiguous()


@pytest.mark.parametrize(
    ("cast", "m", "n", "sf_shape"),
    [
        (per_token_cast_to_fp8, 3, 300, (3, 3)),
        (per_token_cast_to_fp8, 0, 300, (0, 3)),
        (per_token_cast_to_fp8, 3, 0, (3, 0)),
        (per_channel_cast_to_fp8, 256, 300, (2, 300)),
        (per_channel_cast_to_fp8, 0, 5, (0, 5)),
        (per_block_cast_to_fp8, 130, 300, (2, 3)),
        (per_block_cast_to_fp8, 0, 0, (0, 0)),
        (per_block_cast_to_fp8, 0, 130, (0, 2)),
    ],
)
def test_cast_shapes(cast: Cast, m: int, n: int, sf_shape: tuple[int, int]) -> None:
    data, sf = cast(random_matrix(m, n), False)
    assert tuple(data.shape) == (m, n)
    assert tuple(sf.shape) == sf_shape


@pytest.mark.parametrize(("cast", "blocks"), CASTS)
def test_strides_do_not_matter(cast: Cast, blocks: tuple[int, int]) -> None:
    wide = random_matrix(512, 400)
    for view in (wide[128:256, 50:350], wide[::2, ::2], wide[:300, :256].T):
        data, sf = cast(view, False)
        expected_data, expected_sf = cast(view.contiguous(), False)
        assert torch.equal(data.view(torch.uint8), expected_data.view(torch.uint8))
        assert torch.equal(sf, expected_sf)


@pytest.mark.parametrize("power", range(-8, 9, 4))
def test_ue8m0_scale_factor_of_an_exact_power_is_not_doubled(power: int) -> None:
    data, sf = per_token_cast_to_fp8(torch.full((1, 128), 448.0 * 2.0**power), True)
    assert sf.item() == 2.0**power
    assert (data.float() == 448).all()


def test_zeros_cast_to_zeros_with_a_usable_scale_factor() -> None:
    data, sf = per_block_cast_to_fp8(torch.zeros(130, 130), False)
    assert (data.float() == 0).all()
    assert (sf == np.float32(1e-4) / np.float32(448)).all()


def test_nan_stays_in_its_block() -> None:
    x = random_matrix(2, 256)
    x[1, 130] = math.nan
    data, sf = per_token_cast_to_fp8(x, False)
    assert sf.isnan().tolist() == [[False, False], [False, True]]
    assert data.isnan().nonzero()[:, 1].tolist() == list(range(128, 256))


@pytest.mark.parametrize("cast", [per_token_cast_to_fp8, per_channel_cast_to_fp8])
@pytest.mark.parametrize(
    ("x", "gran_k", "message"),
    [
        (torch.zeros(128), 128, r"x: .*torch.float32 of shape \(128,\)"),
        (torch.zeros(2, 128, 128), 128, r"x: .*shape \(2, 128, 128\)"),
        (torch.zeros(128, 128, dtype=torch.int32), 128, r"x: .*torch.int32"),
        (torch.zeros(128, 128), 0, r"gran_k: must be positive, got 0"),
    ],
)
def test_bad_input_is_refused(cast: Cast, x: torch.Tensor, gran_k: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        cast(x, False, gran_k=gran_k)


def test_per_channel_refuses_partial_blocks() -> None:
    with pytest.raises(ValueError, match=r"x: rows must be a multiple of gran_k=128, got 130"):
        per_channel_cast_to_fp8(torch.zeros(130, 8), False)


IMPORT_CHECK = """
import sys

import torch

CASTS = ("per_token_cast_to_fp8", "per_channel_cast_to_fp8", "per_block_cast_to_fp8")
ORDERS = [
    ("deep_gemm.quantize", "deep_gemm.utils", "deep_gemm.utils.math"),
    ("deep_gemm.utils", "deep_gemm.utils.math", "deep_gemm.quantize"),
    ("deep_gemm.utils.math", "deep_gemm.quantize", "deep_gemm.utils"),
    ("deep_gemm.testing", "deep_gemm.utils", "deep_gemm.quantize", "deep_gemm.utils.math"),
]
for order in ORDERS:
    for name in [name for name in sys.modules if name.split(".")[0] == "deep_gemm"]:
        del sys.modules[name]
    for module in order:
        __import__(module)
    quantize = sys.modules["deep_gemm.quantize"]
    for module in ("deep_gemm.utils", "deep_gemm.utils.math"):
        for name in CASTS:
            if getattr(sys.modules[module], name) is not getattr(quantize, name):
                sys.exit(f"{module}.{name} is another function")
        if hasattr(sys.modules[module], "no_such_name"):
            sys.exit(f"{module} has everything")
    exec("from deep_gemm.utils import *\\nalign, ceil_div, ceil_to_ue8m0, " + ", ".join(CASTS))
    exec("from deep_gemm.utils.math import per_block_cast_to_fp8")
if torch.cuda.is_initialized():
    sys.exit("CUDA was initialised")
"""


def test_imports_in_any_order_without_cuda() -> None:
    command = [sys.executable, "-O", "-c", IMPORT_CHECK]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
