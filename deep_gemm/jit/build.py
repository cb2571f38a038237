"""A source's compiled kernel: from this process's memory, else from disk, else compiled."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deep_gemm import knobs
from deep_gemm.errors import CompilationError
from deep_gemm.jit.compiler import CompiledKernel, Compiler, select_compiler
from deep_gemm.jit.diagnostics import examine
from deep_gemm.jit.layers import CacheLayers
from deep_gemm.jit.source import KernelSource, included_headers
from deep_gemm.runtime.device import is_capturing

# Goes up when an entry's layout changes, or how a compiler is called beyond its options.
SCHEMA_VERSION = 1


class _Slot:
    """One kernel's place in memory; its lock is held while the kernel is made."""

    __slots__ = ("kernel", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kernel: CompiledKernel | None = None


class _Builds:
    """What this process has built."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slots: dict[str, _Slot] = {}
        self.cache: CacheLayers | None = None
        self.num_forbidden = 0
        self.num_compiled = 0

    def slot(self, key: str) -> _Slot:
        with self.lock:
            return self.slots.setdefault(key, _Slot())

    def renew_locks(self) -> None:
        """For a forked child: threads that held locks are not there to release them."""
        self.lock = threading.Lock()
        self.slots = {key: slot for key, slot in self.slots.items() if slot.kernel is not None}
        for slot in self.slots.values():
            slot.lock = threading.Lock()

    def disk(self) -> CacheLayers:
        with self.lock:
            if self.cache is None:
                self.cache = CacheLayers()
            return self.cache


_builds = _Builds()
os.register_at_fork(after_in_child=_builds.renew_locks)


def build(source: KernelSource, purpose: object = None) -> CompiledKernel:
    """The compiled kernel of `source`.

    It is compiled at most once in this process, and by one process of this host at a time. Any
    number of threads may call this; different kernels compile side by side.

    Args:
        source: what to compile.
        purpose: what it is for, as an error names it; the kernel's name by default.

    Raises:
        CompilationError: the compiler refused it, compiling is forbidden now, or a CUDA graph is
            being captured on this thread's current stream.
        MissingDependencyError: no compiler is installed, or a header is absent.
    """
    compiler = select_compiler()
    key = cache_key(source, compiler)
    slot = _builds.slot(key)
    with slot.lock:
        if slot.kernel is None:
            kernel = _load_or_compile(source, compiler, key, purpose)
            examine(kernel, key, _builds.disk().written.directory)
            slot.kernel = kernel
        return slot.kernel


def _load_or_compile(
    source: KernelSource, compiler: Compiler, key: str, purpose: object
) -> CompiledKernel:
    cache = _builds.disk()
    is_cached = not knobs.jit_disable_cache.get()
    kernel = cache.get(source.name, key) if is_cached else None
    if kernel is not None:
        return kernel
    if _builds.num_forbidden:
        raise CompilationError(
            f"kernel {source.name} ({key}) is neither in memory nor in {cache}, and "
            "compiling is forbidden"
        )
    if is_capturing():
        # Reading a kernel from disk does a graph no harm; a second of a server's time would.
        raise CompilationError(
            f"{purpose or source.name} needs kernel {source.name}, which is not compiled yet, and "
            "a CUDA graph is being captured. Compile it before the capture: make this call once "
            "outside of it, or use deep_gemm.precompile or python -m deep_gemm precompile. The "
            "capture goes on; nothing was added to it"
        )
    if not is_cached:
        return _compile(source, compiler)
    with cache.exclusive(key):
        kernel = cache.get(source.name, key)
        if kernel is None:
            kernel = _compile(source, compiler)
            cache.put(kernel, key, source.text)
    return kernel


def _compile(source: KernelSource, compiler: Compiler) -> CompiledKernel:
    kernel = compiler.compile(source)
    with _builds.lock:
        _builds.num_compiled += 1
    return kernel


def num_compiled() -> int:
    """Kernels that this process has compiled so far, not those that it found."""
    return _builds.num_compiled


def cache_key(source: KernelSource, compiler: Compiler) -> str:
    """SHA-256, in hex, over all that decides what `compiler` makes of `source`."""
    fields = [
        ("schema", str(SCHEMA_VERSION)),
        ("compiler", compiler.name),
        ("version", compiler.version),
        ("fingerprint", compiler.fingerprint),
        ("arch", source.arch),
        *(("option", option) for option in compiler.options(source.arch)),
        ("name", source.name),
        ("entry", source.entry),
        ("text", source.text),
    ]
    digest = hashlib.sha256()
    for label, value in fields:
        _add(digest, label, value.encode())
    for name, content in included_headers(source.text).items():
        _add(digest, "header", name.encode())
        _add(digest, "content", content)
    return digest.hexdigest()


def _add(digest: hashlib._Hash, label: str, value: bytes) -> None:
    # With its length in front, no field can pass for the end of one and the start of another.
    digest.update(f"{label} {len(value)}\n".encode() + value)


@contextmanager
def forbid_compilation() -> Iterator[None]:
    """Within this context, in every thread, `build` raises instead of compiling.

    A test that passes in it has proved that its kernels came from memory or from disk.
    """
    with _builds.lock:
        _builds.num_forbidden += 1
    try:
        yield
    finally:
        with _builds.lock:
            _builds.num_forbidden -= 1


def forget_builds() -> None:
    """Make the next build behave as this process's first; for tests."""
    with _builds.lock:
        _builds.slots.clear()
        _builds.cache = None
