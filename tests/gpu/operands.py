"""Operands for the GPU tests, and the checks that every output passes."""

from __future__ import annotations

import torch

from deep_gemm import fp8_gemm_nt, per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.testing import (
    assert_bitwise_equal,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    guarded_output,
    max_scaled_error,
)

Operand = tuple[torch.Tensor, torch.Tensor]

# What a straightforward FP32 computation gives, twice; the tensor cores' 13 fractional bits of each
# product add less than this to the error of an element.
MAX_ERROR_OF_YARDSTICK = 2.0


def random_operands(m: int, n: int, k: int, seed: int = 0) -> tuple[Operand, Operand]:
    """Normal activations and weights, quantised by our casts."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def normal(rows: int) -> torch.Tensor:
        shape = (rows, k)
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16, generator=generator)

    return (
        per_token_cast_to_fp8(normal(m), use_ue8m0=False),
        per_block_cast_to_fp8(normal(n), use_ue8m0=False),
    )


def integer_operands(m: int, n: int, k: int, seed: int = 0) -> tuple[Operand, Operand]:
    """Small integers with scale factors that are powers of two: every sum on the way is exact."""
    generator = torch.Generator("cuda").manual_seed(seed)

    def integers(low: int, high: int, *shape: int) -> torch.Tensor:
        return torch.randint(low, high, shape, device="cuda", generator=generator)

    def powers(*shape: int) -> torch.Tensor:
        return torch.exp2(integers(-2, 3, *shape).float())

    num_k_blocks = -(-k // 128)
    a = integers(-2, 3, m, k).float().to(torch.float8_e4m3fn)
    b = integers(-2, 3, n, k).float().to(torch.float8_e4m3fn)
    return (a, powers(m, num_k_blocks)), (b, powers(-(-n // 128), num_k_blocks))


def check_close(d: torch.Tensor, a: Operand, b: Operand) -> None:
    """Every element is about as near to the FP64 result as plain FP32 code gets."""
    reference = fp8_gemm_nt_reference(a, b)
    error = max_scaled_error(d, reference)
    yardstick = max_scaled_error(fp8_gemm_nt_yardstick(a, b), reference)
    assert error <= MAX_ERROR_OF_YARDSTICK * yardstick, f"{error=} {yardstick=}"


def check_exact(d: torch.Tensor, a: Operand, b: Operand) -> None:
    """Every bit is right; for integer_operands only."""
    assert_bitwise_equal(d, fp8_gemm_nt_reference(a, b).to(d.dtype))


def run_guarded(a: Operand, b: Operand, row_stride: int | None = None) -> torch.Tensor:
    """Calls fp8_gemm_nt on a NaN-poisoned output whose surroundings must stay untouched."""
    out = guarded_output(a[0].shape[0], b[0].shape[0], row_stride=row_stride)
    fp8_gemm_nt(a, b, out.view)
    torch.cuda.synchronize()
    out.check()
    return out.view
