"""What `doctor` looks at: a function per thing, which returns what it found or raises."""

from __future__ import annotations

import platform
import re
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from deep_gemm import knobs
from deep_gemm._version import __version__
from deep_gemm.cli.gpu import find_gpus, needed_architectures
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.errors import MissingDependencyError
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import Compiler, select_compiler
from deep_gemm.jit.layers import CacheLayers
from deep_gemm.jit.nvcc import Nvcc, find_nvcc
from deep_gemm.jit.nvrtc import Nvrtc
from deep_gemm.jit.nvrtc_library import by_loader, driver_version, in_toolkit, in_wheels
from deep_gemm.jit.source import KernelSource, include_root, included_headers
from deep_gemm.jit.trust import open_folder
from deep_gemm.jit.upkeep import stored

Status = Literal["ok", "unused", "warning", "missing"]

MIN_CUDA_MAJOR = 12
"""CUDA version of the oldest driver that has the calls we make."""

TRIAL = KernelSource("deep_gemm_doctor", 'extern "C" __global__ void trial() {}\n', "trial", "90a")

_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_RELEASE = re.compile(r"\b\d{3,}\.\d+(?:\.\d+)?\b")
_INSTALL_DRIVER = (
    "install the NVIDIA driver (Ubuntu: sudo ubuntu-drivers install); "
    "start a container with: docker run --gpus all"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: what was looked for.
        status: "missing" if the main job can't run without it, or with this one.
        found: what is there.
        mend: the command or the step that mends it; empty if nothing is amiss.
    """

    subject: str
    status: Status
    found: str
    mend: str = ""


def python() -> list[Finding]:
    """The interpreter and this package."""
    package = Path(__file__).resolve().parent.parent
    machine = f"{platform.system()} {platform.machine()}"
    return [
        Finding("Python", "ok", f"{platform.python_version()} at {sys.executable}, {machine}"),
        Finding("deep_gemm", "ok", f"{__version__} at {package}"),
    ]


def torch_build() -> list[Finding]:
    """Torch, and the CUDA it was built for."""
    if torch.version.cuda is None:
        found = f"torch {torch.__version__} is built without CUDA"
        return [Finding("torch", "missing", found, "pip install --force-reinstall torch")]
    return [Finding("torch", "ok", f"{torch.__version__}, built for CUDA {torch.version.cuda}")]


def nvidia_driver() -> list[Finding]:
    """The driver: its release, and the newest CUDA that it takes."""
    release = _kernel_module_release()
    version = driver_version()
    if version is None:
        module = f", though kernel module {release} is loaded" if release else ""
        found = f"libcuda.so.1 does not load{module}"
        return [Finding("NVIDIA driver", "missing", found, _INSTALL_DRIVER)]
    cuda = ".".join(map(str, version))
    found = f"{release or 'of unknown release'}, for CUDA up to {cuda}"
    if version[0] < MIN_CUDA_MAJOR:
        mend = f"update the driver to one for CUDA {MIN_CUDA_MAJOR} or newer"
        return [Finding("NVIDIA driver", "missing", found, mend)]
    return [Finding("NVIDIA driver", "ok", found)]


def _kernel_module_release() -> str:
    """The release of the loaded kernel module, e.g. `580.95.05`; empty if none is."""
    try:
        match = _RELEASE.search(_KERNEL_MODULE.read_text())
    except OSError:
        return ""
    return match[0] if match else ""


def gpus() -> list[Finding]:
    """Every GPU that torch can use; one of them must have kernels."""
    try:
        found = find_gpus()
    except MissingDependencyError as error:
        mend = "first what is missing above; then check nvidia-smi -L and CUDA_VISIBLE_DEVICES"
        return [Finding("GPU", "missing", f"none: {error}", mend)]
    unsupported: Status = "warning" if any(gpu.is_supported for gpu in found) else "missing"
    mend = f"kernels exist for {needed_architectures()} only"
    return [
        Finding(f"GPU {gpu.index}", "ok", f"{gpu}")
        if gpu.is_supported
        else Finding(f"GPU {gpu.index}", unsupported, f"{gpu}: not supported", mend)
        for gpu in found
    ]


def compiler() -> list[Finding]:
    """The compiler that the knobs choose, tried on an empty kernel."""
    chosen = select_compiler()
    kernel = chosen.compile(TRIAL)
    found = f"{kernel.compiler} at {_path_of(chosen)}; a trial kernel took {kernel.seconds:.2f} s"
    limit = driver_version()
    if limit and int(chosen.version.partition(".")[0]) > limit[0]:
        found += f", but the driver takes CUDA up to {limit[0]}.{limit[1]}"
        mend = f"pip install nvidia-cuda-nvrtc-cu{limit[0]}, or update the driver"
        return [Finding("compiler", "missing", found, mend)]
    return [Finding("compiler", "ok", found)]


def other_compilers() -> list[Finding]:
    """The compilers that are installed and not chosen."""
    home = knobs.cuda_home.get() or knobs.cuda_path.get()
    libraries = dict.fromkeys([*in_wheels(), *in_toolkit(home), *by_loader()])
    installed: list[Compiler] = [Nvrtc(library) for library in libraries]
    with suppress(MissingDependencyError):
        installed.append(Nvcc(find_nvcc(knobs.jit_nvcc_compiler.get(), home), ("", "")))
    chosen = _chosen_path()
    return [
        Finding("", "unused", f"{other.name} {other.version} at {_path_of(other)}")
        for other in installed
        if _path_of(other) != chosen
    ]


def _chosen_path() -> Path | None:
    try:
        return _path_of(select_compiler())
    except MissingDependencyError:
        return None


def _path_of(some_compiler: Compiler) -> Path | None:
    if isinstance(some_compiler, Nvrtc):
        return some_compiler.library.path
    return some_compiler.path if isinstance(some_compiler, Nvcc) else None


def headers() -> list[Finding]:
    """Our CUDA headers: every one that a kernel includes."""
    source = generate(select(GemmProblem(4096, 7168, 2048)).config, "90a")
    return [Finding("headers", "ok", f"{len(included_headers(source.text))} in {include_root()}")]


def kernel_cache() -> list[Finding]:
    """The kernel cache. Without it every process compiles its kernels anew, and works."""
    return [_layer(cache) for cache in CacheLayers().all()]


def _layer(cache: KernelCache) -> Finding:
    """One directory of it: the one that is written, or a layer that is only read."""
    subject = "cache layer" if cache.is_read_only else "kernel cache"
    directory = cache.directory
    try:
        entries = stored(cache)
        if cache.is_read_only or directory.exists():
            with open_folder(directory):
                pass
        if not cache.is_read_only:
            for folder in ("cache", "tmp"):
                _try_writing(directory / folder)
    except OSError as error:
        found = f"{directory} cannot be used: {error}"
        mend = f"export {knobs.jit_cache_dir.name}=<a directory that you alone can write to>"
        return Finding(subject, "warning", found, mend)
    num_bytes = sum(entry.num_bytes for entry in entries)
    use = "read-only" if cache.is_read_only else "writable"
    found = f"{directory}, {use}, {len(entries)} kernel(s), {num_bytes / 1e6:.1f} MB"
    return Finding(subject, "ok", found)


def _try_writing(folder: Path) -> None:
    """Writes into the folder, or where it would be made, and leaves nothing behind."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"deep_gemm")
