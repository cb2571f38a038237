"""Inputs on which the reference library, or another, hung or raced, at their real sizes.

Each is run many times in a process of its own, and must give the same bits each time. DG is the
reference's issue tracker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from isolated import Isolated

from deep_gemm import k_grouped_fp8_gemm_nt_contiguous, m_grouped_fp8_gemm_nt_masked
from deep_gemm.testing import assert_bitwise_equal
from tests.grouped_calls import check_k_grouped, check_masked, run_k_grouped, run_masked, valid_rows
from tests.grouped_operands import exact_operand, flat_operand, poison

REPEATS = 20


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    process = Isolated()
    yield process
    process.stop()


def repeat_k_grouped(m: int, n: int, ks: list[int], repeats: int = REPEATS) -> None:
    """Right the first time, in place and not, and the same bits each time after it."""
    a, b = flat_operand(m, ks, "cuda"), flat_operand(n, ks, "cuda", 2)
    first, _ = run_k_grouped(a, b, ks)
    check_k_grouped(first, a, b, ks)
    accumulated, c = run_k_grouped(a, b, ks, c="d")
    check_k_grouped(accumulated, a, b, ks, c)
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    d = torch.empty_like(first)
    for _ in range(repeats):
        d.fill_(float("nan"))
        k_grouped_fp8_gemm_nt_contiguous(a, b, d, ks, sizes)
        assert_bitwise_equal(d, first)


def back_to_back(m: int, n: int, ks: list[int]) -> None:
    """Launches that follow each other without a wait, into outputs of their own.

    What a kernel leaves behind in a cache of tensor maps would meet the next one.
    """
    problems = [
        (flat_operand(m, ks, "cuda", i), flat_operand(n, ks, "cuda", i + 9)) for i in (0, 1)
    ]
    sizes = torch.tensor(ks, device="cuda", dtype=torch.int32)
    outputs = [torch.full((len(ks), m, n), float("nan"), device="cuda") for _ in range(10)]
    torch.cuda.synchronize()
    for i, d in enumerate(outputs):
        k_grouped_fp8_gemm_nt_contiguous(*problems[i % 2], d, ks, sizes)
    for i in (0, 1):
        check_k_grouped(outputs[i], *problems[i], ks)
        for d in outputs[i + 2 :: 2]:
            assert_bitwise_equal(d, outputs[i])


def zero_channel() -> None:
    """A channel of zeros, with the scale factor 1e-30, in the expert that has 128 tokens."""
    ks = [256, 128, 128, 256]
    m = n = 2048
    a, b = flat_operand(m, ks, "cuda"), flat_operand(n, ks, "cuda", 2)
    first_k, channel = 256, 1000
    of_expert = a[0][m * first_k : m * (first_k + 128)].view(m, 128)
    of_expert.view(torch.uint8)[channel] = 0
    a[1][channel, first_k // 128] = 1e-30
    first, _ = run_k_grouped(a, b, ks)
    check_k_grouped(first, a, b, ks)
    assert (first[1, channel] == 0).all()
    for _ in range(REPEATS):
        d, _ = run_k_grouped(a, b, ks)
        assert_bitwise_equal(d, first)


K_GROUPED: dict[str, tuple[Callable[..., None], tuple[object, ...]]] = {
    "DG#343 tensor maps overwritten in flight": (
        repeat_k_grouped,
        (768, 2048, [128, 128, 256, 256, 128, 256, 256, 256]),
    ),
    "DG#343 back to back": (
        back_to_back,
        (768, 2048, [128, 128, 256, 256, 128, 256, 256, 256]),
    ),
    "DG#365 and DG#375 a zero channel": (zero_channel, ()),
    "DG#365 without it": (repeat_k_grouped, (2048, 2048, [256, 128, 128, 256])),
    "DG#415 129 blocks per group": (repeat_k_grouped, (192, 3072, [128, 256])),
    "DG#429 121 blocks per group": (repeat_k_grouped, (1408, 1408, [384, 256])),
    "DG#429 three groups": (repeat_k_grouped, (1408, 1408, [384, 256, 128])),
    "DG#429 four groups": (repeat_k_grouped, (1408, 1408, [384, 256, 128, 512])),
    "DG#415 three groups": (repeat_k_grouped, (192, 3072, [128, 256, 384])),
    "DG#237 skipped groups": (repeat_k_grouped, (2048, 768, [0, 0, 4096] * 8, 5)),
    "DG#237 in its full size": (repeat_k_grouped, (2048, 768, [4096] * 128, 2)),
    "DG#300 and DG#405": (repeat_k_grouped, (768, 1536, [0, 256, 0, 0, 4096, 128] * 4, 5)),
}


@pytest.mark.parametrize("name", K_GROUPED)
def test_k_grouped(isolated: Isolated, name: str) -> None:
    function, arguments = K_GROUPED[name]
    isolated.run(function, *arguments)


def repeat_masked(masked_m: list[int], m_max: int, n: int, k: int, expected_m: int) -> None:
    num_groups = len(masked_m)
    a = exact_operand((num_groups, m_max, k), 1, "cuda")
    poison(a, ~valid_rows(masked_m, m_max))
    b = exact_operand((num_groups, n, k), 128, "cuda", 1)
    first = run_masked(a, b, masked_m, expected_m)
    check_masked(first, a, b, masked_m)
    rows = valid_rows(masked_m, m_max).cuda()
    sizes = torch.tensor(masked_m, device="cuda", dtype=torch.int32)
    expected = first[rows]
    d = torch.empty_like(first)
    for _ in range(REPEATS):
        d.fill_(float("nan"))
        m_grouped_fp8_gemm_nt_masked(a, b, d, sizes, expected_m)
        assert_bitwise_equal(d[rows], expected)


SGLANG_7869 = [4001, 1425, 0, 0, 0, 0, 0, 571, 503, 0, 26, 12, 1232, 0, 0, 224]
MASKED: dict[str, tuple[list[int], int, int, int, int]] = {
    "sglang#7869 up": (SGLANG_7869, 4096, 3072, 4096, 114),
    "sglang#7869 down": (SGLANG_7869, 4096, 4096, 1536, 114),
    "79f48ee an odd number of blocks": ([512, 0, 513, 1000], 1024, 2184, 528, 512),
    "DG#147 one block along n": ([576, 0, 576], 576, 16, 7168, 576),
    "DG#160 4 groups of 8192": ([8192, 1, 8000, 0], 8192, 4096, 1024, 8192),
}


@pytest.mark.parametrize("name", MASKED)
def test_masked(isolated: Isolated, name: str) -> None:
    isolated.run(repeat_masked, *MASKED[name])
