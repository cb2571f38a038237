"""NVRTC through ctypes.

Not through cuda-bindings: importing that takes 0.1 s, and one release of it speaks to one major
version of CUDA, while these eight functions are the same in 12.x and 13.x.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Mapping
from functools import cache

from deep_gemm.errors import CompilationError
from deep_gemm.jit.compiler import Compiler, Translation, placed
from deep_gemm.jit.forks import gate
from deep_gemm.jit.nvrtc_library import Library
from deep_gemm.jit.source import KernelSource


class Nvrtc(Compiler):
    """One libnvrtc; it is loaded at the first compile."""

    name = "NVRTC"

    def __init__(self, library: Library) -> None:
        self.library = library
        self.version = ".".join(map(str, library.version))
        self.fingerprint = library.fingerprint

    def options(self, arch: str) -> tuple[str, ...]:
        """Optimisation is full by default; ptxas is verbose so that it reports registers."""
        target = f"--gpu-architecture=sm_{arch}"
        return (target, "-std=c++20", "-lineinfo", "--ptxas-options=-v", "--no-cache")

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        """Compile once for the real architecture: NVRTC then has the PTX as well."""
        with gate.compiling():
            return self._translate(source, headers)

    def _translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        functions = _functions(self.library)
        program = self._create(source, headers)
        try:
            options = _strings([option.encode() for option in self.options(source.arch)])
            start = time.perf_counter()
            status = functions.nvrtcCompileProgram(program, len(options), options)
            seconds = time.perf_counter() - start
            log = self._output(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
            if status != 0:
                return Translation(b"", "", log, self._meaning(status), seconds)
            cubin = self._output(program, "CUBIN")
            ptx = self._output(program, "PTX").rstrip(b"\0").decode()
            return Translation(cubin, ptx, log, "", seconds)
        finally:
            functions.nvrtcDestroyProgram(ctypes.byref(program))

    def _create(self, source: KernelSource, headers: Mapping[str, bytes]) -> ctypes.c_void_p:
        # Headers go in from memory: what is compiled is what the cache key was made of.
        program = ctypes.c_void_p()
        status = _functions(self.library).nvrtcCreateProgram(
            ctypes.byref(program),
            placed(f"{source.name}.cu", source.text.encode()),
            f"{source.name}.cu".encode(),
            len(headers),
            _strings([placed(name, content) for name, content in headers.items()]),
            _strings([name.encode() for name in headers]),
        )
        self._check(status)
        return program

    def _output(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        functions = _functions(self.library)
        self._check(getattr(functions, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
        buffer = ctypes.create_string_buffer(size.value)
        self._check(getattr(functions, f"nvrtcGet{what}")(program, buffer))
        return buffer.raw

    def _check(self, status: int) -> None:
        if status != 0:
            raise CompilationError(f"NVRTC {self.version}: {self._meaning(status)}")

    def _meaning(self, status: int) -> str:
        meaning: bytes = _functions(self.library).nvrtcGetErrorString(status)
        return meaning.decode()


# Not a cached_property, which has a lock before Python 3.12, and locks and forks don't go together.
@cache
def _functions(library: Library) -> ctypes.CDLL:
    functions = library.load()
    functions.nvrtcGetErrorString.restype = ctypes.c_char_p
    return functions


def _strings(items: list[bytes]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(items))(*items)
