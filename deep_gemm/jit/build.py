"""A source's compiled kernel: from this process's memory, else from disk, else compiled."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from deep_gemm.errors import CompilationError
from deep_gemm.jit.compiler import CompiledKernel, Compiler, select_compiler
from deep_gemm.jit.layers import CacheLayers
from deep_gemm.jit.source import KernelSource, included_headers

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

    def slot(self, key: str) -> _Slot:
        with self.lock:
            return self.slots.setdefault(key, _Slot())

    def disk(self) -> CacheLayers:
        with self.lock:
            if self.cache is None:
                self.cache = CacheLayers()
            return self.cache


_builds = _Builds()


def build(source: KernelSource) -> CompiledKernel:
    """The compiled kernel of `source`.

    It is compiled at most once in this process, and by one process of this host at a time. Any
    number of threads may call this; different kernels compile side by side.

    Raises:
        CompilationError: the compiler refused it, or compiling is forbidden now.
        MissingDependencyError: no compiler is installed, or a header is absent.
    """
    compiler = select_compiler()
    key = cache_key(source, compiler)
    slot = _builds.slot(key)
    with slot.lock:
        if slot.kernel is None:
            slot.kernel = _load_or_compile(source, compiler, key)
        return slot.kernel


def _load_or_compile(source: KernelSource, compiler: Compiler, key: str) -> CompiledKernel:
    cache = _builds.disk()
    kernel = cache.get(source.name, key)
    if kernel is not None:
        return kernel
    if _builds.num_forbidden:
        raise CompilationError(
            f"kernel {source.name} ({key}) is neither in memory nor in {cache}, and "
            "compiling is forbidden"
        )
    with cache.exclusive(key):
        kernel = cache.get(source.name, key)
        if kernel is None:
            kernel = compiler.compile(source)
            cache.put(kernel, key, source.text)
    return kernel


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
