"""Settings change how kernels run and never what they compute."""

from __future__ import annotations

import threading

import pytest
import torch

from deep_gemm import (
    fp8_gemm_nt,
    m_grouped_fp8_gemm_nt_contiguous,
    override,
    per_block_cast_to_fp8,
    per_token_cast_to_fp8,
)
from deep_gemm.testing import assert_bitwise_equal
from tests.grouped_calls import check_k_grouped, run_k_grouped
from tests.grouped_operands import flat_operand
from tests.head_gemms import check_heads

Operand = tuple[torch.Tensor, torch.Tensor]
M, N, K = 512, 4096, 7168


def operands(m: int, n: int, k: int, device: str = "cuda") -> tuple[torch.Tensor, Operand]:
    generator = torch.Generator(device).manual_seed(m + n + k)
    x = torch.randn(m, k, device=device, generator=generator).bfloat16()
    y = torch.randn(n, k, device=device, generator=generator).bfloat16()
    return x, per_block_cast_to_fp8(y, use_ue8m0=False)


def product(a: Operand, b: Operand) -> torch.Tensor:
    d = torch.full((len(a[0]), len(b[0])), float("nan"), device=a[0].device).bfloat16()
    fp8_gemm_nt(a, b, d)
    return d


def chain(x: torch.Tensor, up: Operand, down: Operand) -> torch.Tensor:
    """Each kernel reads what the one before it wrote, in memory that was in use a moment ago."""
    for _ in range(4):
        hidden = product(per_token_cast_to_fp8(x, use_ue8m0=False), up)
        x = product(per_token_cast_to_fp8(hidden, use_ue8m0=False), down) / 4096
    return x


def test_a_dependent_launch_reads_what_the_kernel_before_wrote() -> None:
    x, up = operands(M, N, K)
    _, down = operands(M, K, N)
    wanted = chain(x, up, down)
    assert wanted.isfinite().all() and wanted.abs().max() > 0
    with override(pdl=True):
        for _ in range(20):
            assert_bitwise_equal(chain(x, up, down), wanted)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            got = chain(x, up, down)
        for _ in range(10):
            graph.replay()
            assert_bitwise_equal(got, wanted)


def test_dependent_launches_back_to_back() -> None:
    """The second overwrites what the first still reads, unless it waits."""
    x, up = operands(M, N, K)
    first, second = (per_token_cast_to_fp8(y, use_ue8m0=False) for y in (x, x.roll(1, 0)))
    wanted = [product(a, up) for a in (first, second)]
    a = tuple(torch.empty_like(part) for part in first)
    with override(pdl=True):
        for _ in range(30):
            for source, expected in zip((first, second), wanted, strict=True):
                for part, value in zip(a, source, strict=True):
                    part.copy_(value)
                got = product(a, up)  # type: ignore[arg-type]
                product(first, up)
                assert_bitwise_equal(got, expected)


def test_grouped_products_with_dependent_launches() -> None:
    ks = [256, 0, 1152, 384]
    a, b = flat_operand(256, ks, "cuda"), flat_operand(384, ks, "cuda", 2)
    with override(pdl=True):
        for _ in range(10):
            d, c = run_k_grouped(a, b, ks, c="d")
            check_k_grouped(d, a, b, ks, c)


@pytest.mark.parametrize("settings", [{"tc_util": 30}, {"num_sms": 77}, {"tc_util": 1}])
def test_fewer_multiprocessors_give_the_same_bits(settings: dict[str, int]) -> None:
    x, up = operands(M, N, K)
    a = per_token_cast_to_fp8(x, use_ue8m0=False)
    wanted = product(a, up)
    with override(**settings):
        assert_bitwise_equal(product(a, up), wanted)


@pytest.mark.parametrize("blocks", [16, 64, 128, (64, 48), (1, 192), (256, 16)])
def test_any_blocks_give_the_same_bits(blocks: int | tuple[int, int]) -> None:
    x, up = operands(M, N, K)
    a = per_token_cast_to_fp8(x, use_ue8m0=False)
    wanted = product(a, up)
    with override(block_size_multiple_of=blocks):
        assert_bitwise_equal(product(a, up), wanted)


def test_a_row_does_not_depend_on_the_others() -> None:
    """Where batch invariance is asked for: the same bits alone, among 4096 and in a group. Without
    it K may be split, in as many parts as M leaves room for."""
    x, up = operands(4096, 2112, K)
    a = per_token_cast_to_fp8(x, use_ue8m0=False)
    with override(batch_invariant=True):
        every = product(a, up)
        for m in (1, 2, 16, 17, 64, 100, 128, 700, 2048):
            part = (a[0][:m].contiguous(), a[1][:m].contiguous())
            assert_bitwise_equal(product(part, up), every[:m])
    stacked = tuple(torch.stack([part, part]) for part in up)
    ids = torch.arange(4096, device="cuda", dtype=torch.int32) // 2048
    grouped = torch.empty_like(every)
    m_grouped_fp8_gemm_nt_contiguous(a, stacked, grouped, ids)  # type: ignore[arg-type]
    assert_bitwise_equal(grouped, every)


@pytest.mark.parametrize("head_splits", [(128, 64, 128), (64, 16, 48), (512, 64, 64)])
def test_heads(head_splits: tuple[int, int, int]) -> None:
    check_heads(1000, 1536, 16, head_splits, "cuda")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_several_devices_in_one_process() -> None:
    """Also at the same time, also where another device is the current one."""
    wrong: list[str] = []
    x, up = operands(M, N, K)
    wanted = product(per_token_cast_to_fp8(x, use_ue8m0=False), up).cpu()

    def work(device: str) -> None:
        a = per_token_cast_to_fp8(x.to(device), use_ue8m0=False)
        b = (up[0].to(device), up[1].to(device))
        wrong.extend(device for _ in range(50) if not torch.equal(product(a, b).cpu(), wanted))

    threads = [threading.Thread(target=work, args=(f"cuda:{i}",)) for i in (0, 1, 0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    work("cuda:1")
    assert not wrong
