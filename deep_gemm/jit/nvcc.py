"""NVCC as a subprocess, for those who have a CUDA toolkit and want its compiler."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit.compiler import Compiler, Translation, placed
from deep_gemm.jit.source import KernelSource

_RELEASE = re.compile(r"release [\d.]+, V([\d.]+)")


class Nvcc(Compiler):
    """One nvcc.

    Args:
        path: the executable.
        environment_flags: what it will read from `NVCC_PREPEND_FLAGS` and `NVCC_APPEND_FLAGS`.

    Raises:
        MissingDependencyError: `path` is not a working nvcc.
    """

    name = "NVCC"

    def __init__(self, path: Path, environment_flags: tuple[str, str]) -> None:
        self.path = path
        release = _release_text(path)
        match = _RELEASE.search(release)
        if match is None:
            raise MissingDependencyError(f"NVCC: {path} --version names no release: {release!r}")
        self.version = match[1]
        self.fingerprint = repr((release, environment_flags))

    def options(self, arch: str) -> tuple[str, ...]:
        """The intermediate files are kept because the PTX is one: one run gives both."""
        target = f"-gencode=arch=compute_{arch},code=sm_{arch}"
        files = ("-I.", "--cubin", "--keep", "--keep-dir=.")
        return (target, "-std=c++20", "-lineinfo", "-Xptxas=-v", *files)

    def command(self, source: KernelSource) -> str:
        """As it is run, in a folder with the source and its headers."""
        return shlex.join(self._command(source))

    def _command(self, source: KernelSource) -> list[str]:
        files = ("-o", f"{source.name}.cubin", f"{source.name}.cu")
        return [str(self.path), *self.options(source.arch), *files]

    def translate(self, source: KernelSource, headers: Mapping[str, bytes]) -> Translation:
        """Run nvcc in a folder that holds the source and its headers."""
        with tempfile.TemporaryDirectory(prefix="deep_gemm-") as folder:
            root = Path(folder)
            _write(root, {**headers, f"{source.name}.cu": source.text.encode()})
            # Run inside the folder: no path of it can get into a file or a message.
            start = time.perf_counter()
            run = subprocess.run(self._command(source), cwd=root, capture_output=True, check=False)
            seconds = time.perf_counter() - start
            log = (run.stdout + run.stderr).decode(errors="replace")
            if run.returncode != 0:
                return Translation(b"", "", log, f"exit status {run.returncode}", seconds)
            cubin = (root / f"{source.name}.cubin").read_bytes()
            ptx = (root / f"{source.name}.ptx").read_text()
            return Translation(cubin, ptx, log, "", seconds)


def find_nvcc(path: Path | None, toolkit: Path | None) -> Path:
    """`path` if given, else the toolkit's nvcc, else the one on PATH.

    Raises:
        MissingDependencyError: there is none.
    """
    if path:
        return path.absolute()
    if toolkit and (toolkit / "bin" / "nvcc").is_file():
        return (toolkit / "bin" / "nvcc").absolute()
    found = shutil.which("nvcc")
    if found is None:
        raise MissingDependencyError(
            "NVCC: no nvcc in CUDA_HOME or on PATH; install a CUDA toolkit, or name its nvcc in "
            "DG_JIT_NVCC_COMPILER, or unset DG_JIT_USE_NVRTC to compile with NVRTC"
        )
    return Path(found).absolute()


def _release_text(path: Path) -> str:
    try:
        run = subprocess.run([str(path), "--version"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise MissingDependencyError(
            f"NVCC: cannot run {path}: {error}; name a working nvcc in DG_JIT_NVCC_COMPILER"
        ) from error
    return run.stdout.decode(errors="replace")


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(placed(name, content))
