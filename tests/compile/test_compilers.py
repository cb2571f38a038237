"""Every installed compiler on small kernels: what it gives, what it refuses, how it says so."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deep_gemm import knobs
from deep_gemm.errors import CompilationError, MissingDependencyError
from deep_gemm.jit.build import build, cache_key, forget_builds
from deep_gemm.jit.compiler import Compiler
from deep_gemm.jit.nvcc import Nvcc, find_nvcc
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import Library, in_toolkit, in_wheels
from deep_gemm.jit.source import KernelSource

EM_CUDA = 190

TINY = KernelSource(
    "tiny_kernel",
    """\
#include "common/types.cuh"

extern "C" __global__ void __launch_bounds__(128) tiny(float* x, uint32_t n) {
    __shared__ float shared[32];
    shared[threadIdx.x % 32] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[n % 32];
}
""",
    "tiny",
    "90a",
)

SPILLING = """\
extern "C" __global__ void __launch_bounds__(1024, 2) tiny(float* x) {
    float held[100];
#pragma unroll
    for (int i = 0; i < 100; ++i) held[i] = x[i * threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 100; ++i) x[i * threadIdx.x] = held[i] * held[99 - i];
}
"""

# Without launch bounds, ptxas does not know how many registers the kernel starts with.
IGNORED_SETMAXNREG = """\
extern "C" __global__ void tiny(float* x) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
    x[threadIdx.x] = 1.0f;
}
"""

# The accumulator is read and written between two asynchronous instructions that use it.
SERIALISED_WGMMA = """\
extern "C" __global__ void __launch_bounds__(128) tiny(float* x, unsigned long long a) {
    float d0 = 0, d1 = 0, d2 = 0, d3 = 0;
    asm volatile("wgmma.fence.sync.aligned;");
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        asm volatile(
            "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 {%0, %1, %2, %3}, %4, %4, 1, 1, 1;"
            : "+f"(d0), "+f"(d1), "+f"(d2), "+f"(d3) : "l"(a));
        d0 += 1.0f;
    }
    asm volatile("wgmma.commit_group.sync.aligned;");
    asm volatile("wgmma.wait_group.sync.aligned 0;");
    x[threadIdx.x] = d0 + d1 + d2 + d3;
}
"""


def nvrtc_libraries() -> list[Library]:
    return in_wheels() + in_toolkit(knobs.cuda_home.get() or knobs.cuda_path.get())


def label(library: Library) -> str:
    return f"nvrtc-{library.version[0]}.{library.version[1]}"


NVRTC = [pytest.param(library, id=label(library)) for library in nvrtc_libraries()]


@pytest.fixture(params=[*NVRTC, pytest.param(None, id="nvcc")])
def compiler(request: pytest.FixtureRequest) -> Compiler:
    if isinstance(request.param, Library):
        return Nvrtc(request.param)
    try:
        path = find_nvcc(knobs.jit_nvcc_compiler.get(), knobs.cuda_home.get())
    except MissingDependencyError as error:
        pytest.skip(str(error))
    return Nvcc(path, (knobs.nvcc_prepend_flags.get(), knobs.nvcc_append_flags.get()))


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_a_kernel_compiles_to_cubin_and_ptx(compiler: Compiler, tmp_path: Path) -> None:
    kernel = compiler.compile(TINY)
    assert kernel.cubin[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<H", kernel.cubin, 18) == (EM_CUDA,)
    assert re.search(r"^\.target sm_90a$", kernel.ptx, re.MULTILINE)
    assert ".visible .entry tiny(" in kernel.ptx
    assert str(tmp_path) not in kernel.ptx
    assert 0 < kernel.registers <= 255
    assert kernel.spill_bytes == 0
    assert kernel.static_smem_bytes == 32 * 4
    assert re.fullmatch(rf"{compiler.name} {compiler.version}(\.\d+)?", kernel.compiler)
    assert 0 < kernel.seconds < 60
    assert not kernel.from_cache
    assert not list(tmp_path.iterdir())


def test_the_same_source_gives_the_same_bytes(compiler: Compiler) -> None:
    first, second = compiler.compile(TINY), compiler.compile(TINY)
    assert (first.cubin, first.ptx) == (second.cubin, second.ptx)


def test_spills_are_counted(compiler: Compiler) -> None:
    assert compiler.compile(replace(TINY, text=SPILLING)).spill_bytes > 0


def test_an_error_carries_options_log_and_numbered_source(compiler: Compiler) -> None:
    text = TINY.text.replace("shared[n % 32]", "shared[unheard_of]")
    with pytest.raises(CompilationError) as caught:
        compiler.compile(replace(TINY, text=text))
    message = str(caught.value)
    assert f"{compiler.name} {compiler.version}" in message
    assert " ".join(compiler.options("90a")) in message
    assert re.search(r'tiny_kernel\.cu\(7\): error: identifier "unheard_of"', message)
    path = re.search(r"numbered source: (.*)", message)
    assert path is not None
    assert '\n    3 | extern "C"' in Path(path[1]).read_text()


def test_an_unknown_architecture_is_an_error(compiler: Compiler) -> None:
    with pytest.raises(CompilationError, match="sm_12345"):
        compiler.compile(replace(TINY, arch="12345"))


def test_a_wrong_entry_is_an_error(compiler: Compiler) -> None:
    with pytest.raises(CompilationError, match="made no kernel 'other'"):
        compiler.compile(replace(TINY, entry="other"))


@pytest.mark.parametrize(
    ("text", "loss"),
    [(IGNORED_SETMAXNREG, "'setmaxnreg' ignored"), (SERIALISED_WGMMA, "are serialized")],
    ids=["setmaxnreg", "wgmma"],
)
def test_slow_code_is_an_error(compiler: Compiler, text: str, loss: str) -> None:
    with pytest.raises(CompilationError, match=f"ptxas made slow code(.|\n)*{loss}"):
        compiler.compile(replace(TINY, text=text))


def test_a_warning_is_passed_on(compiler: Compiler) -> None:
    text = TINY.text.replace("__shared__", "int unused;\n    __shared__")
    with pytest.warns(RuntimeWarning, match='variable "unused"'):
        compiler.compile(replace(TINY, text=text))


@pytest.mark.parametrize("library", NVRTC)
def test_fingerprint_is_the_build_id_that_binutils_read(library: Library) -> None:
    try:
        command = ["readelf", "--notes", str(library.path)]
        notes = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("needs readelf")
    match = re.search(r"Build ID: (\w+)", notes)
    assert match is not None
    assert library.fingerprint.split("+")[0] == match[1]


def test_installed_compilers_have_different_keys() -> None:
    libraries = nvrtc_libraries()
    if len({library.version for library in libraries}) < 2:
        pytest.skip("needs two versions of NVRTC")
    keys = {label(library): cache_key(TINY, Nvrtc(library)) for library in libraries}
    assert len(set(keys.values())) == len(keys)


BUILD_IN_NEW_PROCESS = """
from pathlib import Path
from deep_gemm.jit.build import build, forbid_compilation
from deep_gemm.jit.source import KernelSource

def is_loaded():
    return "libnvrtc" in Path("/proc/self/maps").read_text()

before = is_loaded()
with forbid_compilation():
    build(KernelSource("k", 'extern "C" __global__ void k() {}', "k", "90a"))
print(before, is_loaded())
"""


@pytest.mark.skipif(not in_wheels(), reason="needs an NVRTC wheel")
def test_a_process_that_finds_its_kernel_does_not_load_nvrtc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("DG_JIT_USE_NVRTC", "1")
    forget_builds()
    build(KernelSource("k", 'extern "C" __global__ void k() {}', "k", "90a"))
    forget_builds()
    command = [sys.executable, "-O", "-c", BUILD_IN_NEW_PROCESS]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = output.split()
    if before == "True":
        pytest.skip("something else loads an NVRTC at import here")
    assert after == "False"
