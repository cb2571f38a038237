"""The cache directories of a process: one that is written, and layers that are only read.

A container image brings its kernels in a layer; what it lacks is compiled into the first directory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from deep_gemm import knobs
from deep_gemm.jit.cache import KernelCache
from deep_gemm.jit.compiler import CompiledKernel


class CacheLayers:
    """What `DG_JIT_CACHE_DIR` names, and the bound of `DG_JIT_CACHE_MAX_MB`.

    Attributes:
        written: the first directory, which new kernels go to.
        read_only: the others, looked at in their order.
    """

    def __init__(self) -> None:
        first, *others = knobs.jit_cache_dir.get()
        self.written = KernelCache(first)
        self.read_only = tuple(KernelCache(other, is_read_only=True) for other in others)
        self._max_mb = knobs.jit_cache_max_mb.get()

    def __str__(self) -> str:
        return ", ".join(str(layer.directory) for layer in self.all())

    def all(self) -> tuple[KernelCache, ...]:
        """Every layer, in the order in which they are looked at."""
        return (self.written, *self.read_only)

    def get(self, name: str, digest: str) -> CompiledKernel | None:
        """The kernel stored under `digest` in the first layer that has it; else None."""
        found = (layer.get(name, digest) for layer in self.all())
        return next(filter(None, found), None)

    def put(self, kernel: CompiledKernel, digest: str, source_text: str) -> None:
        """Store a kernel, then prune what was used longest ago if there is too much now."""
        self.written.put(kernel, digest, source_text)
        if self._max_mb is not None:
            from deep_gemm.jit.upkeep import prune_after_put

            prune_after_put(self.written, self._max_mb * 1_000_000, digest)

    def exclusive(self, digest: str) -> AbstractContextManager[None]:
        """See `KernelCache.exclusive`."""
        return self.written.exclusive(digest)
