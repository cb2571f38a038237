"""Every environment variable that the library reads, in one typed table.

A knob is read when its value is needed, never at import: serving engines set `DG_JIT_CACHE_DIR`
just before the first call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from deep_gemm.errors import ArgumentError

T = TypeVar("T")


@dataclass(frozen=True)
class Knob(Generic[T]):
    """One environment variable: its name, its default and what it does."""

    name: str
    default: T
    parse: Callable[[str], T]
    doc: str

    def get(self) -> T:
        """The variable's present value, or the default if it is unset or empty.

        Raises:
            ArgumentError: the text is not of the knob's type.
        """
        text = os.environ.get(self.name, "")
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise ArgumentError(
                f"environment variable {self.name}: {error}, got {text!r}"
            ) from None


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("must be 0 or 1")
    return text == "1"


_CACHE_DIRS: tuple[Path, ...] = (Path("~/.deep_gemm"),)


def _directories(text: str) -> tuple[Path, ...]:
    """The parts of a search path; as in MANPATH, an empty part stands for the default."""
    return tuple(Path(part) if part else _CACHE_DIRS[0] for part in text.split(os.pathsep))


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError("must be at least 1")
    return int(text)


jit_cache_dir = Knob(
    "DG_JIT_CACHE_DIR",
    _CACHE_DIRS,
    _directories,
    "Directory of the kernel cache, read at the first build; after a colon, layers only read.",
)
jit_cache_max_mb = Knob(
    "DG_JIT_CACHE_MAX_MB",
    None,
    _positive,
    "Megabytes of kernels on disk above which those used longest ago go; unset: no bound.",
)
jit_use_nvrtc = Knob(
    "DG_JIT_USE_NVRTC", True, _flag, "1: compile with NVRTC from its wheel; 0: with NVCC."
)
jit_nvcc_compiler = Knob(
    "DG_JIT_NVCC_COMPILER",
    None,
    Path,
    "The nvcc to run when DG_JIT_USE_NVRTC=0; by default the one of CUDA_HOME, then of PATH.",
)
cuda_home = Knob(
    "CUDA_HOME", None, Path, "Root of a CUDA toolkit: where nvcc is, and libnvrtc without a wheel."
)
cuda_path = Knob("CUDA_PATH", None, Path, "Read where CUDA_HOME is unset.")
nvcc_prepend_flags = Knob(
    "NVCC_PREPEND_FLAGS", "", str, "Options that nvcc reads by itself; part of the cache key."
)
nvcc_append_flags = Knob("NVCC_APPEND_FLAGS", "", str, "The same, read after the others.")
tuned_dir = Knob(
    "DG_TUNED_DIR",
    Path("~/.deep_gemm/tuned"),
    Path,
    "Directory of your own tables of measured configurations, which win over the packaged ones.",
)
print_configs = Knob(
    "DG_PRINT_CONFIGS", False, _flag, "1: print each problem's chosen configuration, and why."
)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return text

    return parse


emulator_arch = Knob(
    "DG_EMULATOR_ARCH",
    "90a",
    _one_of("90a", "100a", "103a"),
    "Architecture whose kernels run in the emulator for tensors on the CPU.",
)
emulator_timing = Knob(
    "DG_EMULATOR_TIMING",
    "early",
    _one_of("early", "late", "random"),
    "When the emulator lets asynchronous operations happen, of the moments that PTX allows.",
)

use_nvidia_tools = Knob(
    "DG_USE_NVIDIA_TOOLS",
    False,
    lambda text: bool(int(text)),
    "1: another profiler or a sanitizer is at work, so bench_kineto measures nothing, returns 1.",
)

master_addr = Knob("MASTER_ADDR", "127.0.0.1", str, "Where the processes of init_dist meet.")
master_port = Knob("MASTER_PORT", 8361, int, "The port of it.")
num_nodes = Knob("WORLD_SIZE", 1, int, "Nodes that init_dist joins, each with its processes.")
node_rank = Knob("RANK", 0, int, "The number of this node among those.")

ALL: tuple[Knob[object], ...] = (  # type: ignore[assignment]
    jit_cache_dir,
    jit_cache_max_mb,
    jit_use_nvrtc,
    jit_nvcc_compiler,
    cuda_home,
    cuda_path,
    nvcc_prepend_flags,
    nvcc_append_flags,
    tuned_dir,
    print_configs,
    emulator_arch,
    emulator_timing,
    use_nvidia_tools,
    master_addr,
    master_port,
    num_nodes,
    node_rank,
)


def environment(changes: Mapping[str, str]) -> dict[str, str]:
    """All variables of this process, some of them changed, for a child process."""
    return {**os.environ, **changes}


@contextmanager
def without(name: str) -> Iterator[None]:
    """An environment variable is unset, and afterwards as it was."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
