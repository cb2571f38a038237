"""What a process tells of its kernels, and where it writes their code, if knobs ask for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from deep_gemm import knobs
from deep_gemm.errors import CompilationError
from deep_gemm.knobs import Knob

if TYPE_CHECKING:
    from deep_gemm.jit.compiler import CompiledKernel

_DISASSEMBLERS = {"nvdisasm": ("-c",), "cuobjdump": ("-sass",)}
"""Either gives SASS from a cubin; with the options for that."""


def asks(knob: Knob[bool]) -> bool:
    """Whether this is to be told: by its knob, or by the one for everything."""
    return knob.get() or knobs.jit_debug.get()


def tell(text: str) -> None:
    """Writes to standard error."""
    print(f"deep_gemm: {text}", file=sys.stderr, flush=True)


def examine(kernel: CompiledKernel, digest: str, cache: Path) -> None:
    """Tells of a kernel that the process has just got, and writes its code, as knobs ask.

    Args:
        kernel: from a compiler or from disk.
        digest: its key.
        cache: the cache's directory, in which code is written below `dump`.

    Raises:
        CompilationError: it spills registers, and DG_JIT_PTXAS_CHECK forbids that.
    """
    if asks(knobs.jit_ptxas_verbose):
        origin = "from disk" if kernel.from_cache else f"compiled in {kernel.seconds:.2f} s"
        tell(
            f"kernel {kernel.name}: {kernel.registers} registers, {kernel.spill_bytes} bytes "
            f"spilled, {kernel.static_smem_bytes} bytes of static shared memory; "
            f"{kernel.compiler}, {origin}, key {digest}"
        )
    wants_all = knobs.jit_dump_asm.get()
    code = {}
    if wants_all or knobs.jit_dump_ptx.get():
        code["kernel.ptx"] = kernel.ptx
    if wants_all or knobs.jit_dump_sass.get():
        code["kernel.sass"] = _sass(kernel)
    for file_name, text in code.items():
        if text:
            _write(cache / "dump" / kernel.name / digest / file_name, text)
    if knobs.jit_ptxas_check.get() and kernel.spill_bytes:
        raise CompilationError(
            f"kernel {kernel.name} spills {kernel.spill_bytes} bytes of registers into local "
            "memory, and DG_JIT_PTXAS_CHECK=1 forbids that"
        )


def _sass(kernel: CompiledKernel) -> str:
    """The kernel's machine code as text; empty, with a warning, where nothing can read it."""
    tool = _disassembler()
    if tool is None:
        _warn(
            f"no SASS of kernel {kernel.name}: neither nvdisasm nor cuobjdump is in CUDA_HOME, on "
            "PATH or in a wheel; mend it with: pip install nvidia-cuda-nvdisasm"
        )
        return ""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.cubin)
        file.flush()
        command = [str(tool), *_DISASSEMBLERS[tool.name], file.name]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        _warn(f"no SASS of kernel {kernel.name}: {tool} failed: {run.stderr.strip()}")
        return ""
    return run.stdout


def _disassembler() -> Path | None:
    """The first of those that there are: of the toolkit, of PATH, of a wheel."""
    home = knobs.cuda_home.get() or knobs.cuda_path.get()
    for name in _DISASSEMBLERS:
        if home and (home / "bin" / name).is_file():
            return home / "bin" / name
        if found := shutil.which(name):
            return Path(found)
        for entry in sys.path:
            if wheels := sorted(Path(entry).glob(f"nvidia/*/bin/{name}")):
                return wheels[-1]
    return None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        _warn(f"{path} was not written: {error}")
    else:
        tell(f"wrote {path}")


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
