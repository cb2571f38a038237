"""Compiles kernels side by side, and says how long each took. Needs no GPU."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from benchmarks.configs import from_json, to_json
from benchmarks.problems import Problem
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.tuning.children import Child, ChildDied, Message, describe, log, serve

ARCH = "90a"
_KERNEL_SECONDS = 90


def chosen_configs(problems: Iterable[Problem], num_sms: int) -> list[GemmConfig]:
    """The distinct configurations that selection takes for some problems."""
    chosen = (select(GemmProblem(p.m, p.n, p.k, ARCH, num_sms)).config for p in problems)
    return list(dict.fromkeys(chosen))


def all_cores() -> int:
    """Processes for the shortest wait."""
    return os.cpu_count() or 1


def half_the_cores() -> int:
    """Processes that hardly slow each other down, so that each one's time means something."""
    return max(1, all_cores() // 2)


def compile_kernels(
    configs: Sequence[GemmConfig], processes: int, env: Mapping[str, str] | None = None
) -> list[Message]:
    """Builds kernels into the disk cache.

    Returns:
        For each kernel built: `config`, `compile_s` (the compiler alone), `build_s` (all that the
        first caller waits for), `registers`, `spill_bytes` and `cached`; for others `config` and
        `error`. Fewer than asked for if the compiling process had to be killed.
    """
    child = Child("benchmarks.compiling", env=env)
    request = {"configs": [to_json(config) for config in configs], "processes": processes}
    replies: list[Message] = []
    try:
        for reply in child.stream("compile", _KERNEL_SECONDS, **request):
            if "config" in reply:
                replies.append(reply)
            if "error" in reply:
                log(f"compile: {reply.get('config', 'all')}: {reply['error']}")
    except ChildDied as error:
        log(f"compile: {error}, {len(replies)} of {len(configs)} kernels done")
    child.close()
    return replies


def summarise(rows: Sequence[Message]) -> str:
    """How many kernels, and how long they took, in one line."""
    seconds = [row["compile_s"] for row in rows if not row.get("cached", True)]
    failed = sum("error" in row for row in rows)
    text = f"{len(rows)} kernels, {failed} failed"
    if seconds:
        text += (
            f", {len(seconds)} compiled: median {statistics.median(seconds):.2f} s, "
            f"max {max(seconds):.2f} s"
        )
    return text


def _compile(configs: list[Message], processes: int) -> Iterator[Message]:
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(_build, config): config.name for config in map(from_json, configs)}
        for future in as_completed(futures):
            error = future.exception()
            figures = future.result() if error is None else {"error": describe(error)}
            yield {"config": futures[future], **figures}


def _build(config: GemmConfig) -> Message:
    start = time.perf_counter()
    kernel = build(generate(config, ARCH))
    return {
        "compile_s": kernel.seconds,
        "build_s": time.perf_counter() - start,
        "registers": kernel.registers,
        "spill_bytes": kernel.spill_bytes,
        "cached": kernel.from_cache,
        "compiler": kernel.compiler,
    }


if __name__ == "__main__":
    serve({"compile": _compile})
