"""Every check refuses with the argument, the rule and what was got; and so it does under -O."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from deep_gemm import checks, errors
from deep_gemm.checks import MAX_DIMENSION
from deep_gemm.errors import ArgumentError, UnsupportedArchitectureError
from deep_gemm.scaling import RECIPE_1D2D, ScalingRecipe, check_scale_factors, resolve_recipe
from tests.host.refusals import refuses, strided

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")
M, K = 64, 512
REFUSING = ["test_checks.py", "test_refused_calls.py"]


def test_refusals_are_value_and_runtime_errors() -> None:
    with pytest.raises(ArgumentError, match="^argument x: must be y, got z$") as caught:
        checks.refuse("x", "must be y", "z")
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, RuntimeError)
    found = [error for error in vars(errors).values() if isinstance(error, type)]
    assert len(found) >= 6
    assert all(issubclass(error, RuntimeError) for error in found)
    assert issubclass(UnsupportedArchitectureError, ArgumentError)


@pytest.mark.parametrize("operand", [torch.empty(2, 4), (torch.empty(2),), (1, 2, 3), None, "ab"])
def test_refuses_what_is_no_pair(operand: object) -> None:
    with refuses("a", r"a pair \(data, scale factors\)", type(operand).__name__):
        checks.check_operand("a", operand)


def test_refuses_a_pair_of_something_else() -> None:
    with refuses(r"a[0]", "torch.Tensor", "int"):
        checks.check_operand("a", (1, torch.empty(1)))
    with refuses(r"a[1]", "torch.Tensor", "NoneType"):
        checks.check_operand("a", [torch.empty(1), None])


def test_a_list_is_a_pair() -> None:
    data, sf = torch.empty(1), torch.empty(2)
    assert checks.check_operand("a", [data, sf]) == (data, sf)


MATRICES = [
    (torch.empty(4), CPU, r"2 dimension\(s\)", r"shape \(4,\)"),
    (torch.empty(1, 2, 3), CPU, r"2 dimension\(s\)", r"shape \(1, 2, 3\)"),
    (torch.empty(2, 2).double(), CPU, "dtype torch.float32", "torch.float64"),
    (torch.empty(2, 2, device="meta"), torch.device("meta"), "CUDA device, or on the CPU", "meta"),
    (torch.empty(2, 2), CUDA, r"on cuda:0, the device of a\[0\]", "cpu"),
]


@pytest.mark.parametrize(("tensor", "device", "rule", "got"), MATRICES)
def test_refuses_a_matrix(tensor: torch.Tensor, device: torch.device, rule: str, got: str) -> None:
    with refuses("x", rule, got):
        checks.check_tensor("x", tensor, 2, torch.float32, device)


def test_refuses_a_shape() -> None:
    with refuses("x", r"shape \[n, k\] = \(2, 3\)", r"shape \(3, 2\)"):
        checks.check_shape("x", torch.empty(3, 2), (2, 3), "[n, k]")
    checks.check_shape("x", torch.empty(2, 3), (2, 3), "[n, k]")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_refuses_a_dimension_beyond_tma(axis: int) -> None:
    sizes = [MAX_DIMENSION] * 3
    checks.check_dimensions(*sizes)
    sizes[axis] += 1
    with refuses("a, b, d", f"{'mnk'[axis]} must be at most {2**31 - 1}", str(2**31)):
        checks.check_dimensions(*sizes)


ROWS = [
    ((4, 32), (1, 4), torch.uint8, "last stride 1", r"strides \(1, 4\)"),
    ((4, 32), (64, 2), torch.uint8, "last stride 1", r"strides \(64, 2\)"),
    ((4, 24), (32, 1), torch.uint8, "columns .* multiple of 16 bytes", "24 columns of 1 byte"),
    ((1, 4), (16, 1), torch.bfloat16, "columns .* multiple of 16 bytes", "4 columns of 2 byte"),
    ((4, 16), (24, 1), torch.uint8, "row stride .* multiple of 16 bytes", "24 bytes"),
    ((4, 24), (28, 1), torch.bfloat16, "row stride .* multiple of 16 bytes", "56 bytes"),
    ((4, 32), (16, 1), torch.uint8, r"row stride >= 32", r"strides \(16, 1\)"),
    ((4, 32), (0, 1), torch.uint8, r"row stride >= 32", r"strides \(0, 1\)"),
]


@pytest.mark.parametrize(("shape", "stride", "dtype", "rule", "got"), ROWS)
def test_refuses_rows(
    shape: tuple[int, int], stride: tuple[int, int], dtype: torch.dtype, rule: str, got: str
) -> None:
    with refuses("x", rule, got):
        checks.check_tma_rows("x", strided(shape, stride, dtype))


@pytest.mark.parametrize(
    ("shape", "stride"), [((4, 32), (32, 1)), ((4, 32), (48, 1)), ((1, 32), (7, 1))]
)
def test_takes_rows(shape: tuple[int, int], stride: tuple[int, int]) -> None:
    """Padded rows too, and a single row of any stride."""
    checks.check_tma_rows("x", strided(shape, stride, torch.uint8))


def test_refuses_an_address() -> None:
    with refuses("d", "start at a multiple of 16 bytes", "address 0x1008"):
        checks.check_address("d", 0x1008, 16)
    checks.check_address("d", 0x1010, 16)


SCALE_FACTORS = [
    (torch.int32, (M, 4), r"FP32 on SM90 \(packed UE8M0", "int32"),
    (torch.uint8, (M, 4), r"FP32 on SM90 \(packed UE8M0", "uint8"),
    (torch.bfloat16, (M, 4), "dtype torch.float32", "bfloat16"),
    (torch.float32, (M, 4, 1), r"2 dimension\(s\)", r"\(64, 4, 1\)"),
    (torch.float32, (4, M), r"\[ceil\(64 / 1\), ceil\(500 / 128\)\] = \(64, 4\)", r"\(4, 64\)"),
    (torch.float32, (M, 3), r"= \(64, 4\)", r"\(64, 3\)"),
    (torch.float32, (1, 4), r"= \(64, 4\)", r"\(1, 4\)"),
]


@pytest.mark.parametrize(("dtype", "shape", "rule", "got"), SCALE_FACTORS)
def test_refuses_scale_factors(
    dtype: torch.dtype, shape: tuple[int, ...], rule: str, got: str
) -> None:
    with FakeTensorMode(), refuses("a[1]", rule, got):
        sf = torch.empty(shape, dtype=dtype, device=CUDA)
        check_scale_factors("a[1]", sf, M, 500, (1, 128), CUDA)


def test_takes_scale_factors_in_any_layout() -> None:
    with FakeTensorMode():
        for stride in [(4, 1), (1, 3), (16, 2), (0, 0)]:
            sf = strided((3, 4), stride, torch.float32, CUDA)
            check_scale_factors("b[1]", sf, 300, K, (128, 128), CUDA)


RECIPES = [
    ((None, None, None), RECIPE_1D2D),
    (((1, 128, 128), None, None), RECIPE_1D2D),
    (((1, 1, 128), None, None), ScalingRecipe(1, 1, 128)),
    ((None, (1, 128), (128, 128)), RECIPE_1D2D),
    ((None, (1, 32), (1, 32)), ScalingRecipe(1, 1, 32)),
    (([1, 128, 128], None, None), RECIPE_1D2D),
]


@pytest.mark.parametrize(("forms", "resolved"), RECIPES)
def test_a_recipe_is_resolved(forms: tuple, resolved: ScalingRecipe) -> None:
    assert resolve_recipe(*forms) == resolved


BAD_RECIPES = [
    (((1, 128, 128), (1, 128), None), "recipe", "excludes recipe_a and recipe_b"),
    (((1, 128, 128), None, (128, 128)), "recipe", "excludes recipe_a and recipe_b"),
    (((128, 128), None, None), "recipe", r"must be \(gran_m, gran_n, gran_k\)"),
    (((1, 128, 128, 1), None, None), "recipe", r"must be \(gran_m, gran_n, gran_k\)"),
    ((None, (1, 128), None), "recipe_a, recipe_b", "given together"),
    ((None, None, (128, 128)), "recipe_a, recipe_b", "given together"),
    ((None, (1, 128), (128, 32)), "recipe_a, recipe_b", "the same gran_k"),
    ((None, (1, 1, 128), (128, 128)), "recipe_a, recipe_b", r"\(gran_m, gran_k\)"),
]


@pytest.mark.parametrize(("forms", "argument", "rule"), BAD_RECIPES)
def test_refuses_a_recipe(forms: tuple, argument: str, rule: str) -> None:
    with refuses(argument, rule, re.escape(str(forms[0] or forms[1]))):
        resolve_recipe(*forms)


def test_under_optimised_python_all_of_that_is_the_same() -> None:
    """`assert` is gone under -O, in the library and in these tests; pytest.raises is not."""
    options = ["-q", "-p", "no:cacheprovider", "-k", "test_refuses"]
    files = [str(Path(__file__).with_name(name)) for name in REFUSING]
    command = [sys.executable, "-O", "-m", "pytest", *options, *files]
    root = Path(__file__).parents[2]
    run = subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=300, check=False
    )
    passed = re.search(r"^(\d+) passed", run.stdout, re.MULTILINE)
    assert run.returncode == 0 and passed, run.stdout + run.stderr
    assert int(passed[1]) > 60
