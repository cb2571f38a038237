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
    """One environment variable: its name, its default and what it does; and the name that it had in
    an older version of the reference library, which is read where this one is unset."""

    name: str
    default: T
    parse: Callable[[str], T]
    doc: str
    older_name: str = ""

    def get(self) -> T:
        """The variable's present value, or the default if it is unset or empty.

        Raises:
            ArgumentError: the text is not of the knob's type.
        """
        name, text = self.name, os.environ.get(self.name, "")
        if not text and self.older_name:
            name, text = self.older_name, os.environ.get(self.older_name, "")
        if not text:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise ArgumentError(f"environment variable {name}: {error}, got {text!r}") from None


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


def _cpp_standard(text: str) -> int:
    if text != "20":
        raise ValueError("must be 20, the one that our kernels are written in")
    return 20


jit_cache_dir = Knob(
    "DG_JIT_CACHE_DIR",
    _CACHE_DIRS,
    _directories,
    "Directory of the kernel cache, read at the first build; after a colon, layers only read.",
    older_name="DG_CACHE_DIR",
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
    older_name="DG_NVCC_COMPILER",
)
cuda_home = Knob(
    "CUDA_HOME", None, Path, "Root of a CUDA toolkit: where nvcc is, and libnvrtc without a wheel."
)
cuda_path = Knob("CUDA_PATH", None, Path, "Read where CUDA_HOME is unset.")
nvcc_prepend_flags = Knob(
    "NVCC_PREPEND_FLAGS", "", str, "Options that nvcc reads by itself; part of the cache key."
)
nvcc_append_flags = Knob("NVCC_APPEND_FLAGS", "", str, "The same, read after the others.")
jit_record = Knob(
    "DG_JIT_RECORD",
    None,
    Path,
    "A file to which each problem that a process meets is appended, for precompile.",
)
few_kernels = Knob(
    "DG_FEW_KERNELS",
    False,
    _flag,
    "1: single and m-grouped products use a few kernels only, all of which can be precompiled.",
)
jit_cpp_standard = Knob(
    "DG_JIT_CPP_STANDARD",
    20,
    _cpp_standard,
    "The C++ standard of kernels, which can only be this one.",
    older_name="DG_JIT_OVERRIDE_CPP_STANDARD",
)
jit_disable_cache = Knob(
    "DG_JIT_DISABLE_CACHE",
    False,
    _flag,
    "1: kernels are neither read from disk nor written there; each process compiles its own.",
)
jit_debug = Knob(
    "DG_JIT_DEBUG",
    False,
    _flag,
    "1: as DG_JIT_PRINT_COMPILER_COMMAND, DG_JIT_PTXAS_VERBOSE and DG_JIT_PRINT_LOAD_TIME.",
)
jit_print_compiler_command = Knob(
    "DG_JIT_PRINT_COMPILER_COMMAND",
    False,
    _flag,
    "1: print each compile's compiler and options.",
    older_name="DG_JIT_PRINT_NVCC_COMMAND",
)
jit_ptxas_verbose = Knob(
    "DG_JIT_PTXAS_VERBOSE",
    False,
    _flag,
    "1: print what ptxas says of a kernel; of one from disk, its registers and spills.",
    older_name="DG_PTXAS_VERBOSE",
)
jit_ptxas_check = Knob(
    "DG_JIT_PTXAS_CHECK", False, _flag, "1: a kernel that spills registers is an error."
)
jit_with_lineinfo = Knob(
    "DG_JIT_WITH_LINEINFO",
    True,
    _flag,
    "Accepted: kernels always have line information, which costs no time when they run.",
)
jit_print_load_time = Knob(
    "DG_JIT_PRINT_LOAD_TIME", False, _flag, "1: print how long the driver takes to load a kernel."
)
jit_dump_ptx = Knob(
    "DG_JIT_DUMP_PTX", False, _flag, "1: write each kernel's PTX below dump/ in the cache."
)
jit_dump_sass = Knob(
    "DG_JIT_DUMP_SASS", False, _flag, "1: the same with SASS, by nvdisasm or cuobjdump."
)
jit_dump_asm = Knob("DG_JIT_DUMP_ASM", False, _flag, "1: the same with both.")
tuned_dir = Knob(
    "DG_TUNED_DIR",
    Path("~/.deep_gemm/tuned"),
    Path,
    "Directory of your own tables of measured configurations, which win over the packaged ones.",
)
print_configs = Knob(
    "DG_PRINT_CONFIGS", False, _flag, "1: print each problem's chosen configuration, and why."
)
check_scale_factors = Knob(
    "DG_CHECK_SCALE_FACTORS",
    False,
    _flag,
    "1: wait for FP32 scale factors to be packed for SM100, and raise at once if one is wrong.",
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
    older_name="DG_NSYS_PROFILING",
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
    jit_record,
    few_kernels,
    jit_cpp_standard,
    jit_disable_cache,
    jit_debug,
    jit_print_compiler_command,
    jit_ptxas_verbose,
    jit_ptxas_check,
    jit_with_lineinfo,
    jit_print_load_time,
    jit_dump_ptx,
    jit_dump_sass,
    jit_dump_asm,
    tuned_dir,
    print_configs,
    check_scale_factors,
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
