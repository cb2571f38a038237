"""Calls that must be refused on a machine with a GPU, with nothing written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from operands import Operand, integer_operands

from deep_gemm import ArgumentError, fp8_gemm_nt

M, N, K = 64, 256, 512
Call = tuple[Operand, Operand, torch.Tensor]


def misaligned(tensor: torch.Tensor) -> torch.Tensor:
    """The same values, one element off the alignment of its buffer."""
    buffer = torch.zeros(tensor.numel() + 1, device="cuda").to(tensor.dtype)
    return buffer[1:].view(tensor.shape).copy_(tensor)


CASES: dict[str, tuple[Callable[[Operand, Operand, torch.Tensor], Call], str]] = {
    "CPU scale factors": (lambda a, b, d: ((a[0], a[1].cpu()), b, d), r"a\[1\].*cuda:0.*cpu"),
    "CPU operand": (lambda a, b, d: (a, (b[0].cpu(), b[1]), d), r"b\[0\].*cuda:0.*cpu"),
    "CPU output": (lambda a, b, d: (a, b, d.cpu()), r"argument d:.*cuda:0.*cpu"),
    "BF16 operand": (lambda a, b, d: ((a[0].bfloat16(), a[1]), b, d), r"a\[0\].*float8_e4m3fn"),
    "FP16 output": (lambda a, b, d: (a, b, d.half()), r"argument d:.*bfloat16.*float16"),
    "packed scale factors": (lambda a, b, d: ((a[0], a[1].int()), b, d), r"a\[1\].*FP32.*int32"),
    "transposed SFA": (lambda a, b, d: ((a[0], a[1].T), b, d), r"a\[1\].*shape.*\(4, 64\)"),
    "wrong K": (lambda a, b, d: (a, (b[0][:, :384], b[1]), d), r"b\[0\].*\[n, k\]"),
    "wrong D": (lambda a, b, d: (a, b, d[:, :128]), r"argument d:.*\[m, n\]"),
    "column-major D": (lambda a, b, d: (a, b, d.T.contiguous().T), r"argument d:.*row-major"),
    "every other column": (
        lambda a, b, d: ((a[0].repeat(1, 2)[:, ::2], a[1]), b, d),
        r"a\[0\].*row-major",
    ),
    "misaligned A": (lambda a, b, d: ((misaligned(a[0]), a[1]), b, d), r"a\[0\].*16 bytes.*0x"),
    "misaligned D": (lambda a, b, d: (a, b, misaligned(d)), r"argument d:.*16 bytes.*0x"),
    "no pair": (lambda a, b, d: (a[0], b, d), r"argument a:.*pair"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_argument_is_named_and_nothing_is_written(name: str) -> None:
    change, message = CASES[name]
    a, b = integer_operands(M, N, K)
    d = torch.full((M, N), 7.0, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=message) as caught:
        fp8_gemm_nt(*change(a, b, d))
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, RuntimeError)
    torch.cuda.synchronize()
    assert (d == 7).all()


def test_c_of_another_dtype_or_in_part_d_is_refused() -> None:
    a, b = integer_operands(M, N, K)
    rows = torch.full((M + 1, N), 7.0, device="cuda", dtype=torch.bfloat16)
    d = rows[:M]
    for c in (d.float(), rows[1:]):
        with pytest.raises(ArgumentError, match="argument c"):
            fp8_gemm_nt(a, b, d, c=c)
    assert (d == 7).all()


@pytest.mark.parametrize(("n", "k", "message"), [(100, K, "argument d"), (N, 200, r"a\[0\]")])
def test_rows_that_tma_would_not_cut_exactly_are_refused(n: int, k: int, message: str) -> None:
    a, b = integer_operands(M, n, k)
    d = torch.empty(M, n, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=message + ": columns must take a multiple of 16 bytes"):
        fp8_gemm_nt(a, b, d)


def test_a_row_stride_that_tma_does_not_take_is_refused() -> None:
    a, b = integer_operands(M, N, K)
    d = torch.empty(M, N + 4, device="cuda", dtype=torch.bfloat16)[:, :N]
    with pytest.raises(ArgumentError, match=r"argument d: row stride.*16 bytes, got 520"):
        fp8_gemm_nt(a, b, d)


def test_a_recipe_without_a_kernel_is_refused() -> None:
    a, b = integer_operands(M, N, K)
    d = torch.empty(M, N, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=r"recipe.*\(1, 128, 128\) or \(1, 1, 128\)"):
        fp8_gemm_nt(a, b, d, recipe=(1, 1, 32))
