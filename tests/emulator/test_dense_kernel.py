"""The real dense FP8 kernel in the emulator: right to the bit, in any legal order of events."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deep_gemm import fp8_gemm_nt, knobs, per_block_cast_to_fp8, per_token_cast_to_fp8
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.legality import broken_rules
from deep_gemm.emulator.asynchrony import Timing
from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import Compiler
from deep_gemm.jit.nvcc import Nvcc, find_nvcc
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import in_toolkit, in_wheels
from deep_gemm.testing import (
    assert_bitwise_equal,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
    guarded_output,
    max_scaled_error,
)
from tests.emulator.dense import ORDERS, Case, Operand, check_exact, integer_operands, run_case

MAX_ERROR_OF_YARDSTICK = 2.0

# Edges in every direction, K tails, fewer and more k blocks than stages, several blocks per CTA,
# and odd numbers of blocks, so that clusters overhang.
CASES = [
    Case(GemmConfig(16, 16, 4, 1), 9, 40, 400, num_sms=2),
    Case(GemmConfig(16, 48, 3, 1, 2, 1), 40, 104, 272, num_sms=2),
    Case(GemmConfig(32, 32, 2, 1, 1, 2), 33, 72, 528, num_sms=2),
    Case(GemmConfig(64, 16, 8, 1), 70, 24, 112, num_sms=3),
    Case(GemmConfig(64, 96, 4, 1), 64, 200, 1040, num_sms=1),
    Case(GemmConfig(64, 112, 5, 1, 1, 2), 65, 232, 272, num_sms=2),
    Case(GemmConfig(64, 144, 2, 1, 2, 1), 130, 152, 384, num_sms=2),
    Case(GemmConfig(64, 128, 4, 1, 2, 1), 192, 128, 640, num_sms=2),
    Case(GemmConfig(128, 96, 3, 2, 1, 2), 130, 104, 400, num_sms=2),
    Case(GemmConfig(128, 144, 4, 2, 2, 1), 140, 160, 144, num_sms=2),
    Case(GemmConfig(128, 128, 5, 2), 128, 136, 512, num_sms=3),
    Case(GemmConfig(128, 48, 2, 2), 300, 56, 16, num_sms=1),
    Case(GemmConfig(128, 176, 3, 2), 136, 184, 272, num_sms=2),
    Case(GemmConfig(128, 192, 3, 2, 1, 2), 100, 200, 400, num_sms=2),
    Case(GemmConfig(128, 64, 4, 1), 150, 72, 256, num_sms=1),
    Case(GemmConfig(256, 64, 3, 2), 260, 72, 400, num_sms=1),
    Case(GemmConfig(256, 128, 2, 2, 2, 1), 264, 72, 272, num_sms=2),
    Case(GemmConfig(256, 112, 2, 2, 1, 2), 200, 120, 400, num_sms=2),
    # D in several rounds through its staging memory
    Case(GemmConfig(64, 96, 3, 1, num_store_rounds=3), 70, 200, 272, num_sms=1),
    Case(GemmConfig(128, 192, 3, 2, num_store_rounds=3), 200, 200, 272, num_sms=1),
    Case(GemmConfig(256, 128, 4, 2, 1, 2, num_store_rounds=4), 264, 136, 640, num_sms=2),
    # K split over a cluster: equal parts, unequal ones, empty ones
    Case(GemmConfig(16, 32, 4, 1, cluster_k=2), 30, 56, 1040, num_sms=2),
    Case(GemmConfig(64, 64, 3, 1, cluster_k=4), 70, 136, 2064, num_sms=5),
    Case(GemmConfig(64, 160, 3, 1, cluster_k=5), 64, 200, 3088, num_sms=5),
    Case(GemmConfig(128, 192, 2, 2, cluster_k=2, num_store_rounds=3), 200, 200, 1680, num_sms=3),
    Case(GemmConfig(128, 128, 3, 1, cluster_k=8), 130, 128, 1168, num_sms=8),
]

SMALL = Case(GemmConfig(64, 32, 3, 1, 1, 2), 70, 72, 528)


def order_name(order: object) -> str:
    timing, seed = order
    return f"{timing.value}-{seed}" if timing is Timing.RANDOM else timing.value


def random_operands(m: int, n: int, k: int) -> tuple[Operand, Operand]:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(rows, k, generator=generator).bfloat16() for rows in (m, n))
    return per_token_cast_to_fp8(x, use_ue8m0=False), per_block_cast_to_fp8(y, use_ue8m0=False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_kind_of_kernel_is_exact_in_every_order(case: Case) -> None:
    assert not broken_rules(case.config)
    operands = integer_operands(case.m, case.n, case.k)
    for order in ORDERS:
        check_exact(run_case(case, order, operands), *operands)


@pytest.mark.parametrize("k", [16, 128, 256, 384, 512, 528, 1040])
@pytest.mark.parametrize("block_n", [32, 160])
def test_any_number_of_k_blocks(block_n: int, k: int) -> None:
    for order in ORDERS:
        case = Case(GemmConfig(64, block_n, 3, 1), 64, block_n + 8, k, num_sms=1)
        operands = integer_operands(case.m, case.n, case.k, seed=k)
        check_exact(run_case(case, order, operands), *operands)


@pytest.mark.parametrize("num_sms", [1, 2, 3])
def test_any_number_of_sms(num_sms: int) -> None:
    case = Case(GemmConfig(64, 32, 3, 1), 200, 72, 400, num_sms)
    operands = integer_operands(case.m, case.n, case.k)
    for order in ORDERS:
        check_exact(run_case(case, order, operands), *operands)


@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_scale_factors_are_taken_in_any_layout(order: tuple[Timing, int]) -> None:
    case = Case(GemmConfig(64, 48, 3, 1), 70, 136, 640)
    a, b = (x, sfa), (y, sfb) = integer_operands(case.m, case.n, case.k)
    wide = torch.full((case.m + 5, 23), float("nan"))
    sliced = wide[2 : 2 + case.m, 3 : 3 + 2 * sfa.shape[1] : 2]
    sliced.copy_(sfa)
    # A row of eight is four aligned words twice over: those are copied 16 bytes at a time. So is a
    # column of 72, which ends in padding.
    quads_along_k = torch.full((case.m, 8), float("nan"))[:, : sfa.shape[1]].copy_(sfa)
    quads_along_m = torch.full((sfa.shape[1], 72), float("nan")).T[: case.m].copy_(sfa)
    for layout in (sfa.T.contiguous().T, sliced, quads_along_k, quads_along_m):
        for sfb_layout in (sfb, sfb.T.contiguous().T):
            d = run_case(case, order, ((x, layout), (y, sfb_layout)))
            check_exact(d, a, b)


@pytest.mark.parametrize("order", ORDERS, ids=order_name)
def test_rows_may_be_strided(order: tuple[Timing, int]) -> None:
    case = Case(GemmConfig(64, 96, 3, 1), 70, 104, 400)
    (x, sfa), (y, sfb) = integer_operands(case.m, case.n, case.k)

    def widened(data: torch.Tensor) -> torch.Tensor:
        rows, columns = data.shape
        wide = torch.full((rows, columns + 48), float("nan")).to(torch.float8_e4m3fn)
        wide[:, 16 : 16 + columns] = data
        return wide[:, 16 : 16 + columns]

    d = run_case(case, order, ((widened(x), sfa), (widened(y), sfb)), row_stride=160)
    check_exact(d, (x, sfa), (y, sfb))


@pytest.mark.parametrize(
    "case",
    [
        Case(GemmConfig(64, 96, 3, 1), 70, 96, 656),
        Case(GemmConfig(128, 192, 3, 2), 72, 200, 528),
        Case(GemmConfig(128, 64, 3, 2, 2, 1), 136, 64, 656),
    ],
    ids=str,
)
def test_random_operands_are_close_and_every_order_gives_the_same_bits(case: Case) -> None:
    operands = random_operands(case.m, case.n, case.k)
    outputs = [run_case(case, order, operands) for order in ORDERS]
    reference = fp8_gemm_nt_reference(*operands)
    error = max_scaled_error(outputs[0], reference)
    yardstick = max_scaled_error(fp8_gemm_nt_yardstick(*operands), reference)
    assert 0 < error <= MAX_ERROR_OF_YARDSTICK * yardstick
    for output in outputs[1:]:
        assert_bitwise_equal(output, outputs[0])


def test_nan_stays_in_its_row_and_column() -> None:
    case = Case(GemmConfig(64, 32, 3, 1), 70, 40, 272)
    (x, sfa), (y, sfb) = integer_operands(case.m, case.n, case.k)
    clean = run_case(case, operands=((x, sfa), (y, sfb)))
    x[66, 271] = float("nan")
    y[33, 0] = float("nan")
    d = run_case(case, operands=((x, sfa), (y, sfb)))
    assert d[66].isnan().all() and d[:, 33].isnan().all()
    rows, columns = torch.arange(case.m) != 66, torch.arange(case.n) != 33
    assert_bitwise_equal(d[rows][:, columns], clean[rows][:, columns])


def nvrtc_12() -> Compiler:
    for library in in_wheels() + in_toolkit(knobs.cuda_home.get() or knobs.cuda_path.get()):
        if library.version[0] == 12:
            return Nvrtc(library)
    pytest.skip("no NVRTC 12 is installed")


def nvcc() -> Compiler:
    try:
        path = find_nvcc(knobs.jit_nvcc_compiler.get(), knobs.cuda_home.get())
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return Nvcc(path, (knobs.nvcc_prepend_flags.get(), knobs.nvcc_append_flags.get()))


@pytest.mark.parametrize("compiler", [nvrtc_12, nvcc])
@pytest.mark.parametrize("case", [SMALL, Case(GemmConfig(128, 192, 3, 2), 72, 200, 528)], ids=str)
def test_ptx_of_other_compilers(compiler: object, case: Case) -> None:
    kernel = compiler().compile(generate(case.config, "90a"))
    operands = integer_operands(case.m, case.n, case.k)
    for order in ORDERS:
        check_exact(run_case(case, order, operands, kernel), *operands)


# The public API


@pytest.mark.filterwarnings("ignore:CPU tensors")
@pytest.mark.parametrize(("m", "n", "k"), [(1, 8, 16), (65, 136, 400), (130, 200, 272)])
@pytest.mark.parametrize("timing", [timing.value for timing in Timing])
def test_cpu_tensors(timing: str, m: int, n: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DG_EMULATOR_TIMING", timing)
    a, b = integer_operands(m, n, k)
    out = guarded_output(m, n, device="cpu", guard_rows=16)
    fp8_gemm_nt(a, b, out.view)
    out.check()
    check_exact(out.view, a, b)


@pytest.mark.parametrize(("m", "n"), [(0, 128), (64, 0), (0, 0)])
def test_an_empty_output_is_no_work(m: int, n: int) -> None:
    a, b = integer_operands(m, n, 256)
    fp8_gemm_nt(a, b, torch.empty(m, n, dtype=torch.bfloat16))


@pytest.mark.parametrize("with_c", [False, True])
def test_k_of_zero_gives_c_or_zero(with_c: bool) -> None:
    a, b = integer_operands(5, 16, 0)
    d = torch.full((5, 16), float("nan"), dtype=torch.bfloat16)
    c = torch.randn(5, 16).bfloat16() if with_c else None
    fp8_gemm_nt(a, b, d, c)
    assert_bitwise_equal(d, torch.zeros_like(d) if c is None else c)


def test_a_process_is_warned_once(tmp_path: Path) -> None:
    script = tmp_path / "caller.py"
    script.write_text(
        """\
import warnings
warnings.simplefilter("always")
import torch, deep_gemm
from tests.emulator.dense import integer_operands
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for m in (3, 3, 5):
        a, b = integer_operands(m, 16, 128)
        deep_gemm.fp8_gemm_nt(a, b, torch.empty(m, 16, dtype=torch.bfloat16))  # the call
for warning in caught:
    print(warning.category.__name__, warning.filename, warning.lineno, warning.message)
"""
    )
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({str(script)!r})"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = result.stdout.splitlines()
    assert line.startswith("RuntimeWarning") and "emulator" in line
