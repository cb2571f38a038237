"""What the casts refuse: the argument, the rule and what was got, without a GPU or a compiler."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from deep_gemm import ArgumentError
from deep_gemm.quantize import (
    per_custom_dims_cast_to_fp8,
    per_token_cast_to_fp8,
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_silu_mul,
    quantize_swiglu,
)

X = torch.zeros(6, 256, dtype=torch.bfloat16)
X3 = X.view(2, 3, 256)
COUNTS = torch.zeros(2, dtype=torch.int32)
IDS = torch.zeros(6, dtype=torch.int32)
DATA = torch.zeros(6, 256).to(torch.float8_e4m3fn)
SF = torch.zeros(6, 2)

Call = Callable[[], object]

REFUSALS: dict[str, tuple[Call, str]] = {
    "no tensor": (
        lambda: quantize_per_token([1.0]),
        "argument x: must be a torch.Tensor, got list",
    ),
    "integers": (
        lambda: quantize_per_token(IDS[None]),
        "argument x: must be BF16, FP16 or FP32, got torch.int32",
    ),
    "three dimensions without counts": (
        lambda: quantize_per_token(X3),
        r"argument x: must have 2 dimensions, got shape \(2, 3, 256\)",
    ),
    "two dimensions with counts": (
        lambda: quantize_per_token(X, masked_m=COUNTS),
        r"argument x: must have 3 dimensions, got shape \(6, 256\)",
    ),
    "columns apart": (
        lambda: quantize_per_block(X.T),
        r"argument x: must have contiguous columns, got strides \(1, 256\)",
    ),
    "another device": (
        lambda: quantize_per_token(X.to("meta")),
        "argument x: must be on a CUDA device, or on the CPU for the emulator, got meta",
    ),
    "another granularity": (
        lambda: quantize_per_token(X, gran_k=16),
        r"argument gran_k: must be one of \(32, 64, 128\), got 16",
    ),
    "packed, not powers of two": (
        lambda: quantize_per_token(X, use_packed_ue8m0=True),
        "argument use_packed_ue8m0: needs use_ue8m0=True, got use_ue8m0=False",
    ),
    "packed, not powers of two, classic": (
        lambda: per_token_cast_to_fp8(X, False, use_packed_ue8m0=True),
        "argument use_packed_ue8m0: needs use_ue8m0=True",
    ),
    "counts and ids": (
        lambda: quantize_per_token(X3, masked_m=COUNTS, grouped_layout=IDS),
        "argument grouped_layout: must not be given together with masked_m, got both",
    ),
    "ends without a layout": (
        lambda: quantize_per_token(X, use_psum_layout=True),
        "argument use_psum_layout: needs a grouped_layout, got none",
    ),
    "counts of another type": (
        lambda: quantize_per_token(X3, masked_m=COUNTS.long()),
        "argument masked_m: must have dtype torch.int32, got torch.int64",
    ),
    "too few counts": (
        lambda: quantize_per_token(X3, masked_m=COUNTS[:1]),
        "argument masked_m: must have one number for each of 2, got 1",
    ),
    "ids of a part of the rows": (
        lambda: quantize_per_token(X, grouped_layout=COUNTS),
        "argument grouped_layout: must have one number for each of 6, got 2",
    ),
    "ids apart": (
        lambda: quantize_per_token(X, grouped_layout=torch.zeros(12, dtype=torch.int32)[::2]),
        r"argument grouped_layout: must be a contiguous vector, got shape \(6,\), strides \(2,\)",
    ),
    "a list of ids": (
        lambda: quantize_per_token(X, grouped_layout=[0] * 6),
        "argument grouped_layout: must be a torch.Tensor, got list",
    ),
    "ids elsewhere": (
        lambda: quantize_per_token(X, grouped_layout=IDS.to("meta")),
        "argument grouped_layout: must be on cpu, the device of x, got meta",
    ),
    "half an output": (
        lambda: quantize_per_token(X, out=DATA),
        r"argument out: must be a pair \(data, scale factors\), got Tensor",
    ),
    "an output of another shape": (
        lambda: quantize_per_token(X, out=(DATA[:5], SF)),
        r"argument out\[0\]: must have shape that of the result = \(6, 256\), got shape \(5, 256\)",
    ),
    "an output of another type": (
        lambda: quantize_per_token(X, out=(DATA.view(torch.uint8), SF)),
        r"argument out\[0\]: must have dtype torch.float8_e4m3fn, got torch.uint8",
    ),
    "scale factors of another shape": (
        lambda: quantize_per_token(X, out=(DATA, SF.T)),
        r"argument out\[1\]: must have shape that of the result = \(6, 2\), got shape \(2, 6\)",
    ),
    "scale factors of another type": (
        lambda: quantize_per_channel(X, out=(DATA, torch.zeros(1, 256).double())),
        r"argument out\[1\]: must have dtype torch.float32, got torch.float64",
    ),
    "an output with its columns apart": (
        lambda: quantize_per_block(
            torch.zeros(256, 6), out=(DATA.T, torch.zeros(2, 1)), use_ue8m0=True
        ),
        r"argument out\[0\]: must have contiguous columns, got strides \(1, 256\)",
    ),
    "an odd number of columns": (
        lambda: quantize_swiglu(X[:, :255]),
        r"argument x: must have an even number of columns, got \(6, 255\)",
    ),
    "a negative limit": (
        lambda: quantize_swiglu(X, clamp=-1.0),
        "argument clamp: must not be negative, got -1.0",
    ),
    "no limit at all": (
        lambda: quantize_swiglu(X, clamp=float("nan")),
        "argument clamp: must not be negative, got nan",
    ),
    "up of another shape": (
        lambda: quantize_silu_mul(X, X[:, :128]),
        r"argument up: must have shape that of gate = \(6, 256\), got shape \(6, 128\)",
    ),
    "up of another type": (
        lambda: quantize_silu_mul(X, X.float()),
        "argument up: must have dtype torch.bfloat16, got torch.float32",
    ),
    "dims of nothing": (
        lambda: per_custom_dims_cast_to_fp8(X, (2,), False),
        r"dims: must be dimensions of x \(6, 256\), got \(2,\)",
    ),
    "custom dims of nothing": (
        lambda: per_custom_dims_cast_to_fp8(X[:0], (0,), False),
        r"x: must not be empty, got shape \(0, 256\)",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refuses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    call, message = REFUSALS[name]
    for module in ("block_cast", "per_token_cast"):
        monkeypatch.setattr(f"deep_gemm.kernels.{module}.build", no_build)
    with pytest.raises(ArgumentError, match=message):
        call()


def no_build(source: object) -> object:
    raise AssertionError(f"nothing is to be built: {source}")


def test_too_much_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """More pieces than the kernel counts in 32 bits; nothing so large is allocated for it."""
    for module in ("block_cast", "per_token_cast"):
        monkeypatch.setattr(f"deep_gemm.kernels.{module}.build", no_build)
    x = torch.zeros(2**16).as_strided((2**30, 2**16), (0, 1))
    out = torch.zeros(2**16).to(torch.float8_e4m3fn).as_strided((2**30, 2**16), (0, 1))
    sf = torch.zeros(1)
    with pytest.raises(ArgumentError, match=r"argument x: must have at most 2\*\*31 pieces"):
        quantize_per_token(x, out=(out, sf.as_strided((2**30, 512), (0, 0))))
    with pytest.raises(ArgumentError, match="argument x: must have at most 2147483647 tiles"):
        quantize_per_block(x, out=(out, sf.as_strided((2**23, 512), (0, 0))))
