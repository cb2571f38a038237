"""All kernels that a model or a recorded run needs, compiled beforehand, without a GPU."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from deep_gemm import knobs
from deep_gemm.checks import refuse
from deep_gemm.config.gemm_config import GemmConfig, Grouping
from deep_gemm.config.models import dense_shapes, expert_shapes, model_of, mqa_problems
from deep_gemm.config.mqa_problem import MqaProblem
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.problem_file import read_problems
from deep_gemm.config.reach import Config, ProblemRange, kernels_of
from deep_gemm.config.sm100_config import Sm100GemmConfig
from deep_gemm.jit.build import build, cache_key, num_compiled
from deep_gemm.jit.codegen import generate, generate_k_group_maps
from deep_gemm.jit.compiler import CompiledKernel, select_compiler
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.mqa_config import MqaConfig, generate_mqa_logits
from deep_gemm.kernels.pack_ue8m0 import generate_k_grouped_pack, generate_pack
from deep_gemm.kernels.paged_shares import generate_paged_shares
from deep_gemm.kernels.sm100_fp8_gemm import generate_sm100
from deep_gemm.kernels.sm100_k_grouped import generate_sm100_k_group_maps
from deep_gemm.kernels.transpose import generate_transpose
from deep_gemm.runtime.device import is_sm100

__all__ = [
    "MqaProblem",
    "Precompiled",
    "ProblemRange",
    "precompile",
    "problems_of_model",
    "read_problems",
]

ARCH = "90a"
NUM_SMS = {"90a": 132, "100a": 148, "103a": 148}
"""Multiprocessors of the GPUs of each architecture: an H100 or H200, a B200, a B300."""

TP = (1, 2, 4, 8)
EP = (1, 2, 4, 8, 16, 32, 64)
MAX_M = 8192
ALIGNMENT = 128

SF_BYTES = 4
"""Of an FP32 scale factor."""

MASKED_ALIGNMENT = 1
"""In the masked layout every group has rows of its own, and none is padded."""

Problem = ProblemRange | MqaProblem
"""What kernels are compiled for."""

Progress = Callable[[int, int], None]
"""Called with the number of kernels that are there, and with the number of all of them."""


@dataclass(frozen=True, slots=True)
class Precompiled:
    """What `precompile` did.

    Attributes:
        num_kernels: kernels that are ready now.
        num_compiled: those of them that had to be compiled; the others were in the cache.
        seconds: what it took.
    """

    num_kernels: int
    num_compiled: int
    seconds: float


def problems_of_model(
    model: str,
    *,
    tp: Sequence[int] = TP,
    ep: Sequence[int] = EP,
    max_m: int = MAX_M,
    num_sms: int | None = None,
    alignment: int = ALIGNMENT,
    arch: str = ARCH,
    few_kernels: bool | None = None,
) -> list[Problem]:
    """What serving a model needs in FP8: single products for every M up to `max_m`, those of its
    experts, contiguous and masked, for every number of rows up to that per expert, and the MQA
    logits of its indexer, if it has one.

    Args:
        model: a name such as "deepseek-v3"; others name all that there are.
        tp: numbers of devices that share every weight.
        ep: numbers of devices that share the experts, each of which is whole.
        max_m: tokens of a batch.
        num_sms: multiprocessors that kernels may use; by default all of the architecture's GPU.
        alignment: rows to a multiple of which groups of the contiguous layout begin.
        arch: architecture that is compiled for.
        few_kernels: whether calls are confined to few kernels; by default as DG_FEW_KERNELS says.

    Raises:
        ArgumentError: no such model or architecture, or a number is not positive.
    """
    if arch not in NUM_SMS:
        refuse("arch", f"must be one of {', '.join(NUM_SMS)}", repr(arch))
    num_sms = NUM_SMS[arch] if num_sms is None else num_sms
    numbers = (("tp", tp), ("ep", ep), ("max_m", [max_m]), ("num_sms", [num_sms]))
    for name, values in (*numbers, ("alignment", [alignment])):
        for value in values:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                refuse(name, "must be a positive int", repr(value))
    sizes = model_of(model)
    few = knobs.few_kernels.get() if few_kernels is None else few_kernels
    products = [
        GemmProblem(1, n, k, arch, num_sms, splits_k=True, few_kernels=few)
        for n, k in dense_shapes(sizes, tp)
    ]
    for groups, n, k in expert_shapes(sizes, tp, ep):
        for rows in (alignment, MASKED_ALIGNMENT):
            products.append(
                GemmProblem(
                    *(1, n, k, arch, num_sms, Grouping.M_GROUPED, groups, rows), few_kernels=few
                )
            )
    if is_sm100(arch):
        # As calls have it: weights have packed scale factors for every row, and K is never split.
        products = [replace(product, gran_n=1, splits_k=False) for product in products]
    ranges = [ProblemRange(product, max_m) for product in products]
    return [*ranges, *(replace(problem, arch=arch) for problem in mqa_problems(sizes))]


def precompile(
    problems: Iterable[Problem],
    *,
    jobs: int | None = None,
    bundle: Path | None = None,
    progress: Progress | None = None,
) -> Precompiled:
    """Compiles every kernel that the problems need into the kernel cache, several at a time, and
    keeps them in this process's memory. No GPU is needed; none is touched.

    Args:
        problems: of `problems_of_model`, or of `read_problems`.
        jobs: kernels that are compiled at a time; by default as many as this process has cores.
        bundle: a file that all of the kernels are written to as well, for `cache unpack`.
        progress: called in this thread as kernels become ready.

    Raises:
        ArgumentError: `jobs` is not positive.
        CompilationError: a kernel could not be compiled.
        MissingDependencyError: there is no compiler.
        OSError: the bundle cannot be written.

    Example:
        >>> deep_gemm.precompile(deep_gemm.problems_of_model("deepseek-v3", tp=[8]))
    """
    jobs = len(os.sched_getaffinity(0)) if jobs is None else jobs
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        refuse("jobs", "must be a positive int", repr(jobs))
    start, compiled_before = time.perf_counter(), num_compiled()
    sources = list(sources_of(problems))
    kernels = _build_all(sources, jobs, progress)
    if bundle is not None:
        _write_bundle(sources, kernels, bundle)
    seconds = time.perf_counter() - start
    return Precompiled(len(kernels), num_compiled() - compiled_before, seconds)


def sources_of(problems: Iterable[Problem]) -> Iterator[KernelSource]:
    """The source of every kernel that the problems need, those of products that take longest
    first."""
    problems = list(problems)
    ranges_of = [problem for problem in problems if isinstance(problem, ProblemRange)]
    by_arch = sorted(ranges_of, key=lambda range_: range_.problem.arch)
    for arch, ranges in groupby(by_arch, key=lambda range_: range_.problem.arch):
        configs = kernels_of(ranges)
        for config in sorted(configs, key=_effort, reverse=True):
            if isinstance(config, Sm100GemmConfig):
                yield generate_sm100(config, arch)
            else:
                yield generate(config, arch)
        yield from _sources_beside(configs, arch)
    yield from _sources_of_logits(
        problem for problem in problems if isinstance(problem, MqaProblem)
    )


def _sources_of_logits(problems: Iterable[MqaProblem]) -> Iterator[KernelSource]:
    kernels = dict.fromkeys((MqaConfig.of(problem), problem.arch) for problem in problems)
    for config, arch in kernels:
        yield generate_mqa_logits(config, arch)
    for arch in dict.fromkeys(arch for config, arch in kernels if config.page_keys):
        yield generate_paged_shares(arch)


def _sources_beside(configs: list[Config], arch: str) -> Iterator[KernelSource]:
    """Of the kernels that calls need besides: for the tensor maps of groups, and for scale factors
    that the product does not take as they come."""
    is_k_grouped = any(config.grouping is Grouping.K_GROUPED for config in configs)
    if is_sm100(arch):
        yield generate_pack(arch)
        if is_k_grouped:
            yield generate_k_grouped_pack(arch)
            yield generate_sm100_k_group_maps(arch)
        return
    if any(isinstance(config, GemmConfig) and config.is_1d1d for config in configs):
        yield generate_transpose(SF_BYTES, arch)
    if is_k_grouped:
        yield generate_k_group_maps(arch)


def _effort(config: Config) -> int:
    """Grows with the time that a kernel takes to compile: on SM90 with what a thread holds."""
    return config.block_n if isinstance(config, Sm100GemmConfig) else config.held_registers


def _build_all(
    sources: list[KernelSource], jobs: int, progress: Progress | None
) -> list[CompiledKernel]:
    # Threads: NVRTC compiles outside the interpreter's lock, and a process would import torch.
    with ThreadPoolExecutor(jobs, thread_name_prefix="precompile") as pool:
        futures = [pool.submit(build, source) for source in sources]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                if progress is not None:
                    progress(done, len(sources))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _write_bundle(sources: list[KernelSource], kernels: list[CompiledKernel], bundle: Path) -> None:
    from deep_gemm.jit.bundle import BundleEntry, write_bundle

    compiler = select_compiler()
    entries = (
        BundleEntry(kernel, cache_key(source, compiler), source.text)
        for source, kernel in zip(sources, kernels, strict=True)
    )
    write_bundle(entries, bundle)
