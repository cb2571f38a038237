"""Headers: each compiles alone, and all of them twice over link into one program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deep_gemm import knobs
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import select_compiler
from deep_gemm.jit.nvcc import Nvcc, find_nvcc
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.source import KernelSource, include_root
from tests.compile.test_compilers import label, nvrtc_libraries

HEADERS = [str(path.relative_to(include_root())) for path in sorted(include_root().rglob("*.cuh"))]
SOME = ["config.cuh", "scheduler/dense.cuh", "kernels/sm90_fp8_gemm.cuh"]

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


def alone(*headers: str) -> KernelSource:
    """A kernel that does nothing behind the headers; each is included twice."""
    includes = "".join(f'#include "{header}"\n' for header in headers for _ in range(2))
    return KernelSource(
        "alone", f'{includes}extern "C" __global__ void alone() {{}}\n', "alone", "90a"
    )


@pytest.fixture(scope="module")
def nvcc() -> Nvcc:
    try:
        path = find_nvcc(knobs.jit_nvcc_compiler.get(), knobs.cuda_home.get())
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return Nvcc(path, (knobs.nvcc_prepend_flags.get(), knobs.nvcc_append_flags.get()))


@pytest.mark.parametrize("header", HEADERS)
def test_a_header_compiles_alone(header: str) -> None:
    assert "// " in (include_root() / header).read_text().splitlines()[0], "says what it is"
    assert select_compiler().compile(alone(header)).cubin


@pytest.mark.parametrize("library", nvrtc_libraries(), ids=label)
def test_all_headers_compile_together_in_any_order(library: object) -> None:
    for headers in (HEADERS, HEADERS[::-1]):
        assert Nvrtc(library).compile(alone(*headers)).cubin


@pytest.mark.parametrize("header", SOME)
def test_nvcc_takes_a_header_alone(nvcc: Nvcc, header: str) -> None:
    assert nvcc.compile(alone(header)).cubin


def test_two_translation_units_with_everything_link(nvcc: Nvcc, tmp_path: Path) -> None:
    """No function of a header is defined twice, neither on the device nor on the host."""
    kernel = generate(GemmConfig(64, 16, 4, 1), "90a")
    includes = "".join(f'#include "{header}"\n' for header in HEADERS)
    files = []
    for name in ("first", "second"):
        file = tmp_path / f"{name}.cu"
        file.write_text(includes + kernel.text.replace(f" {kernel.entry}(", f" {name}("))
        files.append(str(file))
    command = [str(nvcc.path), *nvcc.options("90a")[:2], f"-I{include_root()}", "-rdc=true"]
    command += ["-shared", "-Xcompiler=-fPIC", "-cudart=none", "-o", str(tmp_path / "both.so")]
    result = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    symbols = (tmp_path / "both.so").read_bytes()
    assert b"first" in symbols and b"second" in symbols
