"""A host compiler for the parts of csrc/ that are plain C++: no NVRTC, no NVCC, no GPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.host.cuda_on_host import CSRC

FLAGS = ("-std=c++20", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared")

PROBE = (
    "struct S { int x; }; template <S kS> int f() { return kS.x; } int g() { return f<S{1}>(); }"
)


@pytest.fixture(scope="session")
def host_compiler(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ctypes.CDLL]:
    """`host_compiler(text, *flags)` compiles C++ that includes our headers, and loads it.

    Skips where nothing can compile C++20.
    """
    path = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if path is None:
        pytest.skip("needs a host C++ compiler: no c++, g++ or clang++ on PATH")

    def run(text: str, flags: tuple[str, ...]) -> tuple[Path, subprocess.CompletedProcess[str]]:
        folder = tmp_path_factory.mktemp("host")
        source, library = folder / "harness.cpp", folder / "harness.so"
        source.write_text(text)
        command = [path, *FLAGS, *flags, f"-I{CSRC}", "-o", str(library), str(source)]
        return library, subprocess.run(command, capture_output=True, text=True, check=False)

    if run(PROBE, ())[1].returncode:
        pytest.skip(f"needs a C++20 compiler: {path} takes no struct as a template argument")

    def build(text: str, *flags: str) -> ctypes.CDLL:
        library, result = run(text, flags)
        assert result.returncode == 0, result.stderr
        return ctypes.CDLL(str(library))

    return build
