"""The transposing kernel on a GPU: right in every bit, at any size, on any stream."""

from __future__ import annotations

import pytest
import torch

from deep_gemm.kernels.transpose import k_major, mn_major, transpose
from deep_gemm.testing import assert_bitwise_equal
from tests.transposes import EDGES, LAYOUTS, Case, check, random_bits

LARGE = [
    Case(1, 4096, 7168, (7168, 1), 4096),
    Case(1, 4099, 7171, (7184, 1), 4112),
    Case(1, 4099, 7171, (7171, 1), 4099, offsets=(5, 3)),
    Case(1, 2048, 7168, (7168, 1), 2048, batch=9),
    Case(4, 7168, 512, (512, 1), 7168),
    Case(4, 131072, 56, (56, 1), 131072),
    Case(4, 131071, 57, (57, 1), 131072),
    Case(4, 4096, 56, (1, 4096), 4096, batch=33),
    Case(4, 1 << 20, 3, (3, 1), 1 << 20),
    Case(1, 3, 1 << 22, (1 << 22, 1), 16),
    Case(1, 1, 1, (16, 1), 16, batch=100_003),
]

BEYOND_32_BITS = [
    Case(1, 32771, 65552, (65552, 1), 32784),
    Case(1, 65539, 32784, (32784, 1), 65552),
    Case(1, 7168, 4096, (4096, 1), 7168, batch=74),
    Case(4, 9_586_981, 56, (56, 1), 9_586_984, batch=4),
    Case(1, 48, 16, (1 << 27, 1), 1 << 28),
]
"""Offsets above 2**31 or 2**32 elements: of a row, of a column, of a matrix of a batch."""


@pytest.mark.parametrize("case", EDGES + LAYOUTS + LARGE, ids=str)
def test_every_bit_is_right_and_nothing_else_is_written(case: Case) -> None:
    check(case, "cuda")


@pytest.mark.parametrize("case", BEYOND_32_BITS, ids=str)
def test_offsets_beyond_32_bits(case: Case) -> None:
    shape = (case.rows, case.columns) if not case.batch else (case.batch, case.rows, case.columns)
    dtype = torch.uint8 if case.itemsize == 1 else torch.int32
    size = max(case.batch, 1) * case.rows * case.strides[0]
    source_strides = (case.rows * case.strides[0], *case.strides)[-len(shape) :]
    out_strides = (case.columns * case.out_stride, case.out_stride, 1)[-len(shape) :]
    size_out = max(case.batch, 1) * case.columns * case.out_stride
    assert max(size, size_out) > 2**31
    source = torch.empty(size, dtype=dtype, device="cuda").as_strided(shape, source_strides)
    fill_with_numbers(source)
    out = torch.zeros(size_out, dtype=dtype, device="cuda")
    out = out.as_strided((*shape[:-2], case.columns, case.rows), out_strides)
    transpose(source, out)
    for matrix, turned in zip(matrices(source), matrices(out), strict=True):
        step = max(1, (1 << 28) // case.columns)
        for first in range(0, case.rows, step):
            rows = slice(first, first + step)
            assert torch.equal(turned[:, rows], matrix[rows].T)


def matrices(tensor: torch.Tensor) -> list[torch.Tensor]:
    return [tensor] if tensor.dim() == 2 else list(tensor)


def fill_with_numbers(source: torch.Tensor) -> None:
    """Every row of every matrix differs from the others, as far as its type can."""
    info = torch.iinfo(source.dtype)
    generator = torch.Generator("cuda").manual_seed(1)
    for matrix in matrices(source):
        for rows in matrix.split(max(1, (1 << 28) // matrix.shape[1])):
            rows.random_(info.min, info.max, generator=generator)


@pytest.mark.parametrize("shape", [(7168, 4096), (5, 2048, 7168), (130, 272)])
def test_k_major_equals_torch_s_copy_every_time(shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel()
    x = random_bits(count, "cuda").view(torch.float8_e4m3fn).view(shape).transpose(-1, -2)
    for _ in range(20):
        y = k_major("b[0]", x)
        assert y.is_contiguous()
        assert_bitwise_equal(y, x)
    assert k_major("b[0]", y) is y


@pytest.mark.parametrize("shape", [(7168, 512), (4, 4099, 56), (131072, 56)])
def test_mn_major_equals_its_source_every_time(shape: tuple[int, ...]) -> None:
    count = torch.Size(shape).numel()
    source = random_bits(4 * count, "cuda").view(torch.float32).view(shape)
    for _ in range(20):
        sf = mn_major(source)
        assert sf.stride()[-2:] == (1, -(-shape[-2] // 4) * 4)
        assert_bitwise_equal(sf, source)
    assert mn_major(sf) is sf


def test_a_call_runs_on_the_current_stream() -> None:
    x = random_bits(1 << 22, "cuda").view(2048, 2048)
    source, out = torch.zeros_like(x), torch.empty_like(x)
    transpose(source, out)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(20_000_000)
        source.copy_(x)
        transpose(source, out)
    stream.synchronize()
    assert torch.equal(out, x.T)


def test_a_graph_replays_with_new_values() -> None:
    x = random_bits(272 * 400, "cuda").view(torch.float8_e4m3fn).view(272, 400)
    sf = torch.randn(300, 56, device="cuda")
    k_major("a[0]", x.T), mn_major(sf)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, turned = k_major("a[0]", x.T), mn_major(sf)
    x.view(torch.uint8).copy_(random_bits(272 * 400, "cuda", seed=1).view(272, 400))
    sf.normal_()
    graph.replay()
    assert_bitwise_equal(y, x.T)
    assert_bitwise_equal(turned, sf)
