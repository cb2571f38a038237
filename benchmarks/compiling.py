"""Compiles kernels side by side, and says how long each took. Needs no GPU."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence

from benchmarks.problems import Problem
from deep_gemm import knobs
from deep_gemm.config.as_json import config_from_json, to_json
from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import select
from deep_gemm.jit.compiler import CompiledKernel
from deep_gemm.tuning import compiling as tuning
from deep_gemm.tuning.children import Child, ChildDied, Message, log, serve

ARCH = "90a"
_KERNEL_SECONDS = 90


def chosen_config(problem: Problem, num_sms: int, gpu: str = "") -> GemmConfig:
    """The public call's choice for a problem, on a GPU of this name; "" for one without a table."""
    few = knobs.few_kernels.get()
    sizes = problem.m, problem.n, problem.k
    asked = GemmProblem(*sizes, ARCH, num_sms, splits_k=True, few_kernels=few, gpu=gpu)
    return select(asked).config


def chosen_configs(problems: Iterable[Problem], num_sms: int, gpu: str = "") -> list[GemmConfig]:
    """The distinct configurations that the public call takes for some problems."""
    return list(dict.fromkeys(chosen_config(problem, num_sms, gpu) for problem in problems))


def all_cores() -> int:
    """Kernels at a time for the shortest wait."""
    return os.cpu_count() or 1


def half_the_cores() -> int:
    """As many as hardly slow each other down, so that each one's time means something."""
    return max(1, all_cores() // 2)


def compile_kernels(
    configs: Sequence[GemmConfig], jobs: int, env: Mapping[str, str] | None = None
) -> list[Message]:
    """Builds kernels into the disk cache.

    Returns:
        For each kernel built: `config`, `compile_s` (the compiler alone), `build_s` (all that the
        first caller waits for), `registers`, `spill_bytes` and `cached`; for others `config` and
        `error`. Fewer than asked for if the process that compiles had to be killed.
    """
    child = Child("benchmarks.compiling", env=env)
    request = {"configs": [to_json(config) for config in configs], "jobs": jobs}
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


def _compile(configs: list[Message], jobs: int) -> Iterator[Message]:
    for built in tuning.compile_kernels(map(config_from_json, configs), ARCH, jobs):
        reply = {"config": built.config.name, "build_s": built.seconds}
        if built.kernel is None:
            yield {**reply, "error": built.error}
        else:
            yield {**reply, **_figures(built.kernel)}


def _figures(kernel: CompiledKernel) -> Message:
    return {
        "compile_s": kernel.seconds,
        "registers": kernel.registers,
        "spill_bytes": kernel.spill_bytes,
        "cached": kernel.from_cache,
        "compiler": kernel.compiler,
    }


if __name__ == "__main__":
    serve({"compile": _compile})
