"""Kernels compiled side by side into the kernel cache, before they are needed. Needs no GPU."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.jit.build import build, cache_key
from deep_gemm.jit.codegen import generate
from deep_gemm.jit.compiler import CompiledKernel, select_compiler
from deep_gemm.tuning.children import describe


@dataclass(frozen=True, slots=True)
class Built:
    """What became of one configuration.

    Attributes:
        config: it.
        seconds: until its kernel was there.
        kernel: it, or None.
        error: why there is none.
    """

    config: GemmConfig
    seconds: float
    kernel: CompiledKernel | None
    error: str = ""


def compile_kernels(configs: Iterable[GemmConfig], arch: str, jobs: int) -> Iterator[Built]:
    """Builds kernels, as they are done; compilers run without Python's lock.

    Whoever stops to listen stops those that have not begun.

    Args:
        configs: what to build.
        arch: architecture, such as "90a".
        jobs: how many at a time.
    """
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = [pool.submit(_build, config, arch) for config in configs]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _build(config: GemmConfig, arch: str) -> Built:
    start = time.perf_counter()
    try:
        kernel = build(generate(config, arch))
    except Exception as error:
        return Built(config, time.perf_counter() - start, None, describe(error))
    return Built(config, time.perf_counter() - start, kernel)


def digest_of_kernels(arch: str) -> str:
    """Short hexadecimal that changes with the compiler and with our headers: what was measured with
    another one says little about the kernels of today."""
    any_config = GemmConfig(block_m=64, block_n=64, num_stages=4, num_math_warpgroups=1)
    return cache_key(generate(any_config, arch), select_compiler())[:12]
