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


def with_gaps(rows: int, columns: int) -> torch.Tensor:
    """FP8 whose rows are not contiguous, and whose columns are not either."""
    stride = (2 * columns, 2)
    return torch.empty_strided((rows, columns), stride, dtype=torch.float8_e4m3fn, device="cuda")


CASES: dict[str, tuple[Callable[[Operand, Operand, torch.Tensor], Call], str]] = {
    "CPU scale factors": (lambda a, b, d: ((a[0], a[1].cpu()), b, d), r"a\[1\].*cuda:0.*cpu"),
    "CPU operand": (lambda a, b, d: (a, (b[0].cpu(), b[1]), d), r"b\[0\].*cuda:0.*cpu"),
    "CPU output": (lambda a, b, d: (a, b, d.cpu()), r"argument d:.*cuda:0.*cpu"),
    "BF16 operand": (lambda a, b, d: ((a[0].bfloat16(), a[1]), b, d), r"a\[0\].*float8_e4m3fn"),
    "FP16 output": (
        lambda a, b, d: (a, b, d.half()),
        r"argument d:.*bfloat16 or torch.float32.*float16",
    ),
    "packed scale factors": (lambda a, b, d: ((a[0], a[1].int()), b, d), r"a\[1\].*FP32.*int32"),
    "transposed SFA": (lambda a, b, d: ((a[0], a[1].T), b, d), r"a\[1\].*shape.*\(4, 64\)"),
    "wrong K": (lambda a, b, d: (a, (b[0][:, :384], b[1]), d), r"b\[0\].*\[n, k\]"),
    "wrong D": (lambda a, b, d: (a, b, d[:, :128]), r"argument d:.*\[m, n\]"),
    "column-major D": (lambda a, b, d: (a, b, d.T.contiguous().T), r"argument d:.*row-major"),
    "A of contiguous neither rows nor columns": (
        lambda a, b, d: ((with_gaps(M, K), a[1]), b, d),
        r"a\[0\].*row-major.*\(1024, 2\)",
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


C: dict[str, tuple[Callable[[torch.Tensor], object], str]] = {
    "another dtype": (torch.Tensor.float, r"torch.bfloat16, got torch.float32"),
    "another shape": (lambda d: d[1:].clone(), r"\[m, n\].*\(63, 256\)"),
    "another device": (torch.Tensor.cpu, r"on cuda:0.*cpu"),
    "no tensor": (lambda d: 1.0, r"torch.Tensor, got float"),
    "D's rows but for the first": (
        lambda d: d.as_strided(d.shape, (N, 1), N),
        r"be d, or share no memory",
    ),
    "D transposed": (lambda d: d.as_strided(d.shape, (1, M)), r"d's strides.*\(1, 64\)"),
}


@pytest.mark.parametrize("name", C)
def test_a_c_that_cannot_be_added_is_refused(name: str) -> None:
    """Overlapping D without being D, C would be read after parts of it had been overwritten."""
    change, message = C[name]
    a, b = integer_operands(M, N, K)
    d = torch.full((M + 1, N), 7.0, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=f"argument c: .*{message}"):
        fp8_gemm_nt(a, b, d[:M], c=change(d[:M]))
    torch.cuda.synchronize()
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


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ((1, 1, 32), r"recipe: must be \(1, 128, 128\) or \(1, 1, 128\).*\(1, 1, 32\)"),
        ((128, 128, 128), r"recipe: must be.*\(128, 128, 128\)"),
        # Scale factors per 128 rows of B where there must be one per row.
        ((1, 1, 128), r"b\[1\]: .*\(256, 4\).*\(2, 4\)"),
    ],
)
def test_a_recipe_without_a_kernel_or_its_scale_factors_is_refused(
    recipe: tuple[int, int, int], message: str
) -> None:
    a, b = integer_operands(M, N, K)
    d = torch.full((M, N), 7.0, device="cuda", dtype=torch.bfloat16)
    with pytest.raises(ArgumentError, match=message):
        fp8_gemm_nt(a, b, d, recipe=recipe)
    assert (d == 7).all()
