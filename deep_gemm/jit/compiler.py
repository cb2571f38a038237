"""What a run-time compiler takes and gives, and the choice between the two that we have."""

from __future__ import annotations

import re
import tempfile
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from deep_gemm import knobs
from deep_gemm.errors import CompilationError
from deep_gemm.jit.diagnostics import asks, tell
from deep_gemm.jit.source import KernelSource, included_headers

SOURCE_ROOT = "/csrc/"
"""Where line information says that headers lie: a path of no machine, so that no bytes differ.

Line information costs nothing notable, so it is always there: profilers and the emulator then name
source lines. It changes not a byte of the code (NVRTC 12.9 and 13.0 and NVCC 13.0, on six
configurations); the time of a compile grows by 0 to 0.03 s of 0.5 s; a cubin of 35 KB has 131 KB,
the difference in debug sections.
"""

# Texts, as few processes compile a kernel: a compiled pattern costs the others 0.3 ms.

# ptxas files the losses that matter most (wgmma serialised, setmaxnreg ignored) under "info".
_SLOW = r"Potential Performance Loss|ptxas warning"
_NOTABLE = r"warning|\(C\d+\)"
_SPILLS = r"(\d+) bytes spill stores, (\d+) bytes spill loads"
_USED = r"Used (\d+) registers(?:.*?, (\d+) bytes smem)?"
_RELEASE = r"(?m)^// Cuda compilation tools, release .*, V([\d.]+)$"


class CompiledKernel(NamedTuple):
    """A kernel ready to load, and what its compiler said of it.

    Attributes:
        name, entry, arch: as in its `KernelSource`.
        cubin: ELF image for the architecture.
        ptx: the text that the cubin was assembled from.
        registers: per thread at entry.
        spill_bytes: stores plus loads, of the kernel and of the functions it calls.
        static_smem_bytes: shared memory besides the dynamic part.
        compiler: e.g. `NVRTC 13.0.88`.
        seconds: time of the compile, also when the kernel came from the cache.
        from_cache: it was read from disk.
    """

    name: str
    entry: str
    arch: str
    cubin: bytes
    ptx: str
    registers: int
    spill_bytes: int
    static_smem_bytes: int
    compiler: str
    seconds: float
    from_cache: bool


class Translation(NamedTuple):
    """What one compiler run gave; `failure` is empty if it succeeded."""

    cubin: bytes
    ptx: str
    log: str
    failure: str
    seconds: float


class PtxasReport(NamedTuple):
    """A kernel's resources, as ptxas prints them when it is verbose."""

    registers: int
    spill_bytes: int
    static_smem_bytes: int

    @classmethod
    def parse(cls, log: str, entry: str) -> PtxasReport | None:
        """The report on `entry`, or None if the log has none."""
        _, _, rest = log.partition(f"Compiling entry function '{entry}'")
        section, _, _ = rest.partition("Compiling entry function")
        used = re.search(_USED, section)
        if used is None:
            return None
        spills = sum(int(stores) + int(loads) for stores, loads in re.findall(_SPILLS, section))
        return cls(int(used[1]), spills, int(used[2] or 0))


def placed(name: str, content: bytes) -> bytes:
    """A source file that names itself, as seen from `SOURCE_ROOT`."""
    return f'#line 1 "{SOURCE_ROOT}{name}"\n'.encode() + content


class Compiler(ABC):
    """Turns CUDA C++ into cubin and PTX.

    Attributes:
        name: `NVRTC` or `NVCC`.
        version: as far as it is known before the first compile, e.g. `13.0`.
        fingerprint: differs between any two compilers that could differ in output.
    """

    name: str
    version: str
    fingerprint: str

    @abstractmethod
    def options(self, arch: str) -> tuple[str, ...]:
        """Every option of a compile for `arch`; none of them names a file."""

    def command(self, source: KernelSource) -> str:
        """The compile of `source` in words: the compiler, its options and the file."""
        import shlex

        options = shlex.join(self.options(source.arch))
        return f"{self.name} {self.version}: {options} {source.name}.cu"

    @abstractmethod
    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        """Run the compiler on `source`, whose includes are found in `headers` only."""

    def compile(self, source: KernelSource) -> CompiledKernel:
        """Compile one kernel.

        Raises:
            CompilationError: refused, or compiled to code that ptxas knows to be slow.
            MissingDependencyError: a header is absent, or the compiler cannot be loaded.
        """
        if asks(knobs.jit_print_compiler_command):
            tell(self.command(source))
        result = self.translate(source, included_headers(source.text))
        if asks(knobs.jit_ptxas_verbose):
            tell(f"{self.name} on kernel {source.name}:\n{result.log.rstrip()}")
        report = PtxasReport.parse(result.log, source.entry)
        if result.failure:
            raise self._error(source, result.failure, result.log)
        if report is None:
            raise self._error(source, f"made no kernel {source.entry!r}", result.log)
        if re.search(_SLOW, result.log):
            raise self._error(source, "ptxas made slow code", result.log)
        if re.search(_NOTABLE, result.log):
            text = f"{self.name} on kernel {source.name}:\n{result.log}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        release = re.search(_RELEASE, result.ptx)
        return CompiledKernel(
            name=source.name,
            entry=source.entry,
            arch=source.arch,
            cubin=result.cubin,
            ptx=result.ptx,
            registers=report.registers,
            spill_bytes=report.spill_bytes,
            static_smem_bytes=report.static_smem_bytes,
            compiler=f"{self.name} {release[1] if release else self.version}",
            seconds=result.seconds,
            from_cache=False,
        )

    def _error(self, source: KernelSource, failure: str, log: str) -> CompilationError:
        return CompilationError(
            f"kernel {source.name}: {self.name} {self.version}: {failure}\n"
            f"options: {' '.join(self.options(source.arch))}\n"
            f"config: {source.config or 'none but its name'}\n"
            f"numbered source: {_write_numbered(source)}\n{log}"
        )


def _write_numbered(source: KernelSource) -> str:
    lines = (f"{n:5d} | {line}\n" for n, line in enumerate(source.text.splitlines(), 1))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{source.name}-", suffix=".cu", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(lines)
    except OSError as error:
        return f"not written ({error})"
    return file.name


def select_compiler() -> Compiler:
    """The compiler that the knobs ask for: NVRTC, or NVCC under `DG_JIT_USE_NVRTC=0`.

    Raises:
        ArgumentError: a knob has a value that it can't have, such as another C++ standard.
        MissingDependencyError: it is not installed.
    """
    knobs.jit_cpp_standard.get()
    knobs.jit_with_lineinfo.get()
    home = knobs.cuda_home.get() or knobs.cuda_path.get()
    if knobs.jit_use_nvrtc.get():
        return _nvrtc(home)
    flags = (knobs.nvcc_prepend_flags.get(), knobs.nvcc_append_flags.get())
    return _nvcc(knobs.jit_nvcc_compiler.get(), home, flags)


@cache
def _nvrtc(home: Path | None) -> Compiler:
    from deep_gemm.jit.nvrtc import Nvrtc
    from deep_gemm.jit.nvrtc_library import find_library

    return Nvrtc(find_library(home))


@cache
def _nvcc(path: Path | None, home: Path | None, flags: tuple[str, str]) -> Compiler:
    from deep_gemm.jit.nvcc import Nvcc, find_nvcc

    return Nvcc(find_nvcc(path, home), flags)
