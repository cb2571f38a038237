"""Whole calls of fp8_gemm_nt, refused or passed on, on fake tensors: no GPU is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deep_gemm import fp8_gemm_nt, gemm, override, settings
from deep_gemm.call_cache import CallCache
from deep_gemm.config.problem import GemmProblem
from deep_gemm.errors import UnsupportedArchitectureError
from deep_gemm.runtime import device
from tests.host.refusals import refuses, strided

CUDA = torch.device("cuda:0")
FP8, BF16, FP32 = torch.float8_e4m3fn, torch.bfloat16, torch.float32
M, N, K = 64, 256, 512

Operand = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[GemmProblem]]:
    """Fake CUDA tensors, and the problems for which a kernel would have been planned."""
    problems: list[GemmProblem] = []

    class Planned:
        def launch(self, *addresses: int) -> None:
            pass

    def plan_dense(problem: GemmProblem, *_: object, **__: object) -> Planned:
        problems.append(problem)
        return Planned()

    monkeypatch.setattr(gemm, "plan_dense", plan_dense)
    monkeypatch.setattr(gemm, "arch_of", lambda _: "90a")
    monkeypatch.setattr(gemm, "gpu_name_of", lambda _: "")
    monkeypatch.setattr(gemm, "usable_sms", lambda *_: 132)
    monkeypatch.setattr(gemm, "has_no_memory", lambda _: False)
    monkeypatch.setattr(gemm, "_calls", CallCache())
    # These are to be planned as if they had memory.
    monkeypatch.setattr(gemm, "has_no_memory", lambda _: False)
    monkeypatch.setattr(torch.Tensor, "data_ptr", lambda _: 0x1000)
    with FakeTensorMode():
        yield problems


def matrix(
    dtype: torch.dtype, rows: int, columns: int, stride: tuple[int, int] | None = None
) -> torch.Tensor:
    return strided((rows, columns), stride or (max(columns, 1), 1), dtype, CUDA)


def call(m: int = M, n: int = N, k: int = K) -> tuple[Operand, Operand, torch.Tensor]:
    num_k_blocks = -(-k // 128)
    a = matrix(FP8, m, k), matrix(FP32, m, num_k_blocks)
    b = matrix(FP8, n, k), matrix(FP32, -(-n // 128), num_k_blocks)
    return a, b, matrix(BF16, m, n)


Call = tuple[object, object, object]
# What is changed about a good call, and the refusal: argument, rule, what was got.
CALLS: dict[str, tuple[Callable[..., Call], str, str, str]] = {
    "no pair": (lambda a, b, d: (a[0], b, d), "a", "pair", "Tensor"),
    "no tensor": (lambda a, b, d: (a, b, None), "d", "torch.Tensor", "NoneType"),
    "CPU operand": (lambda a, b, d: (a, (b[0].cpu(), b[1]), d), "b[0]", "cuda:0", "cpu"),
    "CPU scale factors": (lambda a, b, d: ((a[0], a[1].cpu()), b, d), "a[1]", "cuda:0", "cpu"),
    "CPU output": (lambda a, b, d: (a, b, d.cpu()), "d", "cuda:0", "cpu"),
    "CPU A": (lambda a, b, d: ((a[0].cpu(), a[1].cpu()), b, d), "b[0]", "on cpu", "cuda:0"),
    "CPU but for SFB": (
        lambda a, b, d: ((a[0].cpu(), a[1].cpu()), (b[0].cpu(), b[1]), d.cpu()),
        *("b[1]", "on cpu", "cuda:0"),
    ),
    "meta tensors": (
        lambda a, b, d: ((a[0].to("meta"), a[1]), b, d),
        *("a[0]", "on a CUDA device, or on the CPU", "meta"),
    ),
    "another GPU": (
        lambda a, b, d: (a, (b[0], strided((2, 4), (4, 1), FP32, "cuda:1")), d),
        *("b[1]", "on cuda:0", "cuda:1"),
    ),
    "BF16 operand": (
        lambda a, b, d: ((matrix(BF16, M, K), a[1]), b, d),
        *("a[0]", "torch.float8_e4m3fn", "torch.bfloat16"),
    ),
    "E5M2 operand": (
        lambda a, b, d: (a, (matrix(torch.float8_e5m2, N, K), b[1]), d),
        *("b[0]", "torch.float8_e4m3fn", "float8_e5m2"),
    ),
    "FP16 output": (
        lambda a, b, d: (a, b, d.half()),
        *("d", "torch.bfloat16 or torch.float32", "torch.float16"),
    ),
    "packed scale factors": (lambda a, b, d: (a, (b[0], b[1].int()), d), "b[1]", "FP32", "int32"),
    "SFA of too few rows": (
        lambda a, b, d: ((a[0], matrix(FP32, M - 1, 4)), b, d),
        *("a[1]", r"\(64, 4\)", r"\(63, 4\)"),
    ),
    "SFA transposed": (
        lambda a, b, d: ((a[0], matrix(FP32, 4, M)), b, d),
        *("a[1]", r"= \(64, 4\)", r"\(4, 64\)"),
    ),
    "SFB per token": (
        lambda a, b, d: (a, (b[0], matrix(FP32, N, 4)), d),
        *("b[1]", r"\[ceil\(256 / 128\), ceil\(512 / 128\)\] = \(2, 4\)", r"\(256, 4\)"),
    ),
    "wrong K": (
        lambda a, b, d: (a, (matrix(FP8, N, 384), b[1]), d),
        *("b[0]", r"\[n, k\] = \(256, 512\)", r"\(256, 384\)"),
    ),
    "wrong M": (
        lambda a, b, d: (a, b, matrix(BF16, M - 1, N)),
        *("d", r"\[m, n\] = \(64, 256\)", r"\(63, 256\)"),
    ),
    "wrong N": (lambda a, b, d: (a, b, matrix(BF16, M, 128)), "d", r"\[m, n\]", r"\(64, 128\)"),
    "A of contiguous neither rows nor columns": (
        lambda a, b, d: ((matrix(FP8, M, K, (2 * K, 2)), a[1]), b, d),
        *("a[0]", "row-major", r"strides \(1024, 2\)"),
    ),
    "column-major D": (
        lambda a, b, d: (a, b, matrix(BF16, M, N, (1, M))),
        *("d", "row-major", r"strides \(1, 64\)"),
    ),
    "expanded A": (
        lambda a, b, d: ((matrix(FP8, M, K, (0, 1)), a[1]), b, d),
        *("a[0]", "overlap", r"strides \(0, 1\)"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_refuses_the_call(planned: list[GemmProblem], name: str) -> None:
    change, argument, rule, got = CALLS[name]
    with refuses(argument, rule, got):
        fp8_gemm_nt(*change(*call()))
    assert planned == []


def test_refuses_rows_and_addresses_that_tma_does_not_take(
    planned: list[GemmProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    with refuses("d", "columns must take a multiple of 16 bytes", "100 columns of 2 byte"):
        fp8_gemm_nt(*call(n=100))
    with refuses("a[0]", "columns must take a multiple of 16 bytes", "100 columns of 1 byte"):
        fp8_gemm_nt(*call(k=100))
    a, b, _ = call()
    with refuses("d", "row stride must be a multiple of 16 bytes", "520 bytes"):
        fp8_gemm_nt(a, b, matrix(BF16, M, N, (N + 4, 1)))
    for value, argument in enumerate(["a[0]", "b[0]", "d"]):
        a, b, d = call()
        odd = (a[0], b[0], d)[value]
        monkeypatch.setattr(torch.Tensor, "data_ptr", lambda t, odd=odd: 0x1000 + 8 * (t is odd))
        with refuses(argument, "multiple of 16 bytes", "0x1008"):
            fp8_gemm_nt(a, b, d)
    assert planned == [], "an address is refused before a kernel is built for it"


def test_refuses_a_recipe_without_a_kernel(planned: list[GemmProblem]) -> None:
    with refuses("recipe", r"\(1, 128, 128\) or \(1, 1, 128\) on SM90", r"\(1, 1, 32\)"):
        fp8_gemm_nt(*call(), recipe=(1, 1, 32))
    with refuses("b[1]", r"= \(256, 4\)", r"\(2, 4\)"):
        fp8_gemm_nt(*call(), recipe=(1, 1, 128))
    with refuses("recipe", "excludes", "128"):
        fp8_gemm_nt(*call(), recipe=(1, 128, 128), recipe_a=(1, 128))


def test_refuses_c_where_it_cannot_be_added(planned: list[GemmProblem]) -> None:
    a, b, d = call()
    with refuses("c", "torch.Tensor", "float"):
        fp8_gemm_nt(a, b, d, c=1.0)
    with refuses("c", "torch.bfloat16", "torch.float32"):
        fp8_gemm_nt(a, b, d, c=d.float())
    with refuses("c", r"\[m, n\]", r"\(63, 256\)"):
        fp8_gemm_nt(*call(k=0), c=matrix(BF16, M - 1, N))
    with refuses("c", "torch.bfloat16", "torch.float32"):
        fp8_gemm_nt(*call(k=0), c=d.float())
    assert planned == []


def test_cpu_tensors_are_planned_as_for_an_h100(
    planned: list[GemmProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DG_EMULATOR_ARCH", raising=False)
    monkeypatch.setattr(gemm, "arch_of", device.arch_of)
    monkeypatch.setattr(gemm, "usable_sms", settings.usable_sms)
    (x, sfa), (y, sfb), d = call()
    fp8_gemm_nt((x.cpu(), sfa.cpu()), (y.cpu(), sfb.cpu()), d.cpu())
    assert planned == [GemmProblem(M, N, K, "90a", 132, splits_k=True)]


def test_the_gpu_s_name_is_part_of_the_problem(
    planned: list[GemmProblem], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gemm, "gpu_name_of", lambda _: "NVIDIA H20")
    fp8_gemm_nt(*call())
    assert planned == [GemmProblem(M, N, K, "90a", 132, splits_k=True, gpu="NVIDIA H20")]


def test_refuses_an_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA A100")
    arch_of = device._arch_of_gpu.__wrapped__
    with pytest.raises(
        UnsupportedArchitectureError, match=r"a\[0\].*SM90, SM100, SM103, got NVIDIA A100.*SM80"
    ):
        arch_of(CUDA)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    if arch_of(CUDA) != "90a":
        pytest.fail("SM90 must be taken")


@pytest.mark.parametrize(("m", "n", "k"), [(0, N, K), (M, 0, K), (M, N, 0), (0, 0, 0)])
def test_an_empty_problem_needs_no_kernel(
    planned: list[GemmProblem], m: int, n: int, k: int
) -> None:
    fp8_gemm_nt(*call(m, n, k))
    assert planned == []


def test_good_calls_are_planned(planned: list[GemmProblem]) -> None:
    a, b, d = call()
    fp8_gemm_nt(a, b, d)
    fp8_gemm_nt(list(a), list(b), d, recipe_a=(1, 128), recipe_b=(128, 128))
    fp8_gemm_nt((a[0], matrix(FP32, M, 4, (1, M))), b, d, None, (1, 128, 128))
    fp8_gemm_nt(a, b, matrix(BF16, M, N, (N + 32, 1)))
    assert planned == [GemmProblem(M, N, K, "90a", 132, splits_k=True)] * 4


def test_k_is_left_whole_where_rows_must_not_depend_on_each_other(
    planned: list[GemmProblem],
) -> None:
    with override(batch_invariant=True):
        fp8_gemm_nt(*call())
    assert planned == [GemmProblem(M, N, K, "90a", 132)]


def test_output_scaling_and_c_are_part_of_the_problem(planned: list[GemmProblem]) -> None:
    a, b, d = call()
    fp8_gemm_nt(a, b, matrix(FP32, M, N))
    by_rows = (a[0], matrix(FP32, M, 4, (1, M))), (b[0], matrix(FP32, N, 4, (1, N)))
    fp8_gemm_nt(*by_rows, d, recipe=(1, 1, 128))
    fp8_gemm_nt(*by_rows, d, recipe_a=(1, 128), recipe_b=(1, 128))
    fp8_gemm_nt(a, b, d, c=d)
    problem = GemmProblem(M, N, K, "90a", 132, splits_k=True)
    of_rows = replace(problem, gran_n=1, splits_k=False)
    assert planned == [replace(problem, d_bytes=4), of_rows, of_rows, problem]
